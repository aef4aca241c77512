"""Steps that a worker has gone on with in vain (ADR 0007): another worker's report counts, so they come from their queue."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.model.status import RunStatus
from fuseline.testing.flows import graph
from fuseline.testing.simulation.parties import SimWorker
from fuseline.testing.simulation.workload import RULES, Script
from tests.simulation.harness import Stage


def _gone_on_in_vain(seconds: float, concurrency: int = 1) -> tuple[Stage, SimWorker]:
    """A worker is cut off while it executes `a`, which a second one takes up and reports while it drains.

    The first one comes back in between, reports `a` too, and goes on with `b` which takes `seconds`. `b` comes from its
    queue then, at its first attempt, and there is nobody else to take it.
    """
    scripts = {"a": Script(seconds=0.5), "b": Script(seconds=seconds)}
    stage = Stage(graph("w", {"a": ["b"]}), scripts, fusion_hops=20)
    stage.without_workers()
    first = stage.add_worker(concurrency=concurrency)
    stage.run_until_so(lambda: stage.started("a"))
    stage.cut_off(first)
    second = stage.add_worker("second")
    second.on_death = None
    stage.run_until_so(lambda: len(stage.started("a")) == 2)
    second.stop()
    first.resume()
    return stage, first


def _is_done(stage: Stage) -> bool:
    stored = stage.room.database.rows.read_run("r0")
    assert stored is not None
    row = stored.steps.get("b")
    return (
        stored.run.status is RunStatus.SUCCEEDED and row is not None and (row.attempt, row.losses) == (1, 0)
    )


def test_what_a_worker_was_told_to_stop_it_executes_when_it_comes_from_its_queue() -> None:
    """P4: it let the delivery go, for it believed to have done with that attempt, time and again until it was poison."""
    stage, _ = _gone_on_in_vain(0.3)
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("b")) == 2
    assert _is_done(stage)
    assert stage.violations() == []


def _hold_notices(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What workers are to be told is not told to them, but kept."""
    publish = stage.room.server.publish
    kept: list[Any] = []

    def holding(exchange: str, key: str, body: bytes, properties: Any, who: str) -> str:
        if properties.type == codec.CONTROL:
            kept.append((exchange, key, body, properties, who))
            return "taken"
        return publish(exchange, key, body, properties, who)

    monkeypatch.setattr(stage.room.server, "publish", holding)
    stage.world.history.fault("notices are late", "server")
    return kept


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_what_a_worker_was_not_told_to_stop_it_begins_again_when_it_comes_from_its_queue(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: the delivery was tied to what runs, or was over, and what nobody will listen to."""
    stage, _ = _gone_on_in_vain(seconds)
    _hold_notices(stage, monkeypatch)
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("b")) == 2
    assert _is_done(stage)
    assert stage.violations() == []


def test_a_late_notice_does_not_stop_what_has_come_from_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: it is about what the worker had gone on with."""
    stage, first = _gone_on_in_vain(0.3)
    kept = _hold_notices(stage, monkeypatch)
    stage.run_until_so(lambda: len(stage.started("b")) == 2)
    assert kept
    monkeypatch.undo()
    for _, _, body, properties, who in kept:
        (address,) = (key for key, channel in stage.room.server.replies.items() if _is_of(channel, first))
        stage.room.server.publish("", address, body, properties, who)
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("b")) == 2
    assert _is_done(stage)
    assert stage.violations() == []


def test_what_a_replay_queues_is_executed_although_its_worker_still_goes_on_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P4: the run had failed before the report of `a` was recorded, so that `b` was nobody's, and never in a queue."""
    scripts = {"a": Script(seconds=0.5), "b": Script(seconds=3.0), "c": Script(seconds=0.3, failures=1)}
    stage = Stage(graph("w", {"a": ["b"], "c": []}), scripts, fusion_hops=20)
    stage.without_workers()
    stage.add_worker(concurrency=3)
    _hold_notices(stage, monkeypatch)
    stage.run_until_so(lambda: stage.started("b"))
    stage.run_until(3.0)
    stage.room.on_client(lambda client: client.replay_latest())
    stage.run_until(3.0 + RULES.sweep_seconds - 1.0)
    assert (len(stage.started("b")), len(stage.started("c"))) == (2, 2)
    assert _is_done(stage)
    assert stage.violations() == []


def test_what_comes_from_its_queue_before_the_worker_goes_on_with_it_is_executed_once() -> None:
    """P5: RabbitMQ has confirmed late; the two would run beside each other, and only the later one be known."""
    stage, first = _gone_on_in_vain(2.0, concurrency=2)
    stage.run_until(2.4)  # back, and `a` is not over yet
    (connection,) = {
        channel.connection for channel in stage.room.server.replies.values() if _is_of(channel, first)
    }
    connection._down_last = stage.at(5.0)  # what the server says to it comes then
    stage.world.history.fault("confirms are late", first.name)
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("b")) == 1
    assert _is_done(stage)
    assert stage.violations() == []


def _is_of(channel: Any, worker: SimWorker) -> bool:
    return channel.connection.process is worker and not channel.connection.is_cut

"""What seeds of the simulation have found, each as a schedule of its own."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.coordinator.daemon import HOUSEKEEPING_SECONDS
from fuseline.model.schema import PolicySpec
from fuseline.model.status import RunStatus, Status
from fuseline.testing.flows import graph
from fuseline.testing.simulation.parties import DRAIN_SECONDS, SimClient
from fuseline.testing.simulation.workload import LEASE_SECONDS, RULES, Script
from fuseline.testing.simulation.world import START
from tests.simulation.harness import Stage

BEAT_SECONDS = LEASE_SECONDS / 2.5


def test_successors_go_out_at_once_when_only_the_answer_to_the_commit_was_lost() -> None:
    """P4: the batch is taken up again, and its reports are recorded already: not a matter for the sweep."""
    stage = Stage(graph("w", {"a": ["b"]}), {"a": Script(seconds=0.5)})
    stage.run_until(2.3)
    assert stage.started("a")
    stage.room.database.lost_answers = 1
    stage.run_until(2.5 + RULES.sweep_seconds / 2)
    assert stage.room.database.lost_answers == 0
    assert stage.started("b")
    assert stage.violations() == []


def test_what_a_worker_gives_back_goes_out_at_once_when_only_the_answer_to_the_commit_was_lost() -> None:
    """P4: and when its coordinator is killed, which is the same for the next one. Not a matter for the sweep either."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=8.0)})
    stage.without_workers()
    worker = stage.add_worker()
    stage.run_until(5.0)
    worker.stop()
    stage.run_until(5.0 + DRAIN_SECONDS - 0.01)
    stage.room.database.lost_answers = 1
    stage.run_until(5.0 + DRAIN_SECONDS + RULES.sweep_seconds / 2)
    assert stage.room.database.lost_answers == 0
    assert len(stage.started("a")) == 2
    assert stage.violations() == []


def test_a_deleted_queue_is_declared_again_and_its_workers_go_on() -> None:
    """P1: nobody dispatches to it meanwhile, so that no assignment comes back from it and tells the coordinator."""
    stage = Stage(graph("w", {"a": []}))
    stage.run_until(1.9)
    queue = stage.room.machines.topology.steps_queue("w", "1")
    stage.room.server.delete_queue(queue, "queue deleted")
    stage.run_until(4.0)
    assert stage.started("a")
    assert not [event for event in stage.world.history.events if event[1] in ("gives-up", "exited")]
    assert stage.violations() == []


def _lose_notices_before(stage: Stage, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers are to be told until then is lost."""
    publish = stage.room.server.publish

    def lossy(exchange: str, key: str, body: bytes, properties: Any, who: str) -> str:
        if properties.type == codec.CONTROL and stage.world.now < stage.at(seconds):
            return "taken"
        return publish(exchange, key, body, properties, who)

    monkeypatch.setattr(stage.room.server, "publish", lossy)


@pytest.mark.parametrize("seconds", [15.0, 20.1, 21.0, 24.0])
def test_a_stop_notice_that_nobody_got_is_repeated(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: also when the lease has been compared with storage before; its coordinator may be gone for good."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=200.0)})
    stage.run_until(seconds)
    _lose_notices_before(stage, seconds + 1.0, monkeypatch)
    stage.cancel()
    stage.run_until(seconds + 1.0 + LEASE_SECONDS + 2 * HOUSEKEEPING_SECONDS)
    assert stage.stopped()
    assert stage.violations() == []


def _gone_on_in_a_run_that_has_ended() -> Stage:
    """A worker takes up the first step of a run that was cancelled meanwhile, and goes on to one that takes long."""
    scripts = {name: Script(seconds=0.0) for name in "abc"} | {"d": Script(seconds=200.0)}
    stage = Stage(graph("w", {"a": ["b"], "b": ["c"], "c": ["d"]}), scripts, fusion_hops=20)
    stage.without_workers()
    stage.run_until(2.5)
    stage.cancel()
    stage.run_until(3.0)
    stage.add_worker()
    return stage


def test_who_went_on_far_in_a_run_that_has_ended_is_told_by_what_he_reports() -> None:
    """P5: of `b` and `c` there are no rows, and their reports said nothing to anybody. `d` ran on for 20 s and more."""
    stage = _gone_on_in_a_run_that_has_ended()
    stage.run_until(4.0)
    assert stage.started("c"), "that is not what this is about"
    assert stage.stopped()
    assert stage.violations() == []


def test_who_went_on_in_a_run_that_has_ended_and_got_no_notice_is_told_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P5: a step without a row may be taken by a report that is on its way, but not when its run is over."""
    stage = _gone_on_in_a_run_that_has_ended()
    _lose_notices_before(stage, 5.0, monkeypatch)
    stage.run_until(5.0)
    assert stage.started("d")
    stage.run_until(stage.started("d")[0] + BEAT_SECONDS + HOUSEKEEPING_SECONDS + 0.5)
    assert stage.stopped()
    assert stage.violations() == []


def test_a_step_that_a_worker_has_just_taken_is_not_looked_for() -> None:
    """P5: without a fault nothing is executed twice. Its queue is empty, and no claim was due yet."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=0.6)})
    stage.without_workers()
    # The dispatch is at 2 s, and the first look a sweep later.
    stage.run_until(2.0 + RULES.sweep_seconds - 0.2)
    stage.add_worker()
    stage.run_until(2.0 + RULES.sweep_seconds + LEASE_SECONDS)
    assert len(stage.started("a")) == 1
    (row,) = stage.room.database.rows.read_run("r0").steps.values()  # type: ignore[union-attr]
    assert (row.status, row.losses) == (Status.SUCCEEDED, 0)
    assert stage.violations() == []


def test_a_step_whose_message_is_gone_is_offered_again() -> None:
    """P1, and soon after the first look."""
    stage = Stage(graph("w", {"a": []}))
    stage.without_workers()
    stage.run_until(3.0)
    stage.purge()
    stage.add_worker()
    stage.run_until(2.0 + RULES.sweep_seconds + LEASE_SECONDS)
    assert len(stage.started("a")) == 1
    assert stage.violations() == []


def test_the_deadline_of_a_run_that_nobody_reports_for_is_kept() -> None:
    """P1: what a dispatch makes due wakes the coordinator, not only what reports do."""
    limit = PolicySpec(name="workflow_timeout", config={"seconds": 3.0})
    stage = Stage(graph("w", {"a": []}, workflow_policies=[limit]))
    stage.without_workers()
    stage.run_until(2.0 + 3.0 + 0.5)
    run = stage.room.database.rows.read_run_row("r0")
    assert run is not None
    assert run.status is RunStatus.FAILED


def test_a_run_may_be_replayed_and_cancelled_in_one_transaction() -> None:
    """P3: it goes from one end to another, and no row says that it went on between: nothing is broken (seed 880069890)."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(state="FAILED")})
    stage.run_until_so(lambda: RunStatus.FAILED in stage.states())
    stage.room.on_client(SimClient.replay_latest)
    stage.run_until_so(lambda: stage.has_asked("replay_dead_letter"))
    stage.room.processes["c0"].pause()  # so that both are there when it looks
    stage.cancel()
    stage.run_until_so(lambda: stage.has_asked("cancel"))
    stage.run_until(stage.world.now - START + 0.1)
    stage.room.processes["c0"].resume()
    assert stage.violations() == []
    assert stage.states() == [RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED]


def test_what_a_drained_worker_gives_back_before_its_claim_got_through_is_not_lost() -> None:
    """P4: the release says nothing to a coordinator that never saw the claim, and the delivery must go back."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=5.0)})
    stage.run_until(2.5)
    (worker,) = stage.workers_of("a")
    stage.world.history.fault("full queues", "server")
    stage.room.server.is_refusing = True
    stage.run_until(3.5)
    worker.stop()
    stage.run_until(3.5 + DRAIN_SECONDS + 0.1)
    stage.room.server.is_refusing = False
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("a")) == 2
    assert stage.violations() == []


def test_a_message_that_is_gone_from_within_a_backlog_that_never_ends_is_missed() -> None:
    """P1: the queue never gets empty, but what was queued long after it comes out and is executed."""
    arrivals = [2.1 + 0.01 * number for number in range(20)] + [2.5 + 0.55 * number for number in range(250)]
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=0.5)}, more_runs_at=arrivals)
    stage.without_workers()
    stage.run_until(2.4)
    queue = stage.queue()
    (gone,) = (one for one in queue.ready if one.properties.correlation_id == "r0")
    stage.world.history.fault("lost message", "server")
    queue.ready.remove(gone)
    stage.add_worker()
    while not stage.started("a", "r0"):
        stage.run_until(stage.world.now - START + 0.5)
        assert queue.ready, "that is not what this is about"
    (row,) = stage.room.database.rows.read_run("r0").steps.values()  # type: ignore[union-attr]
    assert (row.attempt, row.losses) == (2, 1)
    # Nothing else was missed by mistake.
    stage.run_until(arrivals[-1])
    runs = (stage.room.database.rows.read_run(f"r{number}") for number in range(1, len(arrivals)))
    assert {step.attempt for run in runs if run is not None for step in run.steps.values()} == {1}
    assert stage.violations() == []


def test_what_an_acknowledged_dispatch_starts_goes_out_at_once_when_storage_is_back() -> None:
    """P4: who recorded and acknowledged it was killed before he sent its step, and storage failed under the next."""
    stage = Stage(graph("w", {"a": []}), seed=5)  # with which the answer comes before the assignment is sent
    stage.run_until(1.9)
    while "acked" not in stage.kinds():
        stage.run_until(stage.world.now - START + 0.0005)
    assert "sent" not in stage.kinds(), "that is not what this is about"
    stage.kill("c0")
    stage.fail_commits(1.0)
    stage.run_until(6.0)  # the next try comes within 5 s, well before the sweep
    counts = stage.world.history.counts
    assert counts["fault: commit fails"] + counts["fault: commit answer lost"] > 1
    stage.fail_commits(0.0)
    stage.run_until(2.0 + RULES.sweep_seconds - 0.1)
    assert len(stage.started("a")) == 1
    assert stage.violations() == []


def test_of_two_deliveries_of_a_step_the_one_with_a_message_behind_it_is_kept() -> None:
    """P4: the first one's queue was deleted, so that only the second comes again when its worker is killed.

    The first one's channel is not the one that consumes any more, and does not end with the queue.
    """
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=5.0)}, more_runs_at=[2.9])
    stage.without_workers()
    worker = stage.add_worker(concurrency=2)
    stage.run_until_so(lambda: stage.started("a", "r1"))
    began = stage.started("a", "r1")[0]
    stage.run_until(began + 0.6)  # the other run's step is held by a lease now, and the worker takes one less
    stage.make_queue_anew()
    stage.dispatch_again(1)
    stage.run_until(began + 0.9)
    worker.die()
    stage.run_until(2.0 + RULES.sweep_seconds - 1.0)
    assert len(stage.started("a", "r1")) == 2
    assert stage.violations() == []


def test_a_report_does_not_answer_for_what_a_timer_made_ready_before_it() -> None:
    """P4: the worker of a step that was over its time says that it failed, as the timer did, and has long been recorded.

    The answer to the timer's commit was lost, so that what it made ready is for the sweep to see to (seed 880008445).
    """
    limit = PolicySpec(name="timeout", config={"seconds": 1.5})
    always = PolicySpec(name="trigger", config={"rule": "all_done"})
    schema = graph("w", {"a": ["b"]}, policies={"a": [limit], "b": [always]})
    stage = Stage(schema, {"a": Script("FAILED", seconds=1.2)})
    stage.run_until_so(lambda: stage.is_let_go("r0/a/1/claim"))
    (worker,) = stage.workers_of("a")
    stage.world.history.fault("pause", worker.name)
    worker.pause()
    stage.room.database.lost_answers = 1
    stage.run_until_so(lambda: not stage.room.database.lost_answers)
    row = stage.room.database.rows.read_run("r0").steps["a"]  # type: ignore[union-attr]
    assert row.error is not None
    assert (row.status, row.holder, row.error.type) == (Status.FAILED, worker.name, "StepTimeout")
    worker.resume()
    stage.run_until_so(lambda: stage.is_let_go("r0/a/1/report"))
    assert "r0/b/1" not in [event[3] for event in stage.world.history.events if event[1] == "sent"]
    assert stage.violations() == []
    assert len(stage.started("b")) == 1


def test_a_coordinator_that_is_told_nothing_of_an_alarm_ends_no_lease() -> None:
    """P5: it publishes nothing while long steps run, and RabbitMQ tells of an alarm only who publishes."""
    stage = Stage(graph("w", {"a": []}), {"a": Script(seconds=40.0)})
    stage.run_until(4.0 + LEASE_SECONDS)
    assert len(stage.started("a")) == 1
    stage.world.history.fault("memory alarm", "server")
    stage.room.server.set_alarm(True)
    stage.run_until(4.0 + 4 * LEASE_SECONDS)
    stage.room.server.set_alarm(False)
    stage.run_until(60.0)
    assert len(stage.started("a")) == 1
    assert stage.violations() == []

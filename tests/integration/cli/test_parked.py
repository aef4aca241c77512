"""`fuseline parked` over a real RabbitMQ: looking changes nothing, what is taken away is safe before it goes (P4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.parked import ParkedMessage, ParkedQueue
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import DEFAULT_EXCHANGE, DELIVERY_LIMIT, Topology
from fuseline.broker import AmqpBroker
from fuseline.model import RunStatus, Status, StepReport
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, props, wait_until
from tests.integration.cli.harness import Fuseline
from tests.integration.coordinator.harness import running

SCHEMA = graph("ingest", {"a": []}, outputs=["a"])
BAD = b"\xff{ not JSON"
RUN = "0f" * 16


@pytest.fixture
def topology(topology_prefix: str) -> Topology:
    return Topology(topology_prefix)


@pytest.fixture
def link(amqp_url: str, topology: Topology, on_rabbitmq: Fuseline) -> Iterator[BackgroundLink]:
    """Somebody who may publish anything; the topology is there."""
    resources = topology.base_resources() + topology.workflow_resources(*SCHEMA.key)
    with BackgroundLink(amqp_url, name="somebody") as link:
        link.declare(resources, deadline_seconds=SECONDS)
        yield link


@pytest.fixture
def queue(link: BackgroundLink, topology: Topology) -> ParkedQueue:
    return ParkedQueue(link, topology, SECONDS)


def report(link: BackgroundLink, topology: Topology, body: bytes, **more: Any) -> None:
    """Send it as a worker does."""
    exchange = topology.reports_exchange(SCHEMA.workflow_id)
    link.publish(exchange, "", body, props(codec.REPORT, **more), deadline_seconds=SECONDS)


def park(link: BackgroundLink, topology: Topology, count: int, **more: Any) -> list[str]:
    """So many messages that are parked; their ids."""
    ids = []
    for number in range(count):
        properties = props(codec.REPORT, **more)
        ids.append(str(properties.message_id))
        body = b"%d" % number
        link.publish(DEFAULT_EXCHANGE, topology.parked_queue, body, properties, deadline_seconds=SECONDS)
    return ids


def lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of an export."""
    return [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def test_what_a_coordinator_parked_is_seen_with_all_that_is_known_of_it(
    on_rabbitmq: Fuseline, amqp_url: str, topology: Topology, link: BackgroundLink, queue: ParkedQueue
) -> None:
    """P7: why, when, where it came from, its headers and its body, which need not be text."""
    with running(amqp_url, topology, MemoryRuntimeStorage()):
        report(link, topology, BAD, headers={"tenant": "blue", "x-raw": b"\xff", "n": 1})
        wait_until(lambda: queue.count() == 1)
    (seen,) = on_rabbitmq.json("parked", "list")
    assert "not JSON" in seen["reason"]
    assert seen["exchange"] == topology.reports_exchange("ingest")
    assert (seen["type"], seen["headers"]["tenant"], seen["headers"]["n"]) == (codec.REPORT, "blue", 1)
    assert base64.b64decode(seen["body"]) == BAD
    assert seen["parked_at"] > 1e9
    assert seen["message_id"] in on_rabbitmq("parked", "list").stdout
    # Ready to be exported, which takes nothing away unless it is told to.
    done = on_rabbitmq("parked", "export", "parked.jsonl")
    assert done.stdout == "1 parked message in parked.jsonl\n"
    assert lines(on_rabbitmq.folder / "parked.jsonl") == [seen]
    again = on_rabbitmq("parked", "export", "parked.jsonl", "--remove")
    assert again.returncode == 3
    assert "exists already" in again.stderr
    assert on_rabbitmq.json("parked", "list") == [seen]
    done = on_rabbitmq("parked", "export", "removed.jsonl", "--remove")
    assert done.stdout == "1 parked message in removed.jsonl, and no longer parked\n"
    assert lines(on_rabbitmq.folder / "removed.jsonl") == [seen]
    assert on_rabbitmq.json("parked", "list") == []


def test_looking_loses_nothing_however_often(
    topology: Topology, link: BackgroundLink, queue: ParkedQueue
) -> None:
    """P4: RabbitMQ 4 drops what was handed back as often as this."""
    ids = park(link, topology, 3, headers={"x-fuseline-reason": "why"})
    for _ in range(DELIVERY_LIMIT + 5):
        assert [(one.message_id, one.reason) for one in queue.browse()] == [(one, "why") for one in ids]
    assert queue.count() == 3
    # A part of them at a time: all are seen in turn.
    assert [one.message_id for one in queue.browse(2)] == ids[:2]
    assert [one.message_id for one in queue.browse(2)] == [ids[2], ids[0]]


def test_a_report_that_came_too_early_is_recorded_when_it_is_replayed(
    on_rabbitmq: Fuseline, amqp_url: str, topology: Topology, link: BackgroundLink, queue: ParkedQueue
) -> None:
    """P3: it is read as any report is; what still fits nowhere is parked again, and what is no report is not sent."""
    with (
        running(amqp_url, topology, MemoryRuntimeStorage()),
        AmqpBroker(amqp_url, topology=topology) as broker,
    ):
        early = StepReport(
            workflow_id="ingest", instance_id=RUN, step_name="a", state=Status.SUCCEEDED, result=42
        )
        report(link, topology, codec.encode(early))
        report(link, topology, BAD)
        link.publish(topology.dead_exchange, "", BAD, props(codec.ASSIGNMENT), deadline_seconds=SECONDS)
        wait_until(lambda: queue.count() == 3)
        messages = on_rabbitmq.json("parked", "list")
        ids = {
            one["reason"].split()[0]: one["message_id"] for one in messages if "reports" in one["exchange"]
        }
        broker.dispatch_workflow(SCHEMA, instance_id=RUN)
        (done,) = on_rabbitmq.json("parked", "replay", ids["no"])
        assert done == {"message_id": ids["no"], "done": "replayed", "error": None}
        assert broker.wait(RUN, SECONDS).state is RunStatus.SUCCEEDED
        assert broker.get_run(RUN).outputs == {"a": 42}
        assert queue.count() == 2
        rest = on_rabbitmq("parked", "replay", "--all", "--yes")
        assert rest.returncode == 3
        assert rest.stdout == "1 parked message replayed, 1 refused\n"
        assert "dead assignment" in rest.stderr
        wait_until(lambda: queue.count() == 2)
        assert {one.message_id for one in queue.browse()} == {one["message_id"] for one in messages} - {
            ids["no"]
        }


def test_a_message_whose_exchange_is_gone_stays_parked(
    topology: Topology, link: BackgroundLink, queue: ParkedQueue
) -> None:
    exchange = topology.reports_exchange("forgotten")
    (one,) = park(link, topology, 1, headers={"x-fuseline-exchange": exchange})
    ((message, problem),) = queue.replay(lambda _one: True)
    assert (message.message_id, message.exchange) == (one, exchange)
    assert "forgotten" in problem
    assert [left.message_id for left in queue.browse()] == [one]


def test_what_cannot_be_written_is_not_taken_away(
    topology: Topology, link: BackgroundLink, queue: ParkedQueue, amqp_url: str
) -> None:
    """P4: a full disk, and whoever goes away in the middle of looking."""
    ids = park(link, topology, 5)

    def full(_messages: list[ParkedMessage]) -> None:
        raise OSError("no space left")

    with BackgroundLink(amqp_url, name="unlucky") as other, pytest.raises(OSError, match="no space"):
        ParkedQueue(other, topology, SECONDS).drain(full)
    with BackgroundLink(amqp_url, name="impatient") as other:
        next(ParkedQueue(other, topology, SECONDS).browse())
    wait_until(lambda: queue.count() == 5)
    assert {one.message_id for one in queue.browse()} == set(ids)


def test_who_is_killed_while_exporting_loses_nothing(
    on_rabbitmq: Fuseline, topology: Topology, link: BackgroundLink, queue: ParkedQueue
) -> None:
    """P4: each message is in the file or in the queue, or in both."""
    ids = set(park(link, topology, 700))
    file = on_rabbitmq.folder / "all.jsonl"
    process = on_rabbitmq.background("parked", "export", str(file), "--remove")
    on_rabbitmq.wait_for(lambda: file.exists() and file.stat().st_size > 0)
    process.kill()
    process.wait()
    on_rabbitmq.started.clear()
    exported = {one["message_id"] for one in lines(file)}
    left: set[str] = set()

    def all_there() -> bool:
        left.update(one.message_id for one in queue.browse())
        return exported | left == ids

    wait_until(all_there)  # RabbitMQ takes a moment to see that a client is gone
    assert exported


def test_what_is_asked_wrongly_or_away_is_told(on_rabbitmq: Fuseline) -> None:
    """P7."""
    run = on_rabbitmq
    nowhere = run("parked", "list")
    assert nowhere.returncode == 5
    assert "fuseline topology apply" in nowhere.stderr
    assert run("parked", "export", "f.jsonl").returncode == 5
    assert not (run.folder / "f.jsonl").exists()
    assert run("topology", "apply").returncode == 0
    for arguments, code, told in [
        (["replay"], 2, "--all"),
        (["replay", "x", "--all"], 2, "--all"),
        (["replay", "--all"], 2, "--yes"),
        (["replay", "unheard-of"], 3, "no such parked message"),
        (["export", "no/such/folder/f"], 3, "No such file"),
        (["list", "--limit", "0"], 2, "limit"),
    ]:
        result = run("parked", *arguments)
        assert result.returncode == code, result
        assert told in result.stderr, result
        assert "Traceback" not in result.stderr
    away = run("parked", "export", "g", "--call-seconds", "1", FUSELINE_AMQP_URL="amqp://127.0.0.1:1/")
    assert away.returncode == 4
    assert "broker_unavailable" in away.stderr

"""Events for whoever listens, whatever else nobody listens to."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.events import EventStream
from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.coordinator.announcing import KEYS_AT_ONCE
from fuseline.engine import Rules
from fuseline.testing.flows import Player, graph
from tests.integration.amqp.harness import SECONDS, Taker, wait_until
from tests.integration.coordinator.conftest import Serve

ALL_KINDS = [
    "workflow_started",
    "step_enqueued",
    "step_finished",
    "step_enqueued",
    "step_finished",
    "workflow_finished",
]


def watching(topology: Topology, *patterns: str) -> PrivateQueue:
    """A watcher's queue, bound by these."""
    bindings = tuple((topology.events_exchange, pattern) for pattern in patterns)
    return PrivateQueue(f"{topology.prefix}.observers.test", bindings)


def test_who_watches_one_run_misses_nothing_of_it_for_others_that_nobody_watches(
    serve: Serve, amqp_url: str, topology: Topology
) -> None:
    broker = serve(Rules())
    schema = graph("watched", {"a": ["b"]})
    worker = Player(broker, broker.register_worker([schema]), SECONDS)
    run = secrets.token_hex(16)
    watchers = watching(topology, *topology.events_patterns(instance_id=run))
    with BackgroundLink(amqp_url, name="watcher") as link:
        taker = Taker(link, watchers, ack=True)
        wait_until(lambda: bool(taker.consumer.is_consuming))
        worker.play(broker.dispatch_workflow(schema))
        broker.dispatch_workflow(schema, instance_id=run)
        worker.play(run)
        kinds: list[str] = []
        probes = 0
        while len(kinds) < 6:
            delivery = taker.delivery()
            body = json.loads(delivery.body)
            if delivery.properties.type == codec.PROBE:
                probes += 1
                # and nothing of runs that are not its own
                assert (delivery.routing_key, body, delivery.properties.headers) == ("", {}, {})
            else:
                assert body["instance_id"] == run
                kinds.append(body["kind"])
    assert kinds == ALL_KINDS
    assert probes


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"instance_id"}, ALL_KINDS),
        ({"workflow_id", "instance_id"}, ALL_KINDS),
        ({"instance_id", "event"}, ["step_finished"] * 2),
        ({"event"}, ["step_finished"] * 2),
        (set(), ALL_KINDS),
    ],
    ids=["a run", "a run of a workflow", "a kind of a run", "a kind", "nothing"],
)
def test_whatever_a_stream_names_it_brings_all_of_that(
    serve: Serve, amqp_url: str, topology: Topology, named: set[str], told: list[str]
) -> None:
    """Of a run also while others go on; and nobody has listened before."""
    broker = serve(Rules())
    schema = graph("watched", {"a": ["b"]})
    worker = Player(broker, broker.register_worker([schema]), SECONDS)
    run = secrets.token_hex(16)
    names: dict[str, Any] = {"workflow_id": "watched", "instance_id": run, "event": "step_finished"}
    others = 3 if "instance_id" in named else 0

    def play() -> None:
        runs = [broker.dispatch_workflow(schema) for _ in range(others)]
        for one in (*runs, broker.dispatch_workflow(schema, instance_id=run)):
            worker.play(one)

    async def watch() -> list[dict[str, Any]]:
        async with EventStream(amqp_url, topology, **{name: names[name] for name in named}) as stream:
            events = aiter(stream)
            await asyncio.to_thread(play)
            async with asyncio.timeout(SECONDS):
                got = [await anext(events) for _ in told]
        return [event.data for event in got if event is not None]

    events = asyncio.run(watch())
    assert [event["kind"] for event in events] == told
    assert {event["instance_id"] for event in events} == {run}


def test_a_wide_run_is_told_whole_and_in_order(serve: Serve, amqp_url: str, topology: Topology) -> None:
    """More runs at once than one probe asks for."""
    broker = serve(Rules())
    schema = graph("many", {"a": []})
    worker = Player(broker, broker.register_worker([schema]), SECONDS)
    watchers = watching(topology, *topology.events_patterns("many"))
    with BackgroundLink(amqp_url, name="watcher") as link:
        taker = Taker(link, watchers, prefetch=1000, ack=True)
        wait_until(lambda: bool(taker.consumer.is_consuming))
        runs = {broker.dispatch_workflow(schema) for _ in range(2 * KEYS_AT_ONCE)}
        for _ in runs:
            worker.do("a")
        seen: dict[str, list[str]] = {}
        while sum(map(len, seen.values())) < 4 * len(runs):
            delivery = taker.delivery()
            if delivery.properties.type == codec.EVENT:
                body = json.loads(delivery.body)
                seen.setdefault(body["instance_id"], []).append(body["kind"])
    assert seen.keys() == runs
    assert {tuple(kinds) for kinds in seen.values()} == {
        ("workflow_started", "step_enqueued", "step_finished", "workflow_finished")
    }

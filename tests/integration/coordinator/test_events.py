"""Events for whoever listens, whatever else nobody listens to."""

from __future__ import annotations

import json
import secrets

from fuseline.amqp import codec
from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.coordinator.announcing import KEYS_AT_ONCE
from fuseline.engine import Rules
from fuseline.testing.flows import Player, graph
from tests.integration.amqp.harness import SECONDS, Taker, wait_until
from tests.integration.coordinator.conftest import Serve


def test_who_watches_one_run_misses_nothing_of_it_for_others_that_nobody_watches(
    serve: Serve, amqp_url: str, topology: Topology
) -> None:
    broker = serve(Rules())
    schema = graph("watched", {"a": ["b"]})
    worker = Player(broker, broker.register_worker([schema]), SECONDS)
    run = secrets.token_hex(16)
    pattern = topology.events_patterns(instance_id=run)
    watchers = PrivateQueue(f"{topology.prefix}.observers.test", ((topology.events_exchange, pattern),))
    with BackgroundLink(amqp_url, name="watcher") as link:
        taker = Taker(link, watchers, ack=True)
        wait_until(lambda: bool(taker.consumer.is_consuming))
        worker.play(broker.dispatch_workflow(schema))
        broker.dispatch_workflow(schema, instance_id=run)
        worker.play(run)
        kinds: list[str] = []
        while len(kinds) < 6:
            delivery = taker.delivery()
            body = json.loads(delivery.body)
            if delivery.properties.type == codec.PROBE:
                assert (body, delivery.properties.headers) == (
                    {},
                    {},
                )  # and nothing of runs that are not its own
            else:
                assert body["instance_id"] == run
                kinds.append(body["kind"])
    assert kinds == [
        "workflow_started",
        "step_enqueued",
        "step_finished",
        "step_enqueued",
        "step_finished",
        "workflow_finished",
    ]


def test_a_wide_run_is_told_whole_and_in_order(serve: Serve, amqp_url: str, topology: Topology) -> None:
    """More runs at once than one probe asks for."""
    broker = serve(Rules())
    schema = graph("many", {"a": []})
    worker = Player(broker, broker.register_worker([schema]), SECONDS)
    watchers = PrivateQueue(
        f"{topology.prefix}.observers.test", ((topology.events_exchange, topology.events_pattern("many")),)
    )
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

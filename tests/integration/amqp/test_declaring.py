"""The topology on a real server: applied, compared, and counted, without hurting anything that runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuseline.amqp.resources import Binding, Exchange, Finding, Queue, QueueCount
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError, TopologyError
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import SECONDS, AnyLink, Taker, outside, props


def findings(link: AnyLink, topology: Topology) -> dict[str, tuple[Finding, str]]:
    resources = topology.base_resources() + topology.workflow_resources(*WORKFLOW)
    return {
        str(one.resource): (one.finding, one.detail)
        for one in link.verify(resources, deadline_seconds=SECONDS)
    }


def test_what_was_applied_is_found_in_order(link: AnyLink, topology: Topology, steps: str) -> None:
    found = findings(link, topology)
    kinds = {name.split()[0]: finding for name, (finding, _) in found.items()}
    assert kinds == {"exchange": Finding.OK, "queue": Finding.OK, "binding": Finding.UNKNOWN}
    link.declare(topology.base_resources(), deadline_seconds=SECONDS)


def test_classic_queues_work_as_well(link: AnyLink, topology: Topology) -> None:
    classic = Topology(topology.prefix, "classic")
    link.declare(classic.base_resources() + classic.workflow_resources(*WORKFLOW), deadline_seconds=SECONDS)
    assert {finding for finding, _ in findings(link, classic).values()} == {Finding.OK, Finding.UNKNOWN}
    found = findings(link, topology)
    assert found[f"queue {topology.dead_queue!r}"][0] is Finding.DIFFERS


def test_on_an_empty_server_everything_is_missing_and_stays_so(link: AnyLink, topology: Topology) -> None:
    for _ in range(2):
        found = findings(link, topology)
        assert {finding for finding, _ in found.values()} == {Finding.MISSING, Finding.UNKNOWN}


def test_other_arguments_are_found_and_named(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    with outside(amqp_url) as channel:
        channel.queue_delete(topology.reports_queue)
        declared = {one.name: one for one in topology.base_resources() if isinstance(one, Queue)}
        arguments = {**declared[topology.reports_queue].arguments, "x-max-length": 5}
        channel.queue_declare(topology.reports_queue, durable=True, arguments=arguments)
        channel.exchange_delete(topology.events_exchange)
        channel.exchange_declare(topology.events_exchange, "direct", durable=True)
        channel.queue_delete(topology.parked_queue)
    found = findings(link, topology)
    finding, detail = found[f"queue {topology.reports_queue!r}"]
    assert finding is Finding.DIFFERS
    assert "x-max-length" in detail
    finding, detail = found[f"exchange {topology.events_exchange!r}"]
    assert finding is Finding.DIFFERS
    assert "type" in detail
    assert found[f"queue {topology.parked_queue!r}"][0] is Finding.MISSING
    assert found[f"queue {steps!r}"][0] is Finding.OK, "those after a difference are compared too"


def test_declaring_over_something_else_names_it(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    with outside(amqp_url) as channel:
        channel.queue_delete(steps)
        channel.queue_declare(steps, durable=True)
    with pytest.raises(TopologyError, match="inequivalent") as caught:
        link.declare(topology.workflow_resources(*WORKFLOW), deadline_seconds=SECONDS)
    assert steps in str(caught.value)


def test_binding_to_what_is_missing_names_it(link: AnyLink, topology: Topology) -> None:
    with pytest.raises(TopologyError, match="nowhere"):
        link.declare([Binding("nowhere", "neither")], deadline_seconds=SECONDS)


def test_a_refused_declaration_costs_nothing_that_runs(link: AnyLink, topology: Topology, steps: str) -> None:
    taker = Taker(link, steps)
    key = topology.steps_key(*WORKFLOW)
    link.publish(topology.steps_exchange, key, b"x", props(), deadline_seconds=SECONDS)
    held = taker.delivery()
    with pytest.raises(TopologyError):
        link.declare([Exchange(topology.steps_exchange, "topic")], deadline_seconds=SECONDS)
    with pytest.raises(TopologyError):
        link.declare([Queue(steps)], deadline_seconds=SECONDS)
    link.publish(topology.steps_exchange, key, b"y", props(), deadline_seconds=SECONDS)
    assert taker.delivery().body == b"y"
    assert not held.is_stale


def test_counting(link: AnyLink, topology: Topology, steps: str) -> None:
    assert link.count(f"{topology.prefix}.nowhere", deadline_seconds=SECONDS) is None
    assert link.count(steps, deadline_seconds=SECONDS) == QueueCount(0, 0)


def test_without_a_server_the_deadline_ends_it(open_link: Callable[..., AnyLink], topology: Topology) -> None:
    away = open_link("amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        away.verify(topology.base_resources(), deadline_seconds=0.3)

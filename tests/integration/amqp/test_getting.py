"""Single messages, for clients that pull."""

from __future__ import annotations

import queue
from collections.abc import Callable

import pytest

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError, FuselineError, TopologyError
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import SECONDS, AnyLink, Burst, drain, on_thread, outside, wait_until


@pytest.fixture
def send(link: AnyLink, topology: Topology, steps: str) -> Callable[..., None]:
    """Puts messages into the step queue."""

    def send(*bodies: bytes) -> None:
        burst = Burst(link)
        burst.publish([(topology.steps_exchange, topology.steps_key(*WORKFLOW), body) for body in bodies])
        assert set(burst.answers()) == {None}

    return send


def test_get_takes_one_message_or_none(link: AnyLink, steps: str, send: Callable[..., None]) -> None:
    assert link.get(steps, deadline_seconds=SECONDS) is None
    send(b"a", b"b")
    bodies = [delivery.body for delivery in (link.get(steps, deadline_seconds=SECONDS),) * 1 if delivery]
    second = link.get(steps, deadline_seconds=SECONDS)
    assert second is not None
    assert [*bodies, second.body] == [b"a", b"b"]
    assert link.get(steps, deadline_seconds=SECONDS) is None


def test_many_gets_at_once_are_answered_one_each(
    link: AnyLink, steps: str, send: Callable[..., None]
) -> None:
    send(b"a", b"b", b"c")
    answers: queue.Queue[Delivery | FuselineError | None] = queue.Queue()

    def ask(_one: object) -> None:
        for _ in range(5):
            link.link.get(steps, answers.put, deadline_seconds=SECONDS)

    on_thread(link, ask)
    got = [answers.get(timeout=SECONDS) for _ in range(5)]
    assert [one.body if isinstance(one, Delivery) else one for one in got] == [b"a", b"b", b"c", None, None]


def test_a_missing_queue_is_told_and_costs_nothing_that_is_held_of_others(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    send(b"a")
    held = link.get(steps, deadline_seconds=SECONDS)
    assert held is not None
    with pytest.raises(TopologyError, match="nowhere"):
        link.get(f"{topology.prefix}.nowhere", deadline_seconds=SECONDS)
    assert not held.is_stale
    on_thread(link, lambda one: one.ack(held))
    wait_until(lambda: link.get(steps, deadline_seconds=SECONDS) is None)
    assert drain(amqp_url, steps) == []


def test_a_queue_that_comes_back_is_asked_again(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    assert link.get(steps, deadline_seconds=SECONDS) is None
    with outside(amqp_url) as channel:
        channel.queue_delete(steps)
    with pytest.raises(TopologyError):
        link.get(steps, deadline_seconds=SECONDS)
    link.declare(topology.workflow_resources(*WORKFLOW), deadline_seconds=SECONDS)
    send(b"a")
    delivery = link.get(steps, deadline_seconds=SECONDS)
    assert delivery is not None
    assert delivery.body == b"a"


def test_the_deadline_ends_the_wait_for_a_server(open_link: Callable[..., AnyLink]) -> None:
    away = open_link("amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        away.get("q", deadline_seconds=0.3)

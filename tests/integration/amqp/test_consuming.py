"""P1 and P5: a consumer comes back whatever ends it, and nothing it held before is ever acknowledged after."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.resources import QueueCount
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerBusyError, BrokerUnavailableError, TopologyError
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import (
    SECONDS,
    AnyLink,
    Burst,
    Taker,
    drain,
    on_thread,
    outside,
    props,
    wait_until,
)


@pytest.fixture
def send(link: AnyLink, topology: Topology, steps: str) -> Callable[..., None]:
    """Puts messages into the step queue."""

    def send(*bodies: bytes) -> None:
        burst = Burst(link)
        burst.publish([(topology.steps_exchange, topology.steps_key(*WORKFLOW), body) for body in bodies])
        assert set(burst.answers()) == {None}

    return send


def counted(link: AnyLink, name: str) -> QueueCount:
    count = link.count(name, deadline_seconds=SECONDS)
    assert count is not None
    return count


def test_a_delivery_says_where_it_came_from(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None]
) -> None:
    taker = Taker(link, topology.reports_queue)
    sent = props()
    link.publish(topology.reports_exchange(WORKFLOW[0]), "made up", b"body", sent, deadline_seconds=SECONDS)
    delivery = taker.delivery()
    assert delivery.body == b"body"
    assert delivery.exchange == topology.reports_exchange(WORKFLOW[0])
    assert delivery.routing_key == "made up"
    assert delivery.queue == topology.reports_queue
    assert delivery.properties.message_id == sent.message_id
    assert delivery.properties.delivery_mode == 2
    assert not delivery.redelivered
    assert not delivery.is_stale


def test_messages_that_came_together_end_in_one_batch_end(
    link: AnyLink, steps: str, send: Callable[..., None]
) -> None:
    send(*[b"x"] * 200)
    taker = Taker(link, steps, prefetch=200)
    sizes: list[int] = []
    size = 0
    while sum(sizes) < 200:
        event = taker.events.get(timeout=SECONDS)
        if isinstance(event, Delivery):
            size += 1
        else:
            assert event is None
            sizes.append(size)
            size = 0
    assert len(sizes) < 100, "batches of one or two would be no batches"
    assert 0 not in sizes


def test_prefetch_bounds_what_is_held(link: AnyLink, steps: str, send: Callable[..., None]) -> None:
    """P6."""
    send(*[b"x"] * 10)
    taker = Taker(link, steps, prefetch=3)
    held = [taker.delivery() for _ in range(3)]
    count = link.count(steps, deadline_seconds=SECONDS)
    assert count is not None
    assert (count.messages, count.consumers) == (7, 1)
    taker.ack(held[-1], multiple=True)
    assert len([taker.delivery() for _ in range(3)]) == 3


def test_nack_hands_back_or_dead_letters(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    send(b"x")
    taker = Taker(link, steps)
    first = taker.delivery()
    on_thread(link, lambda one: one.nack(first, requeue=True))
    second = taker.delivery()
    assert second.redelivered
    on_thread(link, lambda one: one.nack(second, requeue=False))
    wait_until(lambda: drain(amqp_url, topology.dead_queue) == [b"x"])


def test_a_channel_closed_under_us_is_renewed_and_its_tags_are_never_acked_on_the_new_one(
    link: AnyLink, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    send(b"a", b"b")
    taker = Taker(link, steps, prefetch=2)  # so few that no acknowledgement waits for another
    old = [taker.delivery(), taker.delivery()]
    # Acknowledging twice is an error to RabbitMQ, which closes the channel: what is unacknowledged goes back.
    taker.ack(old[0])
    taker.ack(old[0])
    loss = taker.loss()
    assert "unknown delivery tag" in str(loss)
    assert old[1].is_stale
    again = taker.delivery()
    assert (again.body, again.redelivered) == (b"b", True)
    assert again.tag == 1
    assert old[0].tag == again.tag, "else the next line proves nothing"
    taker.ack(old[0], multiple=True)
    taker.ack(old[1], multiple=True)
    for stale in old:
        on_thread(link, lambda one, stale=stale: one.nack(stale, requeue=False))  # type: ignore[misc]
    on_thread(link, lambda _one: taker.consumer.end())
    wait_until(lambda: drain(amqp_url, steps) == [b"b"])


def test_a_deleted_queue_ends_the_consumer_which_comes_back_with_the_queue(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    send(b"a")
    taker = Taker(link, steps)
    old = taker.delivery()
    with outside(amqp_url) as channel:
        channel.queue_delete(steps)
    assert isinstance(taker.loss(), BrokerUnavailableError)
    assert "cancelled" not in str(missing := taker.loss()), (
        "it tries again, and is told that the queue is missing"
    )
    assert isinstance(missing, TopologyError)
    assert steps in str(missing)
    link.declare(topology.workflow_resources(*WORKFLOW), deadline_seconds=SECONDS)
    send(b"b")
    new = taker.delivery()
    assert new.body == b"b"
    taker.ack(old)
    assert old.is_stale
    assert not new.is_stale


def test_a_missing_queue_does_not_hurt_the_other_consumers(
    link: AnyLink, topology: Topology, steps: str, send: Callable[..., None]
) -> None:
    taker = Taker(link, steps)
    missing = Taker(link, f"{topology.prefix}.nowhere")
    assert isinstance(missing.loss(), TopologyError)
    send(b"a")
    delivery = taker.delivery()
    missing.loss()
    assert not delivery.is_stale
    taker.ack(delivery)
    on_thread(link, lambda _one: missing.consumer.cancel())


def test_cancel_takes_no_more_and_keeps_what_is_held(
    link: AnyLink, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    """A worker that drains finishes what it has."""
    send(b"a")
    taker = Taker(link, steps, prefetch=10)
    held = taker.delivery()
    on_thread(link, lambda _one: taker.consumer.cancel())
    send(b"b")
    wait_until(lambda: counted(link, steps).messages == 1)
    assert not held.is_stale
    taker.ack(held)
    wait_until(lambda: drain(amqp_url, steps) == [b"b"])
    assert not taker.consumer.is_consuming


def test_cancelling_in_the_middle_of_a_batch_hands_the_rest_back(
    link: AnyLink, steps: str, send: Callable[..., None], amqp_url: str
) -> None:
    send(*[str(number).encode() for number in range(50)])
    seen: list[Delivery] = []

    def start(one: object) -> None:
        def took(delivery: Delivery) -> None:
            seen.append(delivery)
            link.link.ack(delivery)
            consumer.cancel()

        consumer = link.link.consume(steps, 50, took)

    on_thread(link, start)
    wait_until(lambda: counted(link, steps).messages == 49)
    assert [delivery.body for delivery in seen] == [b"0"]
    assert len(drain(amqp_url, steps)) == 49


def test_every_coordinator_sees_every_beat(
    open_link: Callable[..., AnyLink], link: AnyLink, topology: Topology, steps: str
) -> None:
    """Each has a queue of its own, also two lives of one coordinator at the same time."""
    takers = [
        Taker(open_link(), topology.heartbeats_queue(coordinator), ack=True)
        for coordinator in ("a", "a", "b.c")
    ]
    for taker in takers:
        wait_until(lambda taker=taker: bool(taker.consumer.is_consuming))  # type: ignore[misc]
    link.publish(
        topology.heartbeats_exchange, "", b"beat", props(), deadline_seconds=SECONDS, mandatory=False
    )
    assert [taker.delivery().body for taker in takers] == [b"beat"] * 3


def test_a_private_queue_goes_with_its_connection(
    open_link: Callable[..., AnyLink], topology: Topology, steps: str, link: AnyLink
) -> None:
    other = open_link()
    taker = Taker(other, topology.heartbeats_queue("gone"))
    wait_until(lambda: taker.consumer.is_consuming)
    name = taker.consumer.queue
    with pytest.raises(BrokerBusyError, match="exclusive"):
        link.count(name, deadline_seconds=SECONDS)
    other.close()
    assert link.count(name, deadline_seconds=SECONDS) is None

"""Acknowledgements that are told together tell of what is settled, of all of it, and of nothing else (P4)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.amqp.acking import ACK_SECONDS, Acks
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.traffic import Traffic
from tests.unit.amqp.consumers import consumer_on


class Server:
    """RabbitMQ's side of a channel: an acknowledgement must name a delivery that has none."""

    def __init__(self, deliveries: int) -> None:
        self.unacked = set(range(1, deliveries + 1))

    def ack(self, tag: int, multiple: bool) -> set[int]:
        """Which deliveries that was about."""
        assert tag in self.unacked, "unknown delivery tag: RabbitMQ closes the channel"
        found = {one for one in self.unacked if one <= tag} if multiple else {tag}
        self.unacked -= found
        return found


@given(st.integers(1, 30), st.data())
def test_whatever_the_order_each_is_told_once_and_none_too_early(
    deliveries: int, data: st.DataObject
) -> None:
    acks, server = Acks(), Server(deliveries)
    done: set[int] = set()
    open_ = set(range(1, deliveries + 1))
    while open_:
        tag = data.draw(st.sampled_from(sorted(open_)))
        what = data.draw(st.sampled_from(["ack", "ack", "ack", "nack", "multiple", "tell"]))
        if what == "ack":
            acks.add(tag, multiple=False)
            done.add(tag)
            open_.discard(tag)
        elif what == "multiple":
            acks.add(tag, multiple=True)
            done |= {one for one in open_ if one <= tag}
            open_ = {one for one in open_ if one > tag}
        elif what == "nack":
            acks.skip(tag)
            server.unacked.discard(tag)
            open_.discard(tag)
        else:
            tell(acks, server, done)
    tell(acks, server, done)
    assert server.unacked == set()
    assert acks.take() == []


def tell(acks: Acks, server: Server, done: set[int]) -> None:
    for tag, multiple in acks.take():
        assert server.ack(tag, multiple) <= done
    assert acks.waiting == 0
    assert not server.unacked & done


def test_a_row_is_told_in_one() -> None:
    acks = Acks()
    for tag in (3, 1, 2, 4, 7):
        acks.add(tag, multiple=False)
    assert acks.waiting == 5
    assert acks.take() == [(4, True), (7, False)]
    acks.add(5, multiple=False)
    assert acks.take() == [(5, False)]
    acks.add(6, multiple=False)
    acks.add(8, multiple=False)
    assert acks.take() == [(8, True)]


def test_how_many_wait_counts_what_one_covers() -> None:
    acks = Acks()
    acks.add(10, multiple=True)
    assert acks.waiting == 10
    acks.add(12, multiple=True)
    assert acks.waiting == 12
    assert acks.take() == [(12, True)]


class Loop:
    """Timers that fire when they are told to."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, callback: Any) -> Any:
        timer = (seconds, callback)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

    def call_soon(self, callback: Any) -> None:
        callback()

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for _seconds, callback in timers:
            callback()


class Channel:
    """Records what is told."""

    is_open = True

    def __init__(self) -> None:
        self.told: list[Any] = []

    def basic_ack(self, tag: int, multiple: bool) -> None:
        self.told.append((tag, multiple))

    def basic_nack(self, tag: int, _multiple: bool, requeue: bool) -> None:
        self.told.append(("nack", tag, requeue))

    def close(self) -> None:
        self.told.append("closed")
        self.is_open = False


def consuming(prefetch: int) -> tuple[Consumer, Channel, Loop]:
    loop: Any = Loop()
    connection: Any = SimpleNamespace(traffic=Traffic(), pika=None)
    consumer = consumer_on(connection, loop, "queue", prefetch)
    channel = Channel()
    consumer._channel = channel  # type: ignore[assignment]
    return consumer, channel, loop


def deliveries(consumer: Consumer, tags: Sequence[int]) -> list[Delivery]:
    return [Delivery(tag, consumer.generation, b"", None, "", "", False, "queue", consumer) for tag in tags]  # type: ignore[arg-type]


def test_a_quarter_of_the_prefetch_does_not_wait() -> None:
    consumer, channel, loop = consuming(16)
    for one in deliveries(consumer, [1, 2, 3]):
        consumer.ack(one, multiple=False)
    assert channel.told == []
    assert [seconds for seconds, _ in loop.timers] == [ACK_SECONDS]
    consumer.ack(deliveries(consumer, [4])[0], multiple=False)
    assert channel.told == [(4, True)]
    assert consumer._connection.traffic.acks == 1


def test_a_few_wait_for_a_moment() -> None:
    consumer, channel, loop = consuming(16)
    consumer.ack(deliveries(consumer, [1])[0], multiple=False)
    loop.fire()
    assert channel.told == [(1, False)]
    loop.fire()
    assert channel.told == [(1, False)]


@pytest.mark.parametrize("prefetch", [1, 4, 7])
def test_with_a_small_prefetch_none_waits(prefetch: int) -> None:
    consumer, channel, loop = consuming(prefetch)
    consumer.ack(deliveries(consumer, [1])[0], multiple=False)
    assert channel.told == [(1, False)]
    assert loop.timers == []


def test_what_waits_is_told_before_the_channel_is_closed() -> None:
    consumer, channel, loop = consuming(16)
    consumer.ack(deliveries(consumer, [1])[0], multiple=False)
    consumer.end()
    assert channel.told == [(1, False), "closed"]
    assert loop.timers == []


def test_what_waits_is_forgotten_with_its_channel() -> None:
    consumer, channel, loop = consuming(16)
    one, two = deliveries(consumer, [1, 2])
    consumer.ack(two, multiple=False)
    channel.is_open = False
    consumer._closed(channel, RuntimeError("lost"))  # type: ignore[arg-type]
    later = Channel()
    consumer._channel = later  # type: ignore[assignment]
    consumer.ack(one, multiple=False)  # stale
    loop.fire()
    assert (channel.told, later.told) == ([], [])
    consumer.ack(deliveries(consumer, [1])[0], multiple=False)
    loop.fire()
    assert later.told == [(1, False)]


def test_what_is_handed_back_does_not_wait() -> None:
    consumer, channel, loop = consuming(16)
    one, two, three = deliveries(consumer, [1, 2, 3])
    consumer.ack(three, multiple=False)
    consumer.nack(one, requeue=True)
    consumer.ack(two, multiple=False)
    loop.fire()
    assert channel.told == [("nack", 1, True), (3, True)]


@pytest.mark.parametrize("missing", [None, 50_000])
def test_one_that_stays_open_costs_no_memory_for_each_after_it(missing: int | None) -> None:
    """P6: a delivery may be held for half an hour, while others come and go."""
    acks = Acks()
    last = 100_000
    for tag in range(2, last + 1):
        if tag != missing:
            acks.add(tag, multiple=False)
            assert acks.take() == [(tag, False)]
    assert sum(sys.getsizeof(getattr(acks, name)) for name in Acks.__slots__) < 2_000
    acks.add(1, multiple=False)
    assert acks.take() == [(1, False)]
    if missing is not None:
        acks.add(missing, multiple=False)
        assert acks.take() == [(missing, True)]
    acks.add(last + 1, multiple=False)
    assert acks.take() == [(last + 1, True)]

"""A coordinator hears itself: what comes back was put behind all that others had said before (P5)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fuseline.amqp import codec
from fuseline.clock import ManualClock
from fuseline.coordinator.hearing import MAX_AWAITED, Hearing


class Ear:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.sent: list[tuple[str, str, codec.Properties]] = []
        self.heard: list[float] = []
        link: Any = SimpleNamespace(publish=self._publish)
        self.hearing = Hearing(link, self.clock, self.heard.append)

    def _publish(
        self, exchange: str, key: str, _body: bytes, properties: codec.Properties, **_how: Any
    ) -> None:
        self.sent.append((exchange, key, properties))

    def comes_back(self, number: int) -> bool:
        delivery: Any = SimpleNamespace(properties=self.sent[number][2])
        return self.hearing.is_echo(delivery)


def test_what_comes_back_tells_when_it_was_sent() -> None:
    ear = Ear()
    queue: Any = SimpleNamespace(queue="beats.1")
    ear.hearing.queue = queue
    sent_at = ear.clock.monotonic()
    ear.hearing.ask()
    ear.clock.advance(3.0)
    assert ear.comes_back(0)
    assert ear.heard == [sent_at]
    assert [(exchange, key) for exchange, key, _ in ear.sent] == [("", "beats.1")]
    assert ear.sent[0][2].delivery_mode == 1  # it is worth nothing after a restart


def test_the_queue_is_the_one_that_there_is_now() -> None:
    """A consumer that is renewed has a queue of another name."""
    ear = Ear()
    ear.hearing.ask()
    assert ear.sent == []  # none yet
    queue: Any = SimpleNamespace(queue="beats.1")
    ear.hearing.queue = queue
    ear.hearing.ask()
    queue.queue = "beats.2"
    ear.hearing.ask()
    assert [key for _, key, _ in ear.sent] == ["beats.1", "beats.2"]


def test_one_that_another_was_sent_after_tells_of_its_own_time() -> None:
    """P1: where RabbitMQ is slow there is always another one."""
    ear = Ear()
    queue: Any = SimpleNamespace(queue="beats.1")
    ear.hearing.queue = queue
    began = ear.clock.monotonic()
    for _ in range(3):
        ear.hearing.ask()
        ear.clock.advance(1.0)
    for number in (0, 2, 1, 0):
        assert ear.comes_back(number)  # an echo, and no heartbeat
    assert ear.heard == [began, began + 2.0]


def test_of_those_that_never_come_back_the_last_are_known() -> None:
    """P6."""
    ear = Ear()
    queue: Any = SimpleNamespace(queue="beats.1")
    ear.hearing.queue = queue
    for _ in range(MAX_AWAITED + 1):
        ear.hearing.ask()
        ear.clock.advance(1.0)
    ear.comes_back(0)
    assert ear.heard == []
    ear.comes_back(1)
    assert len(ear.heard) == 1


def test_a_heartbeat_is_none() -> None:
    delivery: Any = SimpleNamespace(
        properties=codec.properties(codec.HEARTBEAT, message_id="1", timestamp=0.0)
    )
    assert not Ear().hearing.is_echo(delivery)

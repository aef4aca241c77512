"""A publisher has one channel at a time, whatever asks for it: each message gets its own answer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pika.exceptions import ChannelClosedByBroker, StreamLostError
from pika.spec import Basic

from fuseline.amqp.codec import Properties
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.publishing import Publisher
from fuseline.amqp.traffic import Traffic
from fuseline.amqp.turn import Turn
from fuseline.clock import ManualClock
from fuseline.errors import FuselineError


class Loop:
    """Timers that fire when they are told to."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> Any:
        self.timers.append(callback)
        return SimpleNamespace(cancel=lambda: None)

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()


class Channel:
    """One that opens, answers and closes when it is told to."""

    is_open = False

    def __init__(self, on_open: Callable[[Any], None]) -> None:
        self._on_open = on_open
        self.published: list[bytes] = []

    def add_on_close_callback(self, callback: Callable[[Any, Exception], None]) -> None:
        self._on_close = callback

    def add_on_return_callback(self, _callback: Any) -> None:
        """None is returned here."""

    def confirm_delivery(self, on_confirm: Callable[[Any], None], callback: Callable[[Any], None]) -> None:
        self._on_confirm, self._on_selected = on_confirm, callback

    def basic_publish(self, _exchange: str, _key: str, body: bytes, *_more: Any) -> None:
        self.published.append(body)

    def opens(self) -> None:
        self.is_open = True
        self._on_open(self)
        self._on_selected(None)

    def confirms(self, tag: int) -> None:
        self._on_confirm(SimpleNamespace(method=Basic.Ack(tag)))

    def closes(self, reason: Exception) -> None:
        self.is_open = False
        self._on_close(self, reason)


class Pika:
    """A connection."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self.channels.append(Channel(on_open_callback))
        return self.channels[-1]


def publishing(connection: Any, loop: Any) -> Publisher:
    return Publisher(
        connection,
        loop,
        Turn(loop),
        ManualClock(),
        LinkLimits(),
        on_ready=lambda: None,
        on_channel_lost=lambda: None,
        on_reply=None,
    )


def connected() -> Any:
    return SimpleNamespace(pika=Pika(), is_blocked=False, traffic=Traffic(), where="here")


def test_a_channel_that_opens_is_not_opened_beside_itself() -> None:
    """P1, P7: the pause after a refusal ends while the channel of a new connection opens.

    Each counts its messages from 1: with two of them what was sent through the one would get no answer.
    """
    loop, connection = Loop(), connected()
    publisher = publishing(connection, loop)
    answers: dict[bytes, FuselineError | None] = {}

    def publish(body: bytes) -> None:
        def done(error: FuselineError | None) -> None:
            answers[body] = error

        publisher.publish("e", "k", body, Properties(), mandatory=True, deadline=60.0, on_done=done)

    first = connection.pika
    publisher.open(first)
    first.channels[0].opens()
    first.channels[0].closes(ChannelClosedByBroker(541, "INTERNAL_ERROR"))
    loop.timers.pop()()
    first.channels[1].opens()
    first.channels[1].closes(ChannelClosedByBroker(541, "INTERNAL_ERROR"))
    (pause_ends,) = loop.timers  # in a while: it was the second time
    connection.pika = again = Pika()
    publisher.open(connection.pika)
    pause_ends()
    again.channels[0].opens()
    publish(b"one")
    for late in again.channels[1:]:
        late.opens()
    publish(b"two")
    for channel in again.channels:
        for tag, _ in enumerate(channel.published, 1):
            channel.confirms(tag)
    assert answers == {b"one": None, b"two": None}
    assert publisher.pending == 0


def test_a_channel_that_was_lost_as_it_opened_is_opened_on_the_next_connection() -> None:
    loop, connection = Loop(), connected()
    publisher = publishing(connection, loop)
    publisher.open(connection.pika)
    connection.pika = again = Pika()
    publisher.open(connection.pika)
    again.channels[0].opens()
    assert publisher.is_ready
    again.channels[0].closes(StreamLostError("lost"))
    assert not publisher.is_ready

"""Requests that wait for their answer (direct reply-to)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.loops import LoopAdapter, Timer
from fuseline.amqp.publishing import Publisher
from fuseline.amqp.topology import REPLY_TO
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import DeadlineExceededError, FuselineError

OnReply: TypeAlias = Callable[[Delivery | FuselineError], None]


@dataclass(slots=True)
class _Call:
    exchange: str
    key: str
    body: bytes
    properties: Properties
    on_reply: OnReply
    deadline: float
    timer: Timer | None = None
    is_sent: bool = False  # RabbitMQ confirmed it, so that the publisher does not send it again by itself


class Calls:
    """The requests of a link that have no answer yet, by correlation id."""

    def __init__(self, publisher: Publisher, loop: LoopAdapter, turn: Turn, clock: Clock) -> None:
        self._publisher = publisher
        self._loop = loop
        self._turn = turn
        self._clock = clock
        self._calls: dict[str, _Call] = {}
        self.on_notice: Callable[[Delivery], None] | None = None

    def call(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        on_reply: OnReply,
        deadline_seconds: float,
    ) -> None:
        """Send a request; `on_reply` gets the answer or the error, once."""
        if properties.correlation_id is None:
            properties.correlation_id = properties.message_id or self._clock.new_id()
        properties.reply_to = REPLY_TO
        deadline = self._clock.monotonic() + deadline_seconds
        call = _Call(exchange, key, body, properties, on_reply, deadline)
        name = properties.correlation_id
        if name in self._calls:
            raise ValueError(f"a request with correlation_id {name!r} waits for its answer already")
        self._calls[name] = call
        call.timer = self._loop.call_later(deadline_seconds, partial(self._late, name))
        self._send(name, call)

    def _send(self, name: str, call: _Call) -> None:
        call.is_sent = False
        self._publisher.publish(
            call.exchange,
            call.key,
            call.body,
            call.properties,
            mandatory=True,
            deadline=call.deadline,
            on_done=partial(self._sent, name, call),
            internal=True,
        )

    def _sent(self, name: str, call: _Call, error: FuselineError | None) -> None:
        if error is None:
            call.is_sent = True
            if call.timer is None and self._calls.get(name) is call:
                self._finish(name, _unanswered())
        elif self._calls.get(name) is call:
            self._finish(name, error)

    def reply(self, method: Any, properties: Properties, body: bytes) -> None:
        """A message came to the reply address."""
        delivery = Delivery(
            0, 0, body, properties, method.exchange, method.routing_key, method.redelivered, REPLY_TO, None
        )
        if properties.correlation_id in self._calls:
            self._finish(properties.correlation_id, delivery)
        elif self.on_notice is not None:
            self._turn.add(partial(self.on_notice, delivery))
        # Else it answers a request whose deadline has passed.

    def channel_lost(self) -> None:
        """The reply address is gone, and with it the answers to what was sent: ask again."""
        for name, call in list(self._calls.items()):
            if call.is_sent:
                self._send(name, call)

    def fail_all(self, error: FuselineError) -> None:
        """Give up every request."""
        for name in list(self._calls):
            self._finish(name, error)

    def _late(self, name: str) -> None:
        call = self._calls[name]
        call.timer = None
        if call.is_sent:
            self._finish(name, _unanswered())
        # Else the publisher ends it now too, and knows why it could not be sent.

    def _finish(self, name: str, outcome: Delivery | FuselineError) -> None:
        call = self._calls.pop(name)
        if call.timer is not None:
            call.timer.cancel()
        self._turn.add(partial(call.on_reply, outcome))


def _unanswered() -> DeadlineExceededError:
    return DeadlineExceededError("nobody answered in time; the request may take effect yet")

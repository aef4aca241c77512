"""Taking single messages (basic.get), for clients that pull."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from pika.channel import Channel
from pika.spec import Basic

from fuseline.amqp.codec import Properties
from fuseline.amqp.connection import Connection
from fuseline.amqp.consuming import Delivery, Line
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.loops import LoopAdapter, Timer
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, FuselineError

OnGot: TypeAlias = Callable[[Delivery | FuselineError | None], None]


@dataclass(slots=True, eq=False)
class _Request:
    on_done: OnGot
    timer: Timer | None = None
    is_over: bool = False


class Getter(Line):
    """The gets from one queue, one after the other: AMQP has no way to tell two answers apart.

    Each queue has a channel of its own, so that a missing queue does not cost what is held of another.
    """

    def __init__(
        self,
        queue: str,
        connection: Connection,
        loop: LoopAdapter,
        turn: Turn,
        clock: Clock,
        limits: LinkLimits,
    ) -> None:
        super().__init__(queue, connection, loop, turn, clock, limits)
        self._requests: deque[_Request] = deque()
        self._asked: _Request | None = None

    def get(self, on_done: OnGot, deadline_seconds: float) -> None:
        """Ask for one message."""
        request = _Request(on_done)
        request.timer = self._loop.call_later(deadline_seconds, partial(self._late, request))
        self._requests.append(request)
        self._ask()
        self.open()

    def fail_all(self, error: FuselineError) -> None:
        """Give up every request."""
        requests = [self._asked, *self._requests] if self._asked else list(self._requests)
        self._requests.clear()
        for request in requests:
            self._finish(request, error)

    def _set_up(self, channel: Channel) -> None:
        channel.add_callback(self._empty, [Basic.GetEmpty], one_shot=False)
        self._ask()

    def _ask(self) -> None:
        if self._channel is not None and self._channel.is_open and self._asked is None and self._requests:
            self._asked = self._requests.popleft()
            self._channel.basic_get(self.queue, self._got)

    def _got(self, channel: Channel, method: Basic.GetOk, properties: Properties, body: bytes) -> None:
        if channel is not self._channel:
            return
        delivery = self._delivery(method, properties, body)
        if self._asked is None or self._asked.is_over:
            self.nack(delivery, requeue=True)
        self._answer(delivery)

    def _empty(self, _frame: Any) -> None:
        self._answer(None)

    def _answer(self, outcome: Delivery | None) -> None:
        request, self._asked = self._asked, None
        self._failures = 0
        if request is not None:
            self._finish(request, outcome)
        self._ask()

    def _late(self, request: _Request) -> None:
        request.timer = None
        if request is self._asked:
            error: FuselineError = DeadlineExceededError(f"queue {self.queue!r}: no answer in time")
        else:
            self._requests.remove(request)
            error = self._connection.last_error or BrokerUnavailableError(
                f"queue {self.queue!r}: RabbitMQ at {self._connection.where} could not be asked in time"
            )
        self._finish(request, error)

    def _finish(self, request: _Request, outcome: Delivery | FuselineError | None) -> None:
        if request.is_over:
            return
        request.is_over = True
        if request.timer is not None:
            request.timer.cancel()
        self._turn.add(partial(request.on_done, outcome))

    def _on_lost(self, error: FuselineError) -> None:
        request, self._asked = self._asked, None
        if request is None or request.is_over:
            return
        if isinstance(error, BrokerUnavailableError):
            # The connection, not the request: a message that was on its way is back in the queue.
            self._requests.appendleft(request)
        else:
            self._finish(request, error)

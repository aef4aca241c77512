"""One connection to RabbitMQ that consumes queues and publishes to others, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import pika

from fuseline.bench.failing import BenchFailedError

_PERSISTENT = pika.BasicProperties(delivery_mode=2, content_type="application/json")

Letter: TypeAlias = tuple[str, bytes]
"""(queue, body)."""


class Post:
    """What has arrived in one moment is one batch for `handle`, which returns what is to be published for it.

    The batch is acknowledged when RabbitMQ has confirmed all of that. `run` lives until `stop`.
    """

    def __init__(
        self,
        url: str,
        sources: Sequence[str],
        prefetch: int,
        handle: Callable[[list[bytes]], Iterable[Letter]],
        on_ready: Callable[[], None],
    ) -> None:
        self._sources, self._prefetch = sources, prefetch
        self._handle, self._on_ready = handle, on_ready
        self._bodies: list[bytes] = []
        self._last_delivery = 0
        self._published = 0
        self._open: dict[int, None] = {}  # publishes that are not confirmed, in order
        self._batches: deque[tuple[int, int]] = deque()  # (last publish, last delivery) of each
        self._channel: Any = None
        self._failure: BaseException | None = None
        self.published = self.confirms = self.delivered = self.acks = 0
        self._connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._refused,
            on_close_callback=lambda connection, _reason: connection.ioloop.stop(),
        )

    @property
    def frames(self) -> int:
        """AMQP frames so far, as `Traffic` counts them."""
        return 3 * (self.published + self.delivered) + self.confirms + self.acks

    def publish(self, queue: str, body: bytes) -> None:
        """Send one message."""
        self._channel.basic_publish("", queue, body, _PERSISTENT)
        self._published += 1
        self._open[self._published] = None
        self.published += 1

    def run(self) -> None:
        """Work until `stop`. Raises what made that impossible."""
        self._connection.ioloop.start()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Disconnect, and make `run` return; from any thread."""
        self.call(self._connection.close)

    def call(self, what: Callable[[], None]) -> None:
        """Call it on the loop; from any thread."""
        self._connection.ioloop.add_callback_threadsafe(what)

    def call_later(self, seconds: float, what: Callable[[], None]) -> None:
        """Call it on the loop, later."""
        self._connection.ioloop.call_later(seconds, what)

    # ---- setting up

    def _refused(self, connection: pika.SelectConnection, reason: BaseException | str) -> None:
        self._failure = BenchFailedError(f"RabbitMQ cannot be reached: {reason!r}")
        connection.ioloop.stop()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._confirmed, callback=self._confirming)

    def _confirming(self, _frame: object) -> None:
        self._channel.basic_qos(prefetch_count=self._prefetch, callback=self._consume)

    def _consume(self, _frame: object) -> None:
        left = len(self._sources)

        def consuming(_frame: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._on_ready()

        for source in self._sources:
            self._channel.basic_consume(source, self._arrived, callback=consuming)

    # ---- messages

    def _arrived(self, _channel: object, method: Any, _properties: object, body: bytes) -> None:
        if not self._bodies:
            self.call(self._take_batch)
        self._bodies.append(body)
        self._last_delivery = method.delivery_tag
        self.delivered += 1

    def _take_batch(self) -> None:
        bodies, self._bodies = self._bodies, []
        for queue, body in self._handle(bodies):
            self.publish(queue, body)
        self._batches.append((self._published, self._last_delivery))
        self._settle()

    def _confirmed(self, frame: Any) -> None:
        self.confirms += 1
        method = frame.method
        if isinstance(method, pika.spec.Basic.Nack):
            self._failure = BenchFailedError("RabbitMQ refused a message")
            self.stop()
        elif method.multiple:
            for number in [number for number in self._open if number <= method.delivery_tag]:
                del self._open[number]
        else:
            self._open.pop(method.delivery_tag, None)
        self._settle()

    def _settle(self) -> None:
        oldest = next(iter(self._open), self._published + 1)
        delivery = 0
        while self._batches and self._batches[0][0] < oldest:
            delivery = self._batches.popleft()[1]
        if delivery:
            self._channel.basic_ack(delivery, multiple=True)
            self.acks += 1

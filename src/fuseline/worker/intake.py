"""Consumers of the workflows' queues, whose prefetch follows the free places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuseline.amqp.consuming import Consumer, Delivery, Line
from fuseline.amqp.link import Link
from fuseline.errors import FuselineError


class Intake:
    """One consumer a queue. A lease's delivery is acknowledged, so RabbitMQ would send another step in its place, to wait
    behind a long one while other workers are idle. `resize` keeps it from that.

    RabbitMQ applies a new prefetch to new consumers only: the old one is cancelled, and its channel is closed when all
    that came through it is settled.
    """

    def __init__(
        self,
        link: Link,
        queues: Sequence[str],
        on_message: Callable[[Delivery], None],
        on_batch_end: Callable[[], None],
        on_lost: Callable[[FuselineError], None],
    ) -> None:
        self._link = link
        self._queues = queues
        self._on_message = on_message
        self._on_batch_end = on_batch_end
        self._on_lost = on_lost
        self._prefetch = 0
        self._consumers: list[Consumer] = []
        self._unsettled: dict[Line, tuple[int, int]] = {}  # (the channel's generation, how many)
        self._retired: set[Line] = set()

    @property
    def prefetch(self) -> int:
        """Deliveries of each queue that may be unacknowledged; 0: nothing is consumed."""
        return self._prefetch

    @property
    def is_consuming(self) -> bool:
        """Whether RabbitMQ delivers from every queue."""
        return bool(self._consumers) and all(consumer.is_consuming for consumer in self._consumers)

    def resize(self, prefetch: int) -> None:
        """Consume with this prefetch from now on. What was handed over stays held."""
        if prefetch == self._prefetch:
            return
        self._prefetch = prefetch
        for consumer in self._consumers:
            consumer.cancel()
            self._retired.add(consumer)
        for line in list(self._retired):
            self._end_if_settled(line)
        self._consumers = []
        if prefetch:
            self._consumers = [
                self._link.consume(queue, prefetch, self._received, self._on_batch_end, self._on_lost)
                for queue in self._queues
            ]

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge; nothing happens to a stale delivery."""
        if not delivery.is_stale:
            self._link.ack(delivery)
            self._settled(delivery)

    def nack(self, delivery: Delivery, *, requeue: bool) -> None:
        """Hand back, or dead-letter; nothing happens to a stale delivery."""
        if not delivery.is_stale:
            self._link.nack(delivery, requeue=requeue)
            self._settled(delivery)

    def _received(self, delivery: Delivery) -> None:
        assert delivery.line is not None
        generation, count = self._unsettled.get(delivery.line, (delivery.generation, 0))
        if generation != delivery.generation:  # the channel's earlier life, whose deliveries went back
            count = 0
        self._unsettled[delivery.line] = (delivery.generation, count + 1)
        self._on_message(delivery)

    def _settled(self, delivery: Delivery) -> None:
        assert delivery.line is not None
        generation, count = self._unsettled[delivery.line]
        self._unsettled[delivery.line] = (generation, count - 1)
        if delivery.line in self._retired:
            self._end_if_settled(delivery.line)

    def _end_if_settled(self, line: Line) -> None:
        generation, count = self._unsettled.get(line, (line.generation, 0))
        if line.is_ended or not count or generation != line.generation:
            self._unsettled.pop(line, None)
            self._retired.discard(line)
            line.end()

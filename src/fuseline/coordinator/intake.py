"""Messages of one queue that wait for the next transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.link import Link
from fuseline.coordinator.bundles import messages_in
from fuseline.coordinator.settle import Settler
from fuseline.errors import FuselineError

BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bodies of one batch, roughly: a transaction that takes longer than a statement may would begin again for ever (P1)."""


class Intake:
    """Consumes a queue into a bounded inbox: prefetch is the bound (P6), so a coordinator that waits takes no more."""

    def __init__(
        self,
        link: Link,
        queue: str,
        prefetch: int,
        on_batch_end: Callable[[], None],
        on_lost: Callable[[FuselineError], None] | None = None,
        split: Callable[[Delivery, int], Sequence[Delivery]] | None = None,
    ) -> None:
        """`split`: a message in parts of up to so many, where many are in one."""
        self.settler = Settler(link)
        self._inbox: deque[Delivery] = deque()
        receive = (
            self._inbox.append
            if split is None
            else lambda delivery: self._inbox.extend(split(delivery, prefetch))
        )

        def lost(error: FuselineError) -> None:
            self._drop_stale()
            if on_lost is not None:
                on_lost(error)

        self._consumer: Consumer = link.consume(queue, prefetch, receive, on_batch_end, lost)

    def __len__(self) -> int:
        return len(self._inbox)

    def peek(self, limit: int) -> list[Delivery]:
        """The next deliveries, in order, still in the inbox; those of a lost channel are dropped, for they come again.

        With all that is in them `limit` messages, fewer when their bodies are large; at least one delivery.
        """
        self._drop_stale()
        return _up_to(self._inbox, limit)

    def _drop_stale(self) -> None:
        # Not only when something is taken: while storage is away nothing is, and each lost channel leaves as many (P6).
        while self._inbox and self._inbox[0].is_stale:
            self._inbox.popleft()

    def peek_behind(self, deliveries: Sequence[Delivery], limit: int) -> list[Delivery]:
        """The same of those that come after what `peek` gave."""
        behind = iter(self._inbox)
        for last in deliveries[-1:]:
            while next(behind) is not last:
                pass
        return _up_to(behind, limit)

    def take(self, deliveries: list[Delivery]) -> None:
        """Remove what `peek` gave and what was passed over before it."""
        last = deliveries[-1]
        while self._inbox.popleft() is not last:
            pass

    def cancel(self) -> None:
        """Take no more messages."""
        self._consumer.cancel()
        self._inbox.clear()

    @property
    def is_consuming(self) -> bool:
        """Whether RabbitMQ delivers to it right now."""
        return self._consumer.is_consuming


def _up_to(inbox: Iterable[Delivery], limit: int) -> list[Delivery]:
    found: list[Delivery] = []
    count = size = 0
    for delivery in inbox:
        if delivery.is_stale:
            continue
        count += messages_in(delivery)
        size += len(delivery.body)
        if found and (count > limit or size > BATCH_BYTES):
            break
        found.append(delivery)
    return found

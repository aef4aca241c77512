"""Which deliveries may be acknowledged: a batch when all that came of it is safe, and never before an earlier one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.coordinator.bundles import Slice


class Ticket:
    """Deliveries of one consumer that are settled together, when `expect`ed things have all been `done`."""

    __slots__ = ("_pending", "_settler", "last")

    def __init__(self, settler: Settler, last: Delivery | None) -> None:
        """`last`: the last message that ends here; None while all that there is of one is a part of it."""
        self._settler = settler
        self._pending = 1  # held by whoever opened it, until `done` is called once more than `expect`
        self.last = last

    @property
    def is_settled(self) -> bool:
        """True when nothing is awaited any more."""
        return not self._pending

    def expect(self) -> None:
        """One thing more must be done before the deliveries may go."""
        self._pending += 1

    def done(self) -> None:
        """One of the expected things is done."""
        self._pending -= 1
        if not self._pending:
            self._settler.settle()


class Settler:
    """The tickets of one consumer, in the order of their deliveries; acks with `multiple`, one ack for many."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: deque[Ticket] = deque()

    def open(self, deliveries: Sequence[Delivery]) -> Ticket:
        """A ticket for the next deliveries (at least one), in their order."""
        ends = (delivery for delivery in reversed(deliveries) if not isinstance(delivery, Slice))
        ticket = Ticket(self, next(ends, None))
        self._open.append(ticket)
        return ticket

    @property
    def unsettled(self) -> int:
        """Tickets that wait for something."""
        return len(self._open)

    def settle(self) -> None:
        """Acknowledge all up to the first ticket that still waits."""
        last: Delivery | None = None
        while self._open and self._open[0].is_settled:
            last = self._open.popleft().last or last
        if last is not None:
            self._link.ack(last, multiple=True)

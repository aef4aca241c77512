"""Records what arrives: reports, claims and dead letters of one moment in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fuseline.amqp.consuming import Delivery
from fuseline.coordinator.decoding import by_itself
from fuseline.coordinator.early import EarlyReports
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.reading import Reading, Source, Taken
from fuseline.coordinator.settle import Ticket
from fuseline.engine.effects import Verdict
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Occurrence, Outcome

_Parked = tuple[int, Delivery, str]
"""(index of the source, the message, why)."""


class Recording:
    """Decodes, applies, publishes, and lets the deliveries go when all of it is safe."""

    def __init__(self, pipeline: Pipeline, outbox: Outbox, early: EarlyReports) -> None:
        self._pipeline = pipeline
        self._outbox = outbox
        self._early = early
        self._reading = Reading()

    def record(self, sources: Sequence[Source], limit: int) -> bool:
        """Up to `limit` messages of each source (reports that came in one count each); False when there are none.

        Raises `StorageUnavailableError` with the messages still in their inboxes.
        """
        taken = [(source, source.intake.peek(limit)) for source in sources]
        items, owners, parked = self._decoded(taken)
        if not items and not parked:
            return False
        try:
            ahead = self._reading.ahead_of(taken, limit)
            outcomes = self._pipeline.apply(items, ahead) if items else []
        except StorageUnavailableError:
            # The answer to the commit may be all that was lost. Then these are recorded already when they are taken up
            # again, and what they had queued is still to be sent out.
            for _, deliveries in taken:
                for delivery in deliveries:
                    delivery.redelivered = True
            raise
        tickets: list[Ticket | None] = [None] * len(taken)
        for index, (source, deliveries) in enumerate(taken):
            if deliveries:
                source.intake.take(deliveries)
                tickets[index] = source.intake.settler.open(deliveries)
        for index, delivery, reason in parked:
            if (ticket := tickets[index]) is not None:
                ticket.expect()
                self._outbox.park(delivery, reason, ticket.done)
        for item, outcome, owner in zip(items, outcomes, owners, strict=True):
            index, delivery = owner
            ticket = tickets[index]
            what = item.what
            # What is left of one that is parked does not go to the end of the queue: it would be parked again and again.
            may_wait = outcome.verdict is Verdict.EARLY and item.on_refused is not None
            if may_wait and ticket is not None and isinstance(what, Occurrence):
                self._early.hold(by_itself(delivery, what), item, ticket)
            else:
                self._pipeline.carry_out(item, outcome, ticket)
        for ticket in tickets:
            if ticket is not None:
                ticket.done()
        return True

    def _decoded(
        self, taken: Sequence[Taken]
    ) -> tuple[list[Item], list[tuple[int, Delivery]], list[_Parked]]:
        """What to apply, from which source each comes, and what to park."""
        items: list[Item] = []
        owners: list[tuple[int, Delivery]] = []
        parked: list[_Parked] = []
        for index, (delivery, what, reason) in self._reading.read(taken):
            if reason is not None:
                parked.append((index, delivery, reason))
            if what is not None:
                items.append(Item(what, on_refused=None if reason else partial(self._refused, delivery)))
                owners.append((index, delivery))
        return items, owners, parked

    def _refused(self, delivery: Delivery, outcome: Outcome, done: Callable[[], None]) -> None:
        self._outbox.park(delivery, outcome.reason, done)

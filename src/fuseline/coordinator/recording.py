"""Records what arrives: reports, claims and dead letters of one moment in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from fuseline.amqp.consuming import Delivery, Line
from fuseline.coordinator.bundles import together
from fuseline.coordinator.decoding import by_itself
from fuseline.coordinator.early import EarlyReports
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline, expecting
from fuseline.coordinator.reading import Reading, Source, Taken
from fuseline.coordinator.settle import Ticket
from fuseline.engine.effects import Verdict
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Occurrence, Outcome

_Parked: TypeAlias = tuple[int, Delivery, str]
"""(index of the source, the message, why)."""
_Refusal: TypeAlias = "tuple[Delivery, str, Callable[[], None]]"
"""(the message, why, what to call when it is safe)."""


class Recording:
    """Decodes, applies, publishes, and lets the deliveries go when all of it is safe."""

    def __init__(self, pipeline: Pipeline, outbox: Outbox, early: EarlyReports) -> None:
        self._pipeline = pipeline
        self._outbox = outbox
        self._early = early
        self._reading = Reading()
        self._refusals: list[_Refusal] | None = None
        """What is refused while a batch is carried out, which is parked at its end."""

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
        refusals = self._refusals = [
            (delivery, reason, expecting(tickets[index])) for index, delivery, reason in parked
        ]
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
        self._refusals = None
        self._park(refusals)
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
        if self._refusals is None:  # it had to wait before it was decided on
            self._outbox.parking.park(delivery, outcome.reason, done)
        else:
            self._refusals.append((delivery, outcome.reason, done))

    def _park(self, refusals: Sequence[_Refusal]) -> None:
        """What came in one message is parked as one (P6): there may be a hundred thousand lines of nothing in it."""
        by_message: dict[tuple[Line | None, int, int], list[_Refusal]] = {}
        for one in refusals:
            delivery = one[0]
            by_message.setdefault((delivery.line, delivery.generation, delivery.tag), []).append(one)
        for found in by_message.values():
            more = f" (and {len(found) - 1} more of what came with it)" if len(found) > 1 else ""
            whole = together([delivery for delivery, _, _ in found])
            self._outbox.parking.park(whole, found[0][1] + more, partial(_all, [done for *_, done in found]))


def _all(callbacks: Sequence[Callable[[], None]]) -> None:
    for one in callbacks:
        one()

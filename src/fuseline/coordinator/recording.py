"""Records what arrives: reports, claims and dead letters of one moment in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TypeAlias

from fuseline.amqp.consuming import Delivery, Line
from fuseline.coordinator.bundles import together
from fuseline.coordinator.decoding import by_itself
from fuseline.coordinator.early import EarlyReports
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline, as_redelivered, expecting
from fuseline.coordinator.reading import Reading, Source, Taken
from fuseline.coordinator.settle import Ticket
from fuseline.engine.effects import Verdict
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Occurrence, Outcome

_Parked: TypeAlias = tuple[int, Delivery, str]
"""(index of the source, the message, why)."""
_Refusal: TypeAlias = "tuple[Delivery, str, Callable[[], None]]"
"""(the message, why, what to call when it is safe)."""


@dataclass(slots=True)
class _Batch:
    """Deliveries that were taken up together. `tickets`: of each source one, or None; `owners`: whose each item is."""

    items: list[Item]
    owners: list[tuple[int, Delivery]]
    parked: list[_Parked]
    tickets: list[Ticket | None]


class Recording:
    """Decodes, applies, publishes, and lets the deliveries go when all of it is safe."""

    def __init__(
        self,
        pipeline: Pipeline,
        outbox: Outbox,
        early: EarlyReports,
        on_storage_lost: Callable[[StorageUnavailableError], None],
    ) -> None:
        """`on_storage_lost`: what was taken up is kept, and recorded once more when storage is back."""
        self._pipeline = pipeline
        self._outbox = outbox
        self._early = early
        self._on_storage_lost = on_storage_lost
        self._reading = Reading()
        self._kept: list[_Batch] = []
        self._refusals: list[_Refusal] | None = None
        """What is refused while a batch is carried out, which is parked at its end."""

    @property
    def is_behind(self) -> bool:
        """Whether something that was taken up waits for storage to come back."""
        return bool(self._kept)

    def record(self, sources: Sequence[Source], limit: int) -> bool:
        """Up to `limit` messages of each source (reports that came in one count each); False when there are none.

        Where there are many, the commit is not waited for: `Pipeline.finish` does that.
        """
        if self._kept:
            return self._record_kept()
        taken = [(source, source.intake.peek(limit)) for source in sources]
        items, owners, parked = self._decoded(taken)
        if not items and not parked:
            return False
        tickets: list[Ticket | None] = [None] * len(taken)
        for index, (source, deliveries) in enumerate(taken):
            if deliveries:
                source.intake.take(deliveries)
                tickets[index] = source.intake.settler.open(deliveries)
        batch = _Batch(items, owners, parked, tickets)
        ahead = self._reading.ahead_of([(source, []) for source in sources], limit)
        if not items:
            self._carry_out(batch, [])
            return True
        try:
            self._pipeline.begin(items, partial(self._carry_out, batch), partial(self._keep, batch), ahead)
        except StorageUnavailableError as error:
            self._keep(batch, error)
        return True

    def _keep(self, batch: _Batch, error: StorageUnavailableError) -> None:
        """The answer to the commit may be all that was lost. Then these are recorded already when they are applied again,
        and what they had queued is still to be sent out. Their tickets stay open: nothing behind them is let go before.
        """
        for item in batch.items:
            item.what = as_redelivered(item.what)
        self._kept.append(batch)
        self._on_storage_lost(error)

    def _record_kept(self) -> bool:
        batch = self._kept.pop(0)
        # What is stale comes again, here or elsewhere.
        fresh = [not delivery.is_stale for _, delivery in batch.owners]
        batch.items = list(compress(batch.items, fresh))
        batch.owners = list(compress(batch.owners, fresh))
        batch.parked = [one for one in batch.parked if not one[1].is_stale]
        try:
            outcomes = self._pipeline.apply(batch.items) if batch.items else []
        except StorageUnavailableError as error:
            self._kept.insert(0, batch)
            self._on_storage_lost(error)
        else:
            self._carry_out(batch, outcomes)
        return True

    def _carry_out(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        outer = self._refusals  # of one whose carrying out has brought this one to its end
        refusals = self._refusals = [
            (delivery, reason, expecting(batch.tickets[index])) for index, delivery, reason in batch.parked
        ]
        tickets = [batch.tickets[index] for index, _ in batch.owners]
        carry_out = self._pipeline.carrying_out(outcomes, tickets)
        for item, outcome, (_, delivery), ticket in zip(
            batch.items, outcomes, batch.owners, tickets, strict=True
        ):
            what = item.what
            # What is left of one that is parked does not go to the end of the queue: it would be parked again and again.
            may_wait = outcome.verdict is Verdict.EARLY and item.on_refused is not None
            if may_wait and ticket is not None and isinstance(what, Occurrence):
                self._early.hold(by_itself(delivery, what), item, ticket)
            else:
                carry_out(item, outcome, ticket)
        self._refusals = outer
        self._park(refusals)
        for ticket in batch.tickets:
            if ticket is not None:
                ticket.done()

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

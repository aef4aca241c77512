"""Batches in, one transaction, one burst of publishes, one ack. The unacknowledged message is the outbox (DESIGN 5).

A crash anywhere between the commit and the ack means redelivery; the ledger then finds the report recorded and offers
again what it had queued.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fuseline.amqp.wire import ControlKind, ControlNotice
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.overtaking import Overtaking
from fuseline.coordinator.settle import Ticket
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepClaimed, StepReported
from fuseline.errors import (
    CallerError,
    FatalError,
    FuselineError,
    RetryableError,
    StorageUnavailableError,
)
from fuseline.ledger import Begun, Dispatch, Ledger, Occurrence, Outcome
from fuseline.model.messages import Cause, StepAssignment, StepError
from fuseline.model.status import Status

log = logging.getLogger(__name__)

FEW: Final = 20
"""The commit of so many items is best waited for at once: most come alone, and somebody waits for what they make ready."""


@dataclass(slots=True)
class Item:
    """One thing to apply, and whom to tell. `on_refused`: it could not be applied at all (unknown run, a defect)."""

    what: Dispatch | Occurrence
    on_outcome: Callable[[Outcome], None] | None = None
    on_refused: Callable[[Outcome, Callable[[], None]], None] | None = None


def as_redelivered(what: Dispatch | Occurrence) -> Dispatch | Occurrence:
    """The same as it is when it may have been recorded: the answer to the commit may be all that was lost."""
    if isinstance(what, Occurrence) and hasattr(what.event, "redelivered"):
        event: Any = what.event
        return replace(what, event=replace(event, redelivered=True))
    return what


@dataclass(slots=True)
class _UnderWay:
    """A batch that is decided on, and whose commit is awaited. `runs`: those that it is about."""

    items: Sequence[Item]
    runs: frozenset[str]
    begun: Begun
    on_done: Callable[[Sequence[Outcome]], None]
    on_lost: Callable[[StorageUnavailableError], None]
    meanwhile: Callable[[], bool] | None


class Pipeline:
    """Applies items and carries out what follows from them.

    One batch may be under way: storage commits it while the next one is read and decided on, about other runs (ADR 0016).
    """

    def __init__(self, ledger: Ledger, outbox: Outbox, book: WorkerBook, few: int = FEW) -> None:
        """`few`: the commit of so many items is waited for at once."""
        self._ledger = ledger
        self._outbox = outbox
        outbox.refusals.on_refused = self._cannot_be_sent
        self._book = book
        self.on_failed: Callable[[], None] = _nothing
        """Called when steps have failed whose assignment cannot be sent: rows were saved, and some may be due soon."""
        self.overtaking = Overtaking()
        self.on_under_way: Callable[[], None] = _nothing
        """Called when a batch is under way: it has to be finished soon, whoever has begun it."""
        self._few = few
        self._under_way: _UnderWay | None = None

    @property
    def is_behind(self) -> bool:
        """Whether more assignments wait to be published than may be under way."""
        return self._outbox.is_behind

    @property
    def is_under_way(self) -> bool:
        """Whether a batch waits for its commit."""
        return self._under_way is not None

    def run(self, items: Sequence[Item], tickets: Sequence[Ticket | None]) -> None:
        """Apply all, then publish; each item's ticket waits for what the item brought about.

        Raises `StorageUnavailableError` with nothing done: call again later.
        """
        self.carry_out_all(items, self.apply(items), tickets)

    def carry_out_all(
        self, items: Sequence[Item], outcomes: Sequence[Outcome], tickets: Sequence[Ticket | None]
    ) -> None:
        """Publish what committed outcomes, one an item, ask for."""
        carry_out = self.carrying_out(outcomes, tickets)
        for item, outcome, ticket in zip(items, outcomes, tickets, strict=True):
            carry_out(item, outcome, ticket)

    def carrying_out(
        self, outcomes: Sequence[Outcome], tickets: Sequence[Ticket | None]
    ) -> Callable[[Item | None, Outcome, Ticket | None], None]:
        """What carries out each of them. Where they are few their assignments have left when this returns: a lone step waits
        for its own, and for nothing else here.
        """
        if len(outcomes) > FEW:
            return self.carry_out
        for outcome, ticket in zip(outcomes, tickets, strict=True):
            for assignment in outcome.assignments:
                self.assign(outcome, assignment, ticket)
        self._outbox.flush()
        return self._tell

    def begin(
        self,
        items: Sequence[Item],
        on_done: Callable[[Sequence[Outcome]], None],
        on_lost: Callable[[StorageUnavailableError], None],
        meanwhile: Callable[[], bool] | None = None,
    ) -> None:
        """As `apply`, without waiting for the commit where storage can be left to make it; then finish what was before.

        Few are waited for all the same. One of the two is called: at once, when the next batch begins, when somebody applies
        something, or at `finish`. `on_done` has the outcomes, for who carries them out; `on_lost` says that nobody knows
        whether it is recorded. Raises `StorageUnavailableError` with neither called, and with what was under way finished:
        storage is away, or what came before of the same runs was lost.
        """
        if len(items) <= self._few:
            on_done(self.apply(items, meanwhile))
            return
        runs = frozenset([item.what.instance_id for item in items])
        if self._shares(runs):
            self._finish_what_shares(runs)
        before, self._under_way = self._under_way, None
        try:
            begun = self._begin(items)
        except FuselineError:
            if before is not None:
                self._finish(before)
            raise
        if before is not None:
            self._finish(before)
        one = _UnderWay(items, runs, begun, on_done, on_lost, meanwhile)
        if begun.is_under_way:
            self._under_way = one
            self.on_under_way()
        else:
            self._finish(one)

    def finish(self) -> bool:
        """Wait for what is under way, if anything is. False: nobody knows whether it is recorded."""
        one, self._under_way = self._under_way, None
        return one is None or self._finish(one)

    def _shares(self, runs: frozenset[str]) -> bool:
        return self._under_way is not None and not runs.isdisjoint(self._under_way.runs)

    def _finish_what_shares(self, runs: frozenset[str]) -> None:
        """What comes next of a run never overtakes what came before. Raises `StorageUnavailableError` where that is lost."""
        shares = self._shares(runs)
        if not self.finish() and shares:
            raise StorageUnavailableError("what came before of the same run may not be recorded")

    def _finish(self, one: _UnderWay) -> bool:
        try:
            outcomes = self._outcomes(one)
        except StorageUnavailableError as error:
            one.on_lost(error)
            return False
        one.on_done(outcomes)
        return True

    def _begin(self, items: Sequence[Item]) -> Begun:
        doubts = self._ledger.doubts
        try:
            return self._ledger.begin([item.what for item in items])
        except StorageUnavailableError as error:
            if not error.is_conflict:
                raise
            return Begun(self.apply(items))
        except (RetryableError, FatalError):
            raise
        except Exception as error:  # noqa: BLE001 - as in `apply`
            return Begun(self._apply_otherwise(items, error, in_doubt=self._ledger.doubts > doubts))

    def _outcomes(self, one: _UnderWay) -> list[Outcome]:
        try:
            return one.begun.finish(one.meanwhile)
        except StorageUnavailableError as error:
            if not error.is_conflict:
                raise
            return self.apply(one.items)  # runs that are there already (P3)
        except (RetryableError, FatalError):
            raise
        except Exception as error:  # noqa: BLE001 - as in `apply`
            return self._apply_otherwise(one.items, error, in_doubt=not isinstance(error, CallerError))

    def apply(self, items: Sequence[Item], meanwhile: Callable[[], bool] | None = None) -> list[Outcome]:
        """One transaction for all; one by one when an item breaks it, so that it harms no other.

        What is under way is finished first. `meanwhile`: see `Transaction`.
        """
        self._finish_what_shares(frozenset([item.what.instance_id for item in items]))
        doubts = self._ledger.doubts
        try:
            return self._ledger.apply([item.what for item in items], meanwhile=meanwhile)
        except (RetryableError, FatalError):
            raise
        except Exception as error:  # noqa: BLE001 - one broken item must not stop all runs; it is logged or parked
            return self._apply_otherwise(items, error, in_doubt=self._ledger.doubts > doubts)

    def _apply_otherwise(self, items: Sequence[Item], error: Exception, *, in_doubt: bool) -> list[Outcome]:
        """What could not be applied as it is. `in_doubt`: it may be recorded all the same."""
        if in_doubt:
            # Then what it queued has to go out (P4), and who holds what it took is not to be told to stop (P5).
            again = [replace(item, what=as_redelivered(item.what)) for item in items]
            if [one.what for one in again] != [one.what for one in items]:
                log.warning("a batch of %d failed as it was committed, once more: %s", len(items), error)
                return self.apply(again)
        if len(items) > 1:
            log.warning("a batch of %d failed, taking its items one by one: %s", len(items), error)
            return [outcome for item in items for outcome in self.apply([item])]
        return [self._apply_broken(items[0], error)]

    def _apply_broken(self, item: Item, error: Exception) -> Outcome:
        """An item that cannot be saved. A report of it becomes a failure of its step, so that the run goes on (P1)."""
        log.error("cannot apply %r", item.what, exc_info=None if isinstance(error, CallerError) else error)
        what = item.what
        if isinstance(what, Occurrence) and isinstance(what.event, StepReported):
            event = what.event
            problem = StepError(
                type=type(error).__name__,
                message=f"the report cannot be recorded: {error}"[:2000].encode("ascii", "replace").decode(),
                cause=Cause.INVALID,
            )
            # What it says of step fusion holds: its worker goes on with what this failure does not make ready (P5).
            failed = replace(
                event,
                status=Status.FAILED,
                result=None,
                action=None,
                error=problem,
                decision=None,
                started_at=None,
            )
            try:
                return self._ledger.apply([Occurrence(what.instance_id, failed, what.workflow_id)])[0]
            except (RetryableError, FatalError):
                raise
            except Exception as second:  # noqa: BLE001 - what names the attempt or its holder is wrong itself: parked
                error = second
        wrapped = error if isinstance(error, CallerError) else CallerError(f"{type(error).__name__}: {error}")
        return Outcome(what.instance_id, Verdict.UNKNOWN, reason=str(wrapped), error=wrapped)

    def carry_out(self, item: Item | None, outcome: Outcome, ticket: Ticket | None) -> None:
        """Publish what a committed outcome asks for."""
        for assignment in outcome.assignments:
            self.assign(outcome, assignment, ticket)
        self._tell(item, outcome, ticket)

    def assign(self, outcome: Outcome, assignment: StepAssignment, ticket: Ticket | None) -> None:
        """Publish one assignment."""
        self._outbox.assign(outcome, assignment, expecting(ticket))

    def _tell(self, item: Item | None, outcome: Outcome, ticket: Ticket | None) -> None:
        """Whoever is to know of a committed outcome, beside those who get its assignments."""
        if outcome.stop is not None:
            notice = ControlNotice(
                kind=ControlKind.STOP,
                instance_id=outcome.instance_id,
                spare=sorted(outcome.stop.spare),
                replays=outcome.stop.replays,
            )
            self._outbox.notify(self._book.addresses(outcome.workflow_id), notice)
        for one in outcome.stop_holders:
            self.stop_attempt(
                one.holder, outcome.instance_id, one.step, one.attempt, continued_from=one.continued_from
            )
        if outcome.notices:
            self._outbox.events(outcome)
        if item is None:
            return
        if isinstance(item.what, Occurrence):
            self.overtaking.saw(item.what, outcome)
        if outcome.verdict is Verdict.STALE:
            self._tell_stale(item, outcome)
        if outcome.verdict is not Verdict.ACCEPTED:
            log.debug("%s: run %s: %s", outcome.verdict, outcome.instance_id, outcome.reason)
        if outcome.error is not None and item.on_refused is not None:
            item.on_refused(outcome, expecting(ticket))
        if item.on_outcome is not None:
            item.on_outcome(outcome)

    def _cannot_be_sent(self, assignment: StepAssignment, error: FuselineError, again: bool) -> None:
        """Its step fails and says why: nothing else would end it but the sweep, hours later and as poison (P7).

        `again`: this may be recorded already. Raises `StorageUnavailableError`.
        """
        problem = StepError(
            type=type(error).__name__, message=f"the assignment cannot be sent: {error}", cause=Cause.INVALID
        )
        event = StepReported(
            assignment.step_name, assignment.attempt, Status.FAILED, error=problem, redelivered=again
        )
        self.run([Item(Occurrence(assignment.instance_id, event, assignment.workflow_id))], [None])
        self.on_failed()

    def _tell_stale(self, item: Item, outcome: Outcome) -> None:
        """A claim of an attempt that is over: its worker must not go on (P5)."""
        what = item.what
        if isinstance(what, Occurrence) and isinstance(what.event, StepClaimed):
            self.stop_attempt(what.event.holder, what.instance_id, what.event.step, what.event.attempt)

    def stop_attempt(
        self,
        worker_id: str,
        instance_id: str,
        step: str,
        attempt: int,
        *,
        continued_from: tuple[str, int] | None = None,
    ) -> None:
        """Tell one worker that it holds this attempt no longer, or with `continued_from` that it never did."""
        address = self._book.address(worker_id)
        if address is not None:
            notice = ControlNotice(
                kind=ControlKind.STOP,
                instance_id=instance_id,
                attempts=[(step, attempt)],
                worker_id=worker_id,
                continued_from=continued_from,
            )
            self._outbox.notify([address], notice)


def expecting(ticket: Ticket | None) -> Callable[[], None]:
    """What to call when one thing more is done, for which the ticket waits from now on."""
    if ticket is None:
        return _nothing
    ticket.expect()
    return ticket.done


def _nothing() -> None:
    return None

"""What is due: retries, expiries, leases, run deadlines, and the sweep for messages that got lost.

The due time is a column; the next one is known, so a coordinator sleeps until then and polls nothing (P8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from fuseline.amqp.link import Link
from fuseline.amqp.loops import Timer
from fuseline.amqp.resources import QueueCount
from fuseline.amqp.topology import Topology
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.workers import Lease, WorkerBook
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepOvertaken, StepVanished
from fuseline.errors import FuselineError, StorageUnavailableError
from fuseline.ledger import Ledger, Occurrence, Outcome
from fuseline.model.messages import StepAssignment
from fuseline.model.status import Status
from fuseline.storage.base import Wanted

log = logging.getLogger(__name__)

BATCH = 500
LOOK_AT_LEAST_EVERY_SECONDS = 30.0
"""Another coordinator's rows have due times that this one has not seen being written."""
SAVE_SEEN_EVERY_SECONDS = 30.0
COUNT_SECONDS = 10.0
LISTEN_SECONDS = 1.0
"""Time alone says nothing until what waits in the queues has been heard: the first deliveries take a few trips."""
CATCH_UP_SECONDS = 30.0
"""How long a backlog of reports keeps time from counting, at most (P1)."""
LOOK_AGAIN_SECONDS = 0.2
AWAY_SECONDS = 1.0
LATE_SECONDS = (1.0, 5.0)
"""Who wakes a tenth of a lease too late, within these bounds, was stopped himself, and has heard nobody meanwhile."""
FRESH_SECONDS = 5.0
"""How long it counts that this coordinator was heard by itself; at most a tenth of a lease."""
SETTLE_SECONDS = 0.05
"""Of a message in an alarm RabbitMQ tells that it is the last one at about the time when it comes back."""
UNHEARD_SECONDS = 120.0
"""How long a coordinator that cannot hear itself judges nothing (P1): a connection that is dead is found out before that."""


class Timers:
    """Wakes when something is due and carries out what that means."""

    def __init__(
        self,
        link: Link,
        ledger: Ledger,
        pipeline: Pipeline,
        book: WorkerBook,
        topology: Topology,
        on_storage_lost: Callable[[StorageUnavailableError], None],
        is_catching_up: Callable[[], bool] = lambda: False,
        ask_echo: Callable[[], None] = lambda: None,
        is_storage_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_catching_up`: whether reports wait here to be recorded. `ask_echo`: has `heard` be called when all that
        others have said by now was heard. `is_storage_away`: whether it was lost and is to be tried again, after which
        somebody calls `wake_anew`.
        """
        self._link = link
        self._ledger = ledger
        self._pipeline = pipeline
        self._book = book
        self._topology = topology
        self._on_storage_lost = on_storage_lost
        self._is_catching_up = is_catching_up
        self._ask_echo = ask_echo
        self._is_storage_away = is_storage_away
        self._late_seconds = max(LATE_SECONDS[0], min(LATE_SECONDS[1], book.lease_seconds / 10))
        self._fresh_seconds = min(FRESH_SECONDS, max(2 * SETTLE_SECONDS, book.lease_seconds / 10))
        self._heard_at = float("-inf")  # monotonic, as the next two
        self._asked_at: float | None = None
        self._unheard_since: float | None = None
        self._is_answered = False
        self._timer: Timer | None = None
        self._wakes_at: float | None = None  # wall time
        self._late_at = float("inf")  # monotonic, as the next two
        self._was_late = False
        self._judges_from = self._judges_at_latest = 0.0
        self._stopped = False
        self._missing: dict[tuple[str, Lease], float] = {}  # since when they are listed and have no row
        self._saved_seen_at = self._verified_at = ledger.clock.monotonic()

    def look(self) -> None:
        """Rows were saved: wake earlier if one of them is due earlier."""
        due, self._ledger.earliest_due = self._ledger.earliest_due, None
        if due is not None and (self._wakes_at is None or due < self._wakes_at):
            self._arm(due)

    def wake_anew(self) -> None:
        """RabbitMQ or storage is there, for the first time or again: look for what is due, once all have been heard.

        A step that was reported in time while nobody recorded is not to fail for that (P4), nor its holder to be stopped
        whose claim waits there, too (P5).
        """
        self._hear_first()
        self._arm(self._ledger.clock.now() + LISTEN_SECONDS)

    def heard(self, sent_at: float) -> None:
        """What was said before that time (monotonic) has been heard."""
        self._heard_at = max(self._heard_at, sent_at)
        self._judges_from = max(self._judges_from, self._ledger.clock.monotonic() + SETTLE_SECONDS)
        if self._asked_at is not None:  # that is what the next look waits for, however long it took
            self._asked_at = None
            self._is_answered = True
            self._arm(self._ledger.clock.now() + SETTLE_SECONDS)

    def _hear_first(self, *, anew: bool = False) -> None:
        now = self._ledger.clock.monotonic()
        self._judges_from = now + LISTEN_SECONDS
        # Else not moved on: who has to begin again and again would never judge (P1).
        if anew or self._judges_at_latest <= now:
            self._judges_at_latest = now + CATCH_UP_SECONDS

    def stop(self) -> None:
        """Wake no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, at: float) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        seconds = min(max(0.0, at - self._ledger.clock.now()), LOOK_AT_LEAST_EVERY_SECONDS)
        self._wakes_at = self._ledger.clock.now() + seconds
        self._late_at = self._ledger.clock.monotonic() + seconds + self._late_seconds
        self._timer = self._link.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = self._wakes_at = None
        if self._stopped:
            return
        if (pause := self._pause_seconds()) is not None:
            self._arm(self._ledger.clock.now() + pause)
            return
        self._pipeline.finish()
        if self._is_storage_away():
            return  # what was reported in time may wait for it (P4); when it is back all is looked at anew
        try:
            outcomes = self._ledger.apply_due(BATCH, self._book.renewed_until)
            # Before anything else that may fail: it is recorded, and nobody would say it again.
            self._carry_out(outcomes)
            next_due = None if len(outcomes) >= BATCH else self._ledger.storage.next_due()
        except StorageUnavailableError as error:
            self._on_storage_lost(error)
            return
        now = self._ledger.clock.now()
        self._ledger.earliest_due = None
        if len(outcomes) >= BATCH:
            # Where none of so many can be applied the same ones come first again.
            is_moving = any(outcome.verdict is Verdict.ACCEPTED for outcome in outcomes)
            self._arm(now if is_moving else now + AWAY_SECONDS)
        else:
            # A timer that stands although it was due (its run is locked by another coordinator) must not make this spin.
            at = now + LOOK_AT_LEAST_EVERY_SECONDS if next_due is None else max(next_due, now + 0.05)
            self._arm(at)

    def _pause_seconds(self) -> float | None:
        """How long nothing may be judged by time alone; None: it may be now."""
        now = self._ledger.clock.monotonic()
        if not self._link.is_up or self._link.is_blocked:
            # Nobody can be heard: beats and reports wait, too. And what became ready would only gather here (P6).
            self._book.listen_anew()
            self._hear_first(anew=True)
            self._unheard_since = self._asked_at = None
            self._is_answered = False
            return AWAY_SECONDS
        # Once, and not for ever: who is always late judges all the same (P1).
        self._was_late = now > self._late_at and not self._was_late
        if self._was_late:
            self._book.listen_anew()
            self._hear_first()
        if now < self._judges_from:
            return self._judges_from - now
        if now < self._judges_at_latest and self._is_catching_up():
            return LOOK_AGAIN_SECONDS
        if self._pipeline.is_behind:
            return AWAY_SECONDS
        if (pause := self._unheard_pause(now)) is None:
            self._judges_at_latest = 0.0  # caught up; from now on time counts
        return pause

    def _unheard_pause(self, now: float) -> float | None:
        """Until this coordinator is heard by itself. None: it is, or for so long it was not that time has to count."""
        is_answered, self._is_answered = self._is_answered, False
        if is_answered or now - self._heard_at <= self._fresh_seconds:
            self._asked_at = self._unheard_since = None
            self._book.heard_until = self._heard_at  # however long it took to come back
            return None
        if self._asked_at is None or now - self._asked_at >= AWAY_SECONDS:
            self._asked_at = now
            self._ask_echo()
        if self._unheard_since is None:
            self._unheard_since = now
        if now - self._unheard_since < UNHEARD_SECONDS:
            return AWAY_SECONDS
        log.warning(
            "nothing comes back from RabbitMQ since %.0f s; time counts all the same", UNHEARD_SECONDS
        )
        self._book.heard_until = None
        return None

    def _carry_out(self, outcomes: list[Outcome]) -> None:
        lost: dict[tuple[str, str], list[tuple[Outcome, StepAssignment]]] = {}
        for outcome in outcomes:
            if outcome.error is not None:
                log.error("a timer of run %s cannot be applied: %s", outcome.instance_id, outcome.error)
            again = [a for a in outcome.assignments if a.step_name in outcome.offered_again]
            outcome.assignments = [a for a in outcome.assignments if a.step_name not in outcome.offered_again]
            self._pipeline.carry_out(None, outcome, None)
            for assignment in again:
                lost.setdefault((outcome.workflow_id, outcome.version), []).append((outcome, assignment))
        if any(outcome.verdict is Verdict.ACCEPTED for outcome in outcomes):
            self._book.verify_again()
        for key, offers in lost.items():
            queue = self._topology.steps_queue(*key)
            self._count(queue, offers, looks=2)

    def _count(self, queue: str, offers: list[tuple[Outcome, StepAssignment]], looks: int) -> None:
        if not self._stopped:
            then = partial(self._counted, queue, offers, looks - 1)
            self._link.count(queue, then, deadline_seconds=COUNT_SECONDS)

    def _counted(
        self,
        queue: str,
        offers: list[tuple[Outcome, StepAssignment]],
        more_looks: int,
        count: QueueCount | FuselineError | None,
    ) -> None:
        """Offer again only where the queue is empty, or behind it has come out: else the message is just late.

        And only when it is so twice: what a worker has just taken is in no queue either, and is claimed or reported by
        the second look, which makes the answer to that a stale one.
        """
        if isinstance(count, FuselineError):
            log.warning("cannot look into a queue, the next sweep will: %s", count)
            return
        self._pipeline.finish()
        if self._link.is_blocked or self._is_storage_away():
            return  # it could not get there, or what was said of it may not be recorded; the next sweep looks again
        backlog = count is not None and count.messages > 0
        if backlog:
            offers = [offer for offer in offers if self._pipeline.overtaking.has_overtaken(offer[0])]
            if not offers:
                return  # they wait there
        if count is not None and more_looks:
            pause = self._book.lease_seconds / 2  # longer than a worker waits before it claims
            self._link.call_later(pause, partial(self._count, queue, offers, more_looks))
            return
        for _, assignment in offers:
            log.info("offering step %s of run %s again", assignment.step_name, assignment.instance_id)
        if count is None:  # the queue itself is gone, for which no worker can be blamed
            for outcome, assignment in offers:
                self._pipeline.assign(outcome, assignment, None)
            return
        # Behind a backlog it is the next attempt, queued now: the same one would count as overtaken for ever.
        event = StepOvertaken if backlog else StepVanished
        vanished = [
            Item(Occurrence(a.instance_id, event(a.step_name, a.attempt), a.workflow_id)) for _, a in offers
        ]
        try:
            self._pipeline.run(vanished, [None] * len(vanished))
        except StorageUnavailableError as error:
            self._on_storage_lost(error)
        self.look()

    # ---- housekeeping

    def keep_house(self) -> None:
        """Save who was seen (coarsely) and compare leases with storage: new ones soon, all of them once a lease time.

        A stop notice is sent once and may get lost, or its coordinator be killed before it sent it. The worker then lists
        the lease on and on, and this is where it is told again (P5). One read, a second one for leases without a row, and
        none where there are no leases (P8).
        Raises `StorageUnavailableError`.
        """
        self._pipeline.finish()
        if self._is_storage_away():
            return
        self._book.forget_silent()
        now = self._ledger.clock.monotonic()
        if now - self._saved_seen_at >= SAVE_SEEN_EVERY_SECONDS:
            self._saved_seen_at = now
            if seen := self._book.take_unsaved():
                with self._ledger.storage.transaction() as tx:
                    tx.touch_workers(seen)
        if now - self._verified_at >= self._book.lease_seconds:
            self._verified_at = now
            self._book.verify_again()
        self._verify_leases()

    def _verify_leases(self) -> None:
        pairs = self._book.take_unverified()
        pairs.update(pair for pair in self._missing if self._book.lists(*pair))
        if not pairs:
            self._missing = {}
            return
        with self._ledger.storage.transaction() as tx:
            rows = tx.load(Wanted(steps={(i, step) for _, (i, step, _) in pairs})).steps
            runs_without = {i for _, (i, step, _) in pairs if (i, step) not in rows}
            runs = tx.load(Wanted(runs=runs_without)).runs if runs_without else {}
        missing = {}
        now = self._ledger.clock.monotonic()
        for worker_id, lease in pairs:
            instance_id, step, attempt = lease
            row = rows.get((instance_id, step))
            if row is None:
                # The report that takes it may still be on its way: for as long as a lease, and while it can count.
                run = runs.get(instance_id)
                since = self._missing.get((worker_id, lease), now)
                if run is not None and not run.status.is_terminal and now - since < self._book.lease_seconds:
                    missing[worker_id, lease] = since
                    continue
            elif row.attempt == attempt and (
                # QUEUED: the claim itself may still be on its way.
                row.status is Status.QUEUED or (row.status is Status.RUNNING and row.holder == worker_id)
            ):
                continue
            self._pipeline.stop_attempt(worker_id, instance_id, step, attempt)
        self._missing = missing

"""The timers of a broker in this process: which is the next one, and what they bring about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from fuseline.broker.alarm import Alarm
from fuseline.broker.roster import Roster
from fuseline.clock import Clock, SystemClock
from fuseline.engine.effects import Verdict
from fuseline.ledger import Ledger, Outcome

log = logging.getLogger(__name__)

BATCH: Final = 500
STUCK_SECONDS: Final = 1.0
"""A timer that cannot be applied is not looked at more often."""


class Timers:
    """Used by one thread at a time, as the ledger is. `ring` is called when one has run out, where the clock is the
    system's; it applies them."""

    def __init__(self, ledger: Ledger, clock: Clock, roster: Roster, ring: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._roster = roster
        self._alarm = Alarm(clock, ring) if isinstance(clock, SystemClock) else None
        self._next_due: float | None = None
        self._next_housekeeping = 0.0

    def take_up(self) -> None:
        """Begin with those that are stored."""
        self._next_due = self._ledger.storage.next_due()

    def set_alarm(self) -> None:
        """Ring when the next one runs out; at once when nobody knows whether a commit was made, and what is due then."""
        if self._alarm is not None:
            self._alarm.set(self._clock.now() if self._ledger.doubts else self._due_at())

    def apply(self, carry_out: Callable[[Iterable[Outcome]], None]) -> None:
        """Those that have run out. What that brings about is carried out batch by batch."""
        now = self._clock.now()
        due = self._due_at()
        if due is None or due > now:
            return
        more = True
        while more:
            outcomes = self._ledger.apply_due(BATCH, self._roster.renewed_until)
            for outcome in outcomes:
                if outcome.error is not None:
                    log.error("a timer of run %s cannot be applied: %s", outcome.instance_id, outcome.error)
            carry_out(outcomes)
            more = len(outcomes) == BATCH and any(o.verdict is Verdict.ACCEPTED for o in outcomes)
        # Read before the memory of what was saved is dropped: if the read fails, the timers are still known.
        following = self._ledger.storage.next_due()
        self._ledger.earliest_due = None
        self._next_due = now + STUCK_SECONDS if following is not None and following <= now else following

    def _due_at(self) -> float | None:
        dues = [due for due in (self._next_due, self._ledger.earliest_due) if due is not None]
        return min(dues, default=None)

    def housekeep(self) -> None:
        """Forget workers that are long gone, so that memory follows those that live (P6)."""
        now = self._clock.monotonic()
        if now < self._next_housekeeping:
            return
        if gone := self._roster.forgettable():
            with self._ledger.storage.transaction() as tx:
                tx.delete_workers(gone)
            self._roster.forget(gone)
        self._next_housekeeping = now + self._ledger.rules.lease_seconds

    def close(self) -> None:
        """End the thread that rings."""
        if self._alarm is not None:
            self._alarm.close()

"""Executing one assignment for a caller that waits: for the runtimes that pull."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from fuseline.clock import Clock
from fuseline.model.messages import StepAssignment
from fuseline.worker import asking
from fuseline.worker.catalog import Catalog
from fuseline.worker.logs import ids
from fuseline.worker.reports import Sealed, Sealer, timed_out
from fuseline.worker.slots import Slots

log = logging.getLogger(__name__)

_FOREVER: Final = 3600.0


class Execution:
    """One attempt, executed while a thread waits in `run`; `abandon` is for any thread."""

    def __init__(self, assignment: StepAssignment) -> None:
        self.assignment = assignment
        self._outcome: SimpleQueue[Sealed | None] = SimpleQueue()

    def abandon(self) -> None:
        """Make `run` stop the body and return None."""
        self._outcome.put(None)

    def run(
        self,
        catalog: Catalog,
        slots: Slots,
        sealer: Sealer,
        clock: Clock,
        *,
        tick_seconds: float | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Sealed | None:
        """Execute, enforcing the execution timeout; `on_tick` is called every `tick_seconds` meanwhile."""
        started_at, begun = clock.now(), clock.monotonic()
        timeout = self.assignment.timeout_seconds
        job = catalog.job(self.assignment, started_at)
        running = slots.start(job, self._outcome.put)
        try:
            while True:
                left = _FOREVER if timeout is None else begun + timeout - clock.monotonic()
                wait = left if tick_seconds is None else min(left, tick_seconds)
                try:
                    sealed = self._outcome.get(timeout=max(0.0, wait))
                except Empty:
                    if timeout is not None and clock.monotonic() >= begun + timeout:
                        if running.stop():
                            log.warning(
                                "step %s timed out", self.assignment.step_name, extra=ids(self.assignment)
                            )
                            own = None if job.timed_out is None else asking.answer(job.timed_out)
                            return own or sealer.seal(timed_out(self.assignment), started_at)
                        timeout = None  # over this moment, and its outcome is on the way
                    else:
                        on_tick()
                    continue
                if sealed is not None or running.stop():
                    return sealed
        finally:
            slots.end()

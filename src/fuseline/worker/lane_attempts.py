"""What a worker beside its broker executes, or has not reported yet."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from fuseline.broker.lane import Told
from fuseline.errors import CallerError, StaleReportError, UnknownRunError
from fuseline.model.messages import Cause, StepAssignment
from fuseline.worker.executors.base import Job, Running
from fuseline.worker.logs import ids
from fuseline.worker.reports import Sealed, Sealer, crashed

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Attempt:
    """What runs, or is not reported yet. `sealed`: how it ended."""

    assignment: StepAssignment
    job: Job
    started_at: float
    running: Running | None = None
    is_asked_about: bool = False
    """It timed out, and its policies are asked what they think of that."""
    sealed: Sealed | None = None

    def told(self) -> Told:
        """Its report, for the broker."""
        assert self.sealed is not None
        return Told(self.sealed.report, self.sealed.body)


@dataclass(order=True, slots=True)
class _Timer:
    at: float
    number: int
    attempt: Attempt = field(compare=False)


class Deadlines:
    """When attempts are to be looked at again. Times are monotonic."""

    def __init__(self) -> None:
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()

    @property
    def next_at(self) -> float | None:
        """The earliest; None when nothing waits for a time."""
        return self._timers[0].at if self._timers else None

    def set(self, attempt: Attempt, at: float) -> None:
        """Look at it then."""
        heapq.heappush(self._timers, _Timer(at, next(self._numbers), attempt))

    def passed(self, now: float) -> Iterator[Attempt]:
        """Take those whose time has come and that have not ended."""
        while self._timers and self._timers[0].at <= now:
            attempt = heapq.heappop(self._timers).attempt
            if attempt.sealed is None:
                yield attempt


def refused(attempt: Attempt, refusal: CallerError, sealer: Sealer) -> Sealed | None:
    """Its report was refused: another one to send in its place; None when there is nothing more to say."""
    extra = ids(attempt.assignment)
    assert attempt.sealed is not None
    if isinstance(refusal, StaleReportError):
        log.debug("a report is stale: %s", refusal, extra=extra)
    elif isinstance(refusal, UnknownRunError):
        log.warning("a report is of no known run: %s", refusal, extra=extra)
    elif attempt.sealed.report.error is not None:
        log.error("a report is refused: %s", refusal, extra=extra)
    else:
        # Such as a result over the broker's own limit of size: a report that says so is short.
        log.warning("a result is refused: %s", refusal, extra=extra)
        return sealer.seal(crashed(attempt.assignment, refusal, Cause.INVALID), attempt.started_at)
    return None

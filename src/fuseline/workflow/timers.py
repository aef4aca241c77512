"""The timers of a run in this process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from fuseline.clock import Clock


class Due(Enum):
    """What a timer is for."""

    RETRY = "retry"  # a step's pause is over
    EXPIRY = "expiry"  # an attempt has waited too long for a place
    TIMEOUT = "timeout"  # an attempt runs too long
    RUN = "run"  # the run takes too long
    GRACE = "grace"  # what was told to stop has had its time


@dataclass(frozen=True, slots=True)
class Timer:
    """`step` and `attempt` are those it is about, if any."""

    kind: Due
    step: str = ""
    attempt: int = 0


class Timers:
    """By the monotonic clock. One that is no longer wanted stays, and whoever gets it looks whether it still matters."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def arm(self, seconds: float, timer: Timer) -> None:
        """Due in so many seconds."""
        heapq.heappush(self._heap, (self._clock.monotonic() + seconds, next(self._numbers), timer))

    def wait_seconds(self) -> float | None:
        """Until the next one; None without any."""
        return max(0.0, self._heap[0][0] - self._clock.monotonic()) if self._heap else None

    def take_due(self) -> Iterator[Timer]:
        """Those whose time has come, in order."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    def keep(self, kinds: Iterable[Due]) -> None:
        """Drop all others."""
        self._heap = [one for one in self._heap if one[2].kind in kinds]
        heapq.heapify(self._heap)

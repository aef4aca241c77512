"""The only place that reads time or randomness: everything else is handed a `Clock`."""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

JUMP_SECONDS: Final = 1.0
"""What a wall clock may differ by from one look to the next without having been set."""
ADOPT_SECONDS: Final = 86_400.0
FOLLOW_SHARE: Final = 0.1

_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""The digit that says by two of its bits which kind of UUID it is."""

_PASSING: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(ABC):
    """Wall time, monotonic time and fresh ids. Times are seconds (float), wall times since the Unix epoch."""

    @abstractmethod
    def now(self) -> float:
        """Wall time; what is written to storage and compared with deadlines there."""

    @abstractmethod
    def monotonic(self) -> float:
        """Time that never jumps; for waits and deadlines inside one process."""

    @abstractmethod
    def random(self) -> float:
        """A number in [0, 1), for jitter."""

    @abstractmethod
    def token_bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes, for ids."""

    def new_id(self) -> str:
        """A UUIDv7 in hex (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random bits.

        Ids made later sort later, so that rows of one time lie together in an index.
        """
        return self.new_ids(1)[0]

    def new_ids(self, count: int) -> list[str]:
        """So many ids of this moment, in no order."""
        millis = int(self.now() * 1000) & (2**48 - 1)
        noise = self.token_bytes(10 * count).hex()
        return [
            f"{millis:012x}7{noise[i + 1 : i + 4]}{_VARIANT[noise[i + 4]]}{noise[i + 5 : i + 20]}"
            for i in range(0, len(noise), 20)
        ]


class SystemClock(Clock):
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return random.random()

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)


class SteadyClock(SystemClock):
    """The machine's wall time without its jumps: for deadlines that others are compared with.

    A clock that is set by hours would end every wait, run and expiry too early, or let them hang for hours. So when `wall`
    jumps, this one goes on as before and follows by `FOLLOW_SHARE` of the time that passes. A jump of more than
    `ADOPT_SECONDS` is that of a machine that had no idea of the time, and is followed at once. Time that the machine slept
    counts as passed where the system can tell. Thread-safe.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, passed: Callable[[], float] | None = None
    ) -> None:
        self._wall = wall
        self._passed = passed or _passed
        self._lock = threading.Lock()
        self._now = wall()
        self._at = self._passed()
        self._is_off = False

    def now(self) -> float:
        with self._lock:
            at = self._passed()
            step = at - self._at
            steady, wall = self._now + step, self._wall()
            off = wall - steady
            if abs(off) > ADOPT_SECONDS:
                log.warning("the machine's clock was set by %.0f s, which is followed at once", off)
                steady = wall
            elif abs(off) > JUMP_SECONDS:
                if not self._is_off:
                    log.warning(
                        "the machine's clock was set by %.1f s: deadlines keep to the time of before, and follow slowly",
                        off,
                    )
                self._is_off = True
                most = FOLLOW_SHARE * step
                steady += max(-most, min(most, off))
            else:
                self._is_off = False
                steady = wall
            self._now, self._at = steady, at
            return steady


def _passed() -> float:
    return time.clock_gettime(_PASSING) if _PASSING is not None else time.monotonic()


class ManualClock(Clock):
    """A clock that stands still until it is told to go on; ids and jitter come from `seed`, so tests repeat."""

    def __init__(self, now: float = 1_700_000_000.0, seed: int = 0) -> None:
        self._now = now
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def random(self) -> float:
        with self._lock:
            return self._random.random()

    def token_bytes(self, count: int) -> bytes:
        with self._lock:
            return self._random.randbytes(count)

    def advance(self, seconds: float) -> float:
        """Move `seconds` forward (negative: a wall clock that was set back) and return the new time."""
        self._now += seconds
        return self._now

"""A thread that sleeps until the next timer of a broker, and is there only while there is one (P8)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from fuseline.clock import Clock
from fuseline.errors import RetryableError

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
_LOOK_AT_CLOCK_SECONDS = 60.0
"""The longest sleep: wall time may be set meanwhile."""


class Alarm:
    """Calls `ring` when the time that was set last has come; `ring` sets the next one. Thread-safe."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._changed = threading.Condition()
        self._at: float | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, at: float | None) -> None:
        """Ring at this wall time, and at none that was set before; None: not at all."""
        with self._changed:
            if self._closed or at == self._at:
                return
            self._at = at
            if self._thread is not None:
                self._changed.notify()
            elif at is not None:
                self._thread = threading.Thread(target=self._run, name="fuseline timers", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread, and wait for it unless it is this one."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            while self._slept():
                try:
                    self._ring()
                except RetryableError as error:
                    log.warning("timers wait, their storage is away: %s", error)
                    self.set(self._clock.now() + RETRY_SECONDS)
        finally:
            with self._changed:
                # Only a failure that nobody expects ends it while a time is set; the next `set` begins another one.
                if self._thread is threading.current_thread():
                    self._thread = None
                    self._at = None

    def _slept(self) -> bool:
        """Sleep until the time has come; False when there is none any more."""
        with self._changed:
            while not self._closed and self._at is not None:
                left = self._at - self._clock.now()
                if left <= 0:
                    self._at = None
                    return True
                self._changed.wait(min(left, _LOOK_AT_CLOCK_SECONDS))
            self._thread = None
            return False

"""How many steps run at once (P6), whatever they do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fuseline.worker.executors.base import Done, Executor, Job, Running

EXHAUSTED_SECONDS: Final = 60.0
"""A worker whose every place is kept by abandoned bodies, and in which none of them ends for so long, is to end: only
the end of its process ends them."""


class Slots:
    """`concurrency` places to run in, and never more bodies than that.

    A job that was stopped and cannot be ended (a thread that never looks, a coroutine that swallows its cancellation)
    keeps its place until it ends: it still has the memory, the connections and the processor that `concurrency` bounds.
    When such bodies have all the places, `is_exhausted`. Sync jobs go to `sync`, async ones to `loops`. `start` and `end`
    are for the runtime's thread, or for threads that hold no more than `concurrency` places among them.
    """

    def __init__(self, concurrency: int, sync: Executor, loops: Executor) -> None:
        self.concurrency = concurrency
        self.busy = 0
        self.freed = 0
        """Abandoned bodies that have ended since the beginning: while it grows, places come back."""
        self._lock = threading.Lock()
        self._sync = sync
        self._loops = loops

    @property
    def abandoned(self) -> int:
        """Stopped bodies that have not ended."""
        return self._sync.abandoned + self._loops.abandoned

    @property
    def free(self) -> int:
        """How many more jobs may start now."""
        return self.concurrency - self.abandoned - self.busy

    def told(self) -> str:
        """How many places are kept by abandoned bodies, for people."""
        return f"{self.abandoned} of {self.concurrency} places are kept by steps that were told to stop and run on"

    @property
    def is_exhausted(self) -> bool:
        """Whether abandoned bodies have taken every place."""
        return self.abandoned >= self.concurrency

    def on_freed(self, callback: Callable[[], None]) -> None:
        """Call it, on any thread, when an abandoned body ends."""

        def freed() -> None:
            with self._lock:
                self.freed += 1
            callback()

        self._sync.on_freed = freed
        self._loops.on_freed = freed

    def keep(self) -> None:
        """Take a place for what starts later."""
        with self._lock:
            self.busy += 1

    def start(self, job: Job, done: Done) -> Running:
        """Run a job in a free place, which is taken until `end`."""
        with self._lock:
            self.busy += 1
        return (self._loops if job.is_async else self._sync).start(job, done)

    def end(self) -> None:
        """A job is over, or was stopped."""
        with self._lock:
            self.busy -= 1

    def prepare(self) -> None:
        """Raises `LoadError` when jobs could not run."""
        self._sync.prepare()

    def close(self) -> None:
        """Stop what can be stopped."""
        self._sync.close()
        self._loops.close()

"""Sync bodies on threads of our own.

Not `concurrent.futures`: at exit it joins its threads, and one body that sleeps for ever would keep the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from fuseline.worker.executors.base import Done, Executor, Job
from fuseline.worker.reports import Sealed


class _Task:
    __slots__ = ("_lock", "_pool", "done", "is_over", "is_stopped", "job")

    def __init__(self, pool: ThreadExecutor, job: Job, done: Done) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self.job = job
        self.done = done
        self.is_over = False
        self.is_stopped = False

    def stop(self) -> bool:
        """Abandon the body: a thread cannot be ended from outside."""
        with self._lock:
            if self.is_over:
                return False
            if not self.is_stopped:
                self.is_stopped = True
                self._pool.count_abandoned(1)
        self.job.cancel()
        return True

    def end(self, sealed: Sealed) -> bool:
        """Hand over the outcome; False when nobody waits for it any more."""
        with self._lock:
            self.is_over = True
            if self.is_stopped:
                return False
        self.done(sealed)
        return True


class ThreadExecutor(Executor):
    """A thread a running job, kept for the next one. Threads are daemons, so an abandoned body never holds up an exit."""

    def __init__(self, name: str = "fuseline step") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0
        self._is_closed = False
        self._started = 0

    @property
    def abandoned(self) -> int:
        """Bodies that run on although they were stopped."""
        return self._abandoned

    @property
    def threads(self) -> int:
        """Threads that live, abandoned ones among them."""
        return self._threads

    def start(self, job: Job, done: Done) -> _Task:
        """Run `job.sync` on an idle thread, or on a new one."""
        task = _Task(self, job, done)
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the executor is closed")
            new = not self._idle
            if new:
                self._threads += 1
                self._started += 1
            else:
                self._idle -= 1
        self._inbox.put(task)
        if new:
            threading.Thread(target=self._work, name=f"{self._name} {self._started}", daemon=True).start()
        return task

    def close(self) -> None:
        """Let idle threads end, and busy ones after their body."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._inbox.put(None)

    def count_abandoned(self, change: int) -> None:
        """One more body runs on, or one less."""
        with self._lock:
            self._abandoned += change

    def _work(self) -> None:
        while (task := self._inbox.get()) is not None:
            assert task.job.sync is not None
            wanted = task.end(task.job.sync())
            if not wanted:
                # Another thread has taken this one's place meanwhile.
                self._leave_abandoned()
                return
            del task  # the next one may be hours away, and this one's result large
            with self._lock:
                if self._is_closed:
                    break
                self._idle += 1
        with self._lock:
            self._threads -= 1

    def _leave_abandoned(self) -> None:
        with self._lock:
            self._threads -= 1
            self._abandoned -= 1
        _call(self.on_freed)


def _call(callback: Callable[[], None] | None) -> None:
    if callback is not None:
        callback()

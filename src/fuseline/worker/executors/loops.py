"""Async bodies on a loop of their own, in a thread of its own.

Not on the worker's loop: a body that blocks would starve the connection's heartbeats there, and RabbitMQ would take it
for dead. Here it only delays its like, and its timeout still comes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fuseline.worker.executors.base import Done, Executor, Job

if sys.platform == "win32":
    _new_event_loop = asyncio.new_event_loop
else:
    import uvloop

    _new_event_loop = uvloop.new_event_loop

Result = TypeVar("Result")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    return _new_event_loop()


class _Coroutine:
    __slots__ = (
        "_executor",
        "_has_begun",
        "_lock",
        "done",
        "has_ended",
        "is_over",
        "is_stopped",
        "job",
        "task",
    )

    def __init__(self, executor: LoopExecutor, job: Job, done: Done) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self.job = job
        self.done = done
        self.task: asyncio.Task[None] | None = None
        self._has_begun = False
        self.has_ended = False
        self.is_over = False
        self.is_stopped = False

    def stop(self) -> bool:
        """Cancel the coroutine, and wait no longer: it may swallow the cancellation, or block its loop."""
        with self._lock:
            if self.is_over:
                return False
            if self.is_stopped:
                return True
            self.is_stopped = True
            self._executor.count_abandoned(1)
        self.job.cancel()
        self._executor.post(self.cancel)
        return True

    def cancel(self) -> None:
        """On the loop."""
        if self.task is not None:
            self.task.cancel()
            if not self._has_begun:  # and never will
                self._has_begun = True
                self._end()

    async def run(self) -> None:
        """The body, and what becomes of its outcome."""
        self._has_begun = True
        try:
            if self.is_stopped:
                return
            assert self.job.coroutine is not None
            sealed = await self.job.coroutine()
            with self._lock:
                self.is_over = not self.is_stopped
            if self.is_over:
                self.done(sealed)
        finally:
            self._end()

    def _end(self) -> None:
        self.has_ended = True
        if self.task is not None:
            self._executor.forget(self.task)
        if self.is_stopped:
            self._executor.leave_abandoned()


class LoopExecutor(Executor):
    """A task a job. The thread starts with the first one."""

    def __init__(self, name: str = "fuseline steps' loop") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None  # while the loop runs
        self._inbox: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._is_closed = False
        self._abandoned = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def abandoned(self) -> int:
        """Coroutines that were cancelled and have not ended."""
        return self._abandoned

    def start(self, job: Job, done: Done) -> _Coroutine:
        """Run `job.coroutine` as a task."""
        coroutine = _Coroutine(self, job, done)
        if self._thread_id == threading.get_ident():
            self._begin(coroutine)
        else:
            self.post(partial(self._begin, coroutine))
        return coroutine

    def count_abandoned(self, change: int) -> None:
        """One more coroutine runs on, or one less."""
        with self._lock:
            self._abandoned += change

    def forget(self, task: asyncio.Task[None]) -> None:
        """It has ended."""
        self._tasks.discard(task)

    def leave_abandoned(self) -> None:
        """A stopped coroutine has ended after all."""
        self.count_abandoned(-1)
        if self.on_freed is not None:
            self.on_freed()

    def post(self, action: Callable[[], None]) -> None:
        """Do it on the loop, in order; many posted together cost one wake-up."""
        with self._lock:
            if self._is_closed:
                return
            self._inbox.append(action)
            if self._is_woken:
                return
            self._is_woken = True
            if self._loop is None:
                self._loop = new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True).start()
            self._loop.call_soon_threadsafe(self._take)

    def run(self, coroutine: Coroutine[Any, Any, Result], seconds: float = 10.0) -> Result:
        """Run it on the loop, where its like have made what it may need, and wait; on a new loop if none has begun."""
        with self._lock:
            loop = self._loop
        if loop is None:
            return asyncio.run(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(seconds)

    def close(self) -> None:
        """Cancel what runs and end the loop; what swallows the cancellation stays behind with the daemon thread."""
        with self._lock:
            loop = None if self._is_closed else self._loop  # the second time it may be gone
            self._is_closed = True
        if loop is not None:
            loop.call_soon_threadsafe(self._end)

    def _begin(self, coroutine: _Coroutine) -> None:
        assert self._loop is not None
        task = self._loop.create_task(coroutine.run())
        if (
            not coroutine.has_ended
        ):  # a body may have made the loop's tasks begin at once (`eager_task_factory`)
            coroutine.task = task
            self._tasks.add(task)

    def _take(self) -> None:
        with self._lock:
            self._is_woken = False
            inbox, self._inbox = self._inbox, deque()
        for action in inbox:
            action()

    def _end(self) -> None:
        assert self._loop is not None
        for task in self._tasks:
            task.cancel()
        self._loop.create_task(self._stop_when_empty(set(self._tasks)))

    async def _stop_when_empty(self, tasks: set[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks)
        assert self._loop is not None
        self._loop.stop()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._thread_id = threading.get_ident()
        try:
            loop.run_forever()
            self._thread_id = None
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

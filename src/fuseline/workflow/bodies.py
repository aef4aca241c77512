"""Where the bodies of a run in this process execute: plain functions on threads, `async` ones on a loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.status import Status
from fuseline.workflow.context import StepContext
from fuseline.workflow.invoke import Invocation, crash_report


@dataclass(eq=False, slots=True)
class Attempt:
    """One attempt that is executed here. `is_stopped`: somebody has told it to stop."""

    assignment: StepAssignment
    context: StepContext
    invocation: Invocation
    is_stopped: bool = False
    task: asyncio.Task[StepReport] | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, int]:
        """(step name, attempt)."""
        return self.assignment.step_name, self.assignment.attempt

    def execute(self) -> StepReport:
        """On the thread of whoever started the run: Ctrl-C is meant for them."""
        try:
            return self.invocation.run_sync()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return crash_report(self.assignment, error)

    def execute_on_thread(self) -> StepReport:
        """On a thread of ours."""
        try:
            return self.invocation.run_sync()
        except BaseException as error:  # noqa: BLE001 - it would end a thread that somebody waits for; the report tells it
            return crash_report(self.assignment, error)

    async def execute_async(self) -> StepReport:
        """On a loop."""
        try:
            return await self.invocation.run_async()
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop; the report tells it
            if self.is_stopped and isinstance(error, asyncio.CancelledError):
                return cancelled_report(self.assignment)
            return crash_report(self.assignment, error)


def cancelled_report(assignment: StepAssignment) -> StepReport:
    """The attempt was told to stop, and stopped."""
    return StepReport(
        workflow_id=assignment.workflow_id,
        instance_id=assignment.instance_id,
        step_name=assignment.step_name,
        attempt=assignment.attempt,
        state=Status.CANCELLED,
    )


class Bodies:
    """Starts attempts at once, each on a thread or as a task; how many is for the caller to bound.

    `done(attempt, report)` is called on that thread or loop. `loop`: where async bodies run; by default a loop of our own
    on a thread of its own, which starts with the first of them.
    """

    def __init__(
        self, done: Callable[[Attempt, StepReport], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._done = done
        self._context = contextvars.copy_context()
        self._threads = _DaemonThreads()
        self._loop = loop
        self._own_loop: _LoopThread | None = None

    def start(self, attempt: Attempt) -> None:
        """Execute it."""
        if attempt.invocation.is_async:
            self._get_loop().call_soon_threadsafe(self._begin, attempt)
        else:
            context = self._context.copy()
            self._threads.start(
                lambda: context.run(attempt.execute_on_thread), lambda report: self._done(attempt, report)
            )

    def stop(self, attempt: Attempt) -> None:
        """Tell it that nobody waits any more: a coroutine is cancelled, a function has to look at its context."""
        attempt.is_stopped = True
        attempt.context.cancel()
        if attempt.invocation.is_async:
            self._get_loop().call_soon_threadsafe(_cancel, attempt)

    def await_(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the bodies, from another thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._get_loop()).result()

    def close(self) -> None:
        """Let idle threads and our own loop end; what runs on has daemon threads, and holds up nothing."""
        self._threads.close()
        if self._own_loop is not None:
            self._own_loop.close()

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._own_loop = _LoopThread()
            self._loop = self._own_loop.loop
        return self._loop

    def _begin(self, attempt: Attempt) -> None:
        """On the loop."""
        if attempt.is_stopped:
            self._done(attempt, cancelled_report(attempt.assignment))
            return
        loop = asyncio.get_running_loop()
        attempt.task = loop.create_task(attempt.execute_async(), context=self._context.copy())
        attempt.task.add_done_callback(lambda task: self._ended(attempt, task))

    def _ended(self, attempt: Attempt, task: asyncio.Task[StepReport]) -> None:
        # Cancelled before its first step, it never came to say so itself.
        report = cancelled_report(attempt.assignment) if task.cancelled() else task.result()
        self._done(attempt, report)


def _cancel(attempt: Attempt) -> None:
    if attempt.task is not None:
        attempt.task.cancel()


_Work = tuple[Callable[[], StepReport], Callable[[StepReport], None]]


class _DaemonThreads:
    """A thread a running body, kept for the next one.

    Not `concurrent.futures`: at exit it joins its threads, and one body that sleeps for ever would keep the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def start(self, work: Callable[[], StepReport], done: Callable[[StepReport], None]) -> None:
        with self._lock:
            self._busy += 1
            new = self._busy > self._threads
            self._threads += new
            number = self._threads
        self._inbox.put((work, done))
        if new:
            threading.Thread(target=self._work, name=f"fuseline step {number}", daemon=True).start()

    def close(self) -> None:
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._inbox.put(None)

    def _work(self) -> None:
        while (item := self._inbox.get()) is not None:
            work, done = item
            report = work()
            with self._lock:
                # Before anybody hears of it: what follows finds this thread idle.
                self._busy -= 1
            done(report)
            del item, work, done, report  # its result may be large, and the next one may be long in coming


class _LoopThread:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fuseline steps' loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel what still runs, and end when that has ended; nobody waits for it."""
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._end()))

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.loop.shutdown_asyncgens()
        self.loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

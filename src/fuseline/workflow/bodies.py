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
from fuseline.workflow.loops import OwnLoop


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

    `done(attempt, report)` is called on that thread or loop. `loop`: where async bodies run; by default a loop of our own,
    which is made for the first of them. `may_drive`: that loop may run on the caller's thread, in `drive`; otherwise, and
    for good from `let_go` on, it runs on a thread of its own. `context`: the caller's, of which every body gets a copy.
    """

    def __init__(
        self,
        done: Callable[[Attempt, StepReport], None],
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        may_drive: bool = False,
    ) -> None:
        self._done = done
        self.context = contextvars.copy_context()
        self._threads = _DaemonThreads()
        self._loop = loop
        self._may_drive = may_drive
        self._own_loop: OwnLoop | None = None
        self._interrupt: KeyboardInterrupt | None = None

    @property
    def may_stand_still(self) -> bool:
        """Whether nothing in our own loop would go on while the caller's thread does something else."""
        return self._own_loop is None or self._own_loop.is_quiet or not self._own_loop.is_here

    def start(self, attempt: Attempt) -> None:
        """Execute it."""
        if not attempt.invocation.is_async:
            context = self.context.copy()
            self._threads.start(
                lambda: context.run(attempt.execute_on_thread), lambda report: self._done(attempt, report)
            )
            return
        loop = self._get_loop()
        if self._own_loop is not None and self._own_loop.is_here:
            self._begin(attempt, loop)
        else:
            loop.call_soon_threadsafe(self._begin, attempt, loop)

    def start_here(self, attempt: Attempt) -> StepReport | None:
        """Start an async one, and execute it on the caller's thread until it waits for something.

        The report of one that never did. None: it goes on, or it has been started elsewhere.
        """
        loop = self._get_loop()
        own = self._own_loop
        if own is None or not own.is_here:
            loop.call_soon_threadsafe(self._begin, attempt, loop)
            return None
        task = attempt.task = own.begin(self._execute(attempt), self.context.copy())
        self._raise_interrupt()
        if task.done():
            return _report_of(attempt, task)
        task.add_done_callback(lambda task: self._ended(attempt, task))
        return None

    def stop(self, attempt: Attempt) -> None:
        """Tell it that nobody waits any more: a coroutine is cancelled, a function has to look at its context."""
        attempt.is_stopped = True
        attempt.context.cancel()
        if attempt.invocation.is_async:
            self._get_loop().call_soon_threadsafe(_cancel, attempt)

    def await_(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the bodies, from the caller's thread, and wait for it."""
        loop = self._get_loop()
        if self._own_loop is not None:
            return self._own_loop.run(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    # ---- the loop of our own

    def drive(self, is_over: Callable[[], bool]) -> None:
        """Run it on the caller's thread until `is_over`, which is asked when a body has ended; no-op if it is elsewhere."""
        if self._own_loop is not None and self._own_loop.is_here:
            self._own_loop.drive(is_over)
            self._raise_interrupt()

    def wake(self) -> None:
        """From any thread: `is_over` is to be asked."""
        if (own := self._own_loop) is not None:
            own.wake()

    def let_go(self) -> None:
        """The caller's thread has something else to wait for: bodies go on without it."""
        if not self.may_stand_still and self._own_loop is not None:
            self._own_loop.let_go()

    def close(self) -> None:
        """Let idle threads and our own loop end; what runs on has daemon threads, and holds up nothing."""
        self._threads.close()
        if self._own_loop is not None:
            self._own_loop.close()
        # The loop may be another run's by now; and without a circle nobody has to look for what a run leaves.
        self._own_loop, self._done = None, _nobody

    # ---- inside

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._own_loop = OwnLoop.take()
            self._loop = self._own_loop.loop
            if not self._may_drive:
                self._own_loop.let_go()
        return self._loop

    def _begin(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop."""
        if attempt.is_stopped:
            self._done(attempt, cancelled_report(attempt.assignment))
            return
        attempt.task = loop.create_task(self._execute(attempt), context=self.context.copy())
        attempt.task.add_done_callback(lambda task: self._ended(attempt, task))

    async def _execute(self, attempt: Attempt) -> StepReport:
        """On the loop."""
        try:
            return await attempt.invocation.run_async()
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop; the report tells it
            if attempt.is_stopped and isinstance(error, asyncio.CancelledError):
                return cancelled_report(attempt.assignment)
            own = self._own_loop
            if isinstance(error, KeyboardInterrupt) and own is not None and own.is_here:
                self._interrupt = error  # it is meant for the caller, on whose thread this is
            return crash_report(attempt.assignment, error)

    def _ended(self, attempt: Attempt, task: asyncio.Task[StepReport]) -> None:
        self._done(attempt, _report_of(attempt, task))
        if (own := self._own_loop) is not None:
            own.pause()

    def _raise_interrupt(self) -> None:
        if self._interrupt is not None:
            raise self._interrupt


def _nobody(_attempt: Attempt, _report: StepReport) -> None:
    """The run has ended without it."""


def _report_of(attempt: Attempt, task: asyncio.Task[StepReport]) -> StepReport:
    # Cancelled before its first step, it never came to say so itself.
    return cancelled_report(attempt.assignment) if task.cancelled() else task.result()


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

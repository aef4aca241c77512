"""The loop of a run in this process. What comes next is the ledger's decision, as for every broker.

One thread writes down what happens. It sleeps until a body ends or the next timer is due, takes all that has arrived into
one decision, and starts what came of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from fuseline.clock import Clock
from fuseline.engine.effects import Notice, Verdict
from fuseline.engine.events import (
    CancelRequested,
    Event,
    RunDuePassed,
    StepClaimed,
    StepDuePassed,
    StepExpired,
    StepReported,
)
from fuseline.errors import FuselineError
from fuseline.ledger import Outcome, RunBook
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.status import RunStatus, Status
from fuseline.workflow.bind import Check
from fuseline.workflow.bodies import Attempt, Bodies, cancelled_report
from fuseline.workflow.context import StepContext
from fuseline.workflow.invoke import Invocation
from fuseline.workflow.shared import Shared
from fuseline.workflow.timers import Due, Timer, Timers
from fuseline.workflow.trace import Trace

if TYPE_CHECKING:
    from fuseline.workflow.workflow import Workflow

log = logging.getLogger(__name__)

FUNCTIONS_AT_ONCE: Final = 32
COROUTINES_AT_ONCE: Final = 1000
BATCH: Final = 500
STOP_GRACE_SECONDS: Final = 1.0
"""How long bodies that were told to stop are waited for; then they are left to themselves."""

_Key = tuple[str, int]


class Scheduler:
    """Executes one run. `is_watched`: others may look at the storage, so that it has to say at once what runs."""

    def __init__(
        self,
        workflow: Workflow,
        book: RunBook,
        instance_id: str,
        *,
        clock: Clock,
        max_workers: int | None,
        loop: asyncio.AbstractEventLoop | None,
        may_execute_here: bool,
        is_watched: bool,
    ) -> None:
        self._workflow = workflow
        self._book = book
        self._instance_id = instance_id
        self._clock = clock
        self._may_execute_here = may_execute_here and not is_watched
        self._bodies = Bodies(self._ended, loop, may_drive=self._may_execute_here)
        self._shared = Shared()
        self._trace: Trace | None = None
        self._limits = (FUNCTIONS_AT_ONCE, COROUTINES_AT_ONCE)
        self._limit = sum(self._limits)
        if max_workers is not None:
            self._limits, self._limit = (max_workers, max_workers), max_workers
        # [0]: plain functions, [1]: async ones
        self._ready: tuple[deque[StepAssignment], deque[StepAssignment]] = (deque(), deque())
        self._executing: dict[_Key, Attempt] = {}
        self._counts = [0, 0]
        # Whose timers may have come too early, as the wall clock was set back: they are armed again then.
        self._retrying: list[str] = []
        self._is_run_due = False
        self._timers = Timers(clock)
        self._inbox: SimpleQueue[tuple[Attempt, StepReport] | None] = SimpleQueue()
        self._status: RunStatus | None = None

    def cancel(self) -> None:
        """From another thread: end the run as CANCELLED."""
        self._inbox.put(None)
        self._bodies.wake()

    def execute(self, inputs: dict[str, Any], trace: Trace | None) -> RunStatus:
        """Dispatch the run and stay until it has ended. A KeyboardInterrupt cancels it and comes through."""
        self._trace = trace
        try:
            self._carry_out(self._book.begin(inputs))
            self._arm_run()
            while self._status is None:
                self._start_ready()
                if self._status is None:
                    self._happened(self._wait())
            self._leave()
            return self._status
        except BaseException:
            self._give_up()
            raise
        finally:
            self._shared.end(self._bodies.await_)
            self._bodies.close()

    # ---- deciding

    def _happened(self, events: Sequence[Event]) -> list[Outcome]:
        return self._carry_out(self._book.apply(events)) if events else []

    def _carry_out(self, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            self._note(outcome.notices)
            for assignment in outcome.assignments:
                self._enqueue(assignment, outcome.expiry_seconds.get(assignment.step_name))
            if outcome.stop is not None:
                self._stop(outcome.stop.spare)
            if outcome.finished is not None:
                self._status = outcome.finished
        while self._retrying:
            self._arm_retry(self._retrying.pop())
        if self._is_run_due:
            self._is_run_due = False
            if self._status is None:
                self._arm_run()
        return outcomes

    def _note(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if notice.kind == "step_failed" and notice.detail.get("will_retry") and notice.step is not None:
                self._retrying.append(notice.step)
            if self._trace is not None:
                self._trace.write(notice.kind, notice.step, notice.attempt, **notice.detail)

    def _enqueue(self, assignment: StepAssignment, expiry_seconds: float | None) -> None:
        key = (assignment.step_name, assignment.attempt)
        is_async = self._workflow.bound_step(assignment.step_name).hooks.is_async
        self._ready[is_async].append(assignment)
        if expiry_seconds is not None:
            self._timers.arm(expiry_seconds, Timer(Due.EXPIRY, *key))

    def _stop(self, spare: frozenset[str]) -> None:
        """What waits is cancelled by now; what runs is told to stop."""
        for queue in self._ready:
            kept = [assignment for assignment in queue if assignment.step_name in spare]
            queue.clear()
            queue.extend(kept)
        stopped = [
            attempt
            for attempt in self._executing.values()
            if attempt.assignment.step_name not in spare and not attempt.is_stopped
        ]
        for attempt in stopped:
            self._bodies.stop(attempt)
        if stopped:
            self._timers.arm(STOP_GRACE_SECONDS, Timer(Due.GRACE))

    # ---- starting

    def _start_ready(self) -> None:
        while (assignment := self._only_one()) is not None:
            self._execute_here(assignment)
        chosen: list[StepAssignment] = []
        for kind, queue in enumerate(self._ready):
            limit, total = self._limits[kind], len(self._executing)
            while queue and self._counts[kind] < limit and total + len(chosen) < self._limit:
                self._counts[kind] += 1
                chosen.append(queue.popleft())
        if not chosen:
            return
        claims = [StepClaimed(one.step_name, one.attempt, self._instance_id) for one in chosen]
        for assignment, outcome in zip(chosen, self._happened(claims), strict=True):
            attempt = self._attempt(assignment)
            if outcome.verdict is not Verdict.ACCEPTED:
                self._counts[attempt.invocation.is_async] -= 1
                continue
            self._executing[attempt.key] = attempt
            if assignment.timeout_seconds is not None:
                self._timers.arm(assignment.timeout_seconds, Timer(Due.TIMEOUT, *attempt.key))
            self._bodies.start(attempt)

    def _only_one(self) -> StepAssignment | None:
        """The step that is ready while nothing else is under way or waits for a time: it needs no other thread."""
        functions, coroutines = self._ready
        if (
            not self._may_execute_here
            or len(functions) + len(coroutines) != 1
            or self._executing
            or not self._inbox.empty()
            or (functions and not self._bodies.may_stand_still)
        ):
            return None
        queue = functions or coroutines
        if queue[0].timeout_seconds is not None or (coroutines and self._trace is not None):
            return None
        if self._timers:
            # With nothing under way, those of attempts are over, and the one that is ready is about to start.
            self._timers.keep((Due.RETRY, Due.RUN))
        return None if self._timers else queue.popleft()

    def _execute_here(self, assignment: StepAssignment) -> None:
        """Its start is recorded together with its end, as nobody looks in between; but that of one that takes its time."""
        attempt = self._attempt(assignment)
        report: StepReport | None
        if attempt.invocation.is_async:
            report = self._bodies.start_here(attempt)
            if report is None:
                self._counts[1] += 1
                self._executing[attempt.key] = attempt
                self._happened([StepClaimed(*attempt.key, self._instance_id)])
                return
        else:
            if self._trace is not None:
                self._trace.write("step_started", *attempt.key, worker_id=self._instance_id)
            report = self._bodies.context.copy().run(attempt.execute)
        self._happened([_reported(report, self._instance_id)])

    def _attempt(self, assignment: StepAssignment) -> Attempt:
        context = StepContext(assignment, clock=self._clock)
        on_check = None if self._trace is None else _CheckTracer(self._trace, assignment)
        invocation = Invocation(
            self._workflow, assignment, context, shared=self._shared, clock=self._clock, on_check=on_check
        )
        return Attempt(assignment, context, invocation)

    # ---- waiting

    def _ended(self, attempt: Attempt, report: StepReport) -> None:
        """On the body's thread."""
        self._inbox.put((attempt, report))

    def _wait(self) -> list[Event]:
        """What happens next: all that has arrived, or all that is due."""
        wait = self._timers.wait_seconds()
        if wait is None and not self._executing:
            raise FuselineError(f"run {self._instance_id} waits for nothing and has not ended")
        if wait is None and not self._counts[0]:
            self._bodies.drive(lambda: not self._inbox.empty())
        else:
            # A coroutine that blocks must not hold up functions, nor the end of its own time.
            self._bodies.let_go()
        try:
            item = self._inbox.get(timeout=wait)
        except Empty:
            return self._take_due()
        events: list[Event] = []
        while True:
            if item is None:
                events.append(CancelRequested())
            elif (event := self._take_report(*item)) is not None:
                events.append(event)
            if len(events) >= BATCH:
                break
            try:
                item = self._inbox.get_nowait()
            except Empty:
                break
        # Also where bodies end without a pause; after the reports, so that what has ended in time has.
        return events + self._take_due()

    def _take_report(self, attempt: Attempt, report: StepReport) -> Event | None:
        """None for one that was given up meanwhile."""
        if self._forget(attempt.key) is not attempt:
            return None
        return _reported(report, self._instance_id)

    def _forget(self, key: _Key) -> Attempt | None:
        attempt = self._executing.pop(key, None)
        if attempt is not None:
            self._counts[attempt.invocation.is_async] -= 1
        return attempt

    # ---- timers

    def _arm_run(self) -> None:
        row = self._book.run_row()
        if row is not None and row.due_at is not None:
            self._timers.arm(max(0.001, row.due_at - self._clock.now()), Timer(Due.RUN))

    def _arm_retry(self, step: str) -> None:
        """The pause is in the step's row."""
        row = self._book.step_row(step)
        if row is not None and row.status is Status.PENDING and row.due_at is not None:
            self._timers.arm(max(0.001, row.due_at - self._clock.now()), Timer(Due.RETRY, step, row.attempt))

    def _take_due(self) -> list[Event]:
        events: list[Event] = []
        for timer in self._timers.take_due():
            if timer.kind is Due.RETRY:
                events.append(StepDuePassed(timer.step))
                self._retrying.append(timer.step)
            elif timer.kind is Due.RUN:
                events.append(RunDuePassed())
                self._is_run_due = True
            elif timer.kind is Due.EXPIRY:
                events += self._expire((timer.step, timer.attempt))
            elif timer.kind is Due.TIMEOUT:
                events += self._time_out((timer.step, timer.attempt))
            else:
                events += self._end_grace()
        return events

    def _expire(self, key: _Key) -> list[Event]:
        for queue in self._ready:
            for assignment in queue:
                if (assignment.step_name, assignment.attempt) == key:
                    queue.remove(assignment)
                    return [StepExpired(*key)]
        return []

    def _time_out(self, key: _Key) -> list[Event]:
        attempt = self._forget(key)
        if attempt is None:
            return []
        self._bodies.stop(attempt)
        return [_reported(attempt.invocation.timed_out(), self._instance_id)]

    def _end_grace(self) -> list[Event]:
        stopped = [attempt for attempt in self._executing.values() if attempt.is_stopped]
        for attempt in stopped:
            self._forget(attempt.key)
        return [_reported(cancelled_report(one.assignment), self._instance_id) for one in stopped]

    # ---- the end

    def _leave(self) -> None:
        """The run has ended. Bodies that were told to stop get their time."""
        if self._executing:
            self._bodies.let_go()
        end = self._clock.monotonic() + STOP_GRACE_SECONDS
        while self._executing and (left := end - self._clock.monotonic()) > 0:
            try:
                item = self._inbox.get(timeout=left)
            except Empty:
                return
            if item is not None:
                self._forget(item[0].key)

    def _give_up(self) -> None:
        """Something came through that is no business of the run's: Ctrl-C, or a storage that is away."""
        for attempt in self._executing.values():
            self._bodies.stop(attempt)
        if self._status is None:
            try:
                self._book.apply([CancelRequested()])
            except FuselineError as error:
                log.warning(
                    "run %s is given up, and could not be recorded as such: %s", self._instance_id, error
                )


@dataclass(frozen=True, slots=True)
class _CheckTracer:
    trace: Trace
    assignment: StepAssignment

    def __call__(self, check: Check, holds: bool) -> None:
        self.trace.write(
            "condition_check",
            self.assignment.step_name,
            self.assignment.attempt,
            parameter=check.parameter,
            source=check.source_name,
            holds=holds,
        )


def _reported(report: StepReport, holder: str) -> StepReported:
    return StepReported(
        report.step_name,
        report.attempt,
        report.state,
        result=report.result,
        action=report.action,
        error=report.error,
        decision=report.decision,
        holder=holder,
        started_at=report.started_at,
    )

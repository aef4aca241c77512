"""One attempt of one step, from its assignment to its report: what workers and runs in this process share.

The execution timeout is the caller's: it cancels the coroutine, or stops waiting for the thread.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fuseline.clock import Clock, SystemClock
from fuseline.errors import MessageTooLargeError
from fuseline.model.messages import Cause, PolicyDecision, StepAssignment, StepError, StepReport
from fuseline.model.status import Status
from fuseline.workflow.bind import BoundStep, Call, Check, bind
from fuseline.workflow.context import StepContext
from fuseline.workflow.convert import MAX_RESULT_BYTES, ParameterError, ResultError, result_to_json
from fuseline.workflow.failure import step_error, timeout_error, timeout_of
from fuseline.workflow.shared import Shared
from fuseline.workflow.step import Branch

if TYPE_CHECKING:
    from fuseline.workflow.workflow import Workflow

_CLOCK = SystemClock()
_INVALID = (ParameterError, ResultError, MessageTooLargeError)

OnCheck = Callable[[Check, bool], None]
"""Told of each condition that was asked, and whether it held."""


class Invocation:
    """One attempt. `is_async` says whether it needs a loop: then await `run_async()`, else call `run_sync()`, once.

    Both return a report, however the step's own code behaves; `result_text` is then the JSON of its result, if it was made.
    What ends a thread, a task or a process passes through:
    `KeyboardInterrupt`, `SystemExit`, `asyncio.CancelledError` are for the caller to deal with.
    """

    __slots__ = (
        "_assignment",
        "_bound",
        "_clock",
        "_context",
        "_max_result_bytes",
        "_on_check",
        "_shared",
        "_started_at",
        "result_text",
    )

    def __init__(
        self,
        workflow: Workflow,
        assignment: StepAssignment,
        context: StepContext,
        *,
        shared: Shared | None = None,
        clock: Clock = _CLOCK,
        max_result_bytes: int = MAX_RESULT_BYTES,
        on_check: OnCheck | None = None,
    ) -> None:
        """Raises `UnknownStepError` when the workflow has no such step.

        `shared`: what the steps' hooks share; by default, one for this process and workflow.
        """
        self._bound: BoundStep = workflow.bound_step(assignment.step_name)
        self._assignment = assignment
        self._context = context
        self._shared = shared or workflow.shared
        self._clock = clock
        self._max_result_bytes = max_result_bytes
        self._on_check = on_check
        self._started_at: float | None = None
        self.result_text: bytes | None = None

    @property
    def is_async(self) -> bool:
        """Whether the body, a hook or a condition is `async`."""
        return self._bound.hooks.is_async

    def run_sync(self) -> StepReport:
        """Execute on this thread; an async step on a loop of its own."""
        if self.is_async:
            return asyncio.run(self.run_async())
        self._started_at = self._clock.now()
        try:
            call = bind(self._bound, self._assignment, self._context)
            for check in call.checks:
                if not self._told(check, check.ask()):
                    return self._report(Status.SKIPPED)
            if self._bound.is_plain:
                return self._succeed(_call(self._bound, call))
            return self._succeed(self._execute(call))
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            return self._fail(error)

    async def run_async(self) -> StepReport:
        """Execute on this loop; a step without anything async on a thread, so that it blocks nobody."""
        if not self.is_async:
            return await asyncio.to_thread(self.run_sync)
        self._started_at = self._clock.now()
        try:
            call = bind(self._bound, self._assignment, self._context)
            for check in call.checks:
                if not self._told(check, await _value_of(check.ask())):
                    return self._report(Status.SKIPPED)
            bound = self._bound
            if bound.is_plain and bound.is_async_body:
                return self._succeed(await bound.body(*call.args, **call.kwargs))
            return self._succeed(await self._execute_async(call))
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            return self._fail(error)

    @property
    def has_opinion(self) -> bool:
        """Whether somebody is to be asked, or told, about a failure."""
        return bool(self._bound.hooks.on_failure or self._bound.hooks.on_step_failure)

    def timed_out(self) -> StepReport:
        """The report of an attempt that ran longer than its timeout, in place of the one that may still come.

        The step's policies are asked as about any other failure; they see a `TimeoutError`. From any thread.
        """
        timeout = timeout_of(self._assignment)
        decision = self._bound.hooks.fail(self._bound.step, timeout, self._assignment.attempt)
        return self._report(Status.FAILED, error=timeout_error(timeout), decision=decision)

    # ---- the body, with what goes around it

    def _execute(self, call: Call) -> Any:
        bound, hooks = self._bound, self._bound.hooks
        hooks.start(bound.step, self._assignment.attempt)
        execute = partial(self._with_hooks, call) if hooks.has_class_hooks else partial(_call, bound, call)
        for policy in reversed(hooks.around):
            execute = partial(policy.execute, bound.step, execute)
        return execute()

    def _with_hooks(self, call: Call) -> Any:
        step, shared = self._bound.step, self._shared
        shared.begin(step)
        setup_result = step.setup(shared.values)
        call.set_up(setup_result)
        result = None
        try:
            result = _call(self._bound, call)
        finally:
            step.teardown(shared.values, setup_result, result)
        return result

    async def _execute_async(self, call: Call) -> Any:
        bound, hooks = self._bound, self._bound.hooks
        hooks.start(bound.step, self._assignment.attempt)
        execute: Callable[[], Awaitable[Any]] = partial(
            self._with_hooks_async if hooks.has_class_hooks else self._call_async, call
        )
        for policy in reversed(hooks.around):
            execute = partial(policy.execute_async, bound.step, execute)
        return await execute()

    async def _with_hooks_async(self, call: Call) -> Any:
        step, shared = self._bound.step, self._shared
        await shared.begin_async(step)
        setup_result = await _value_of(step.setup(shared.values))
        call.set_up(setup_result)
        result = None
        try:
            result = await self._call_async(call)
        finally:
            await _value_of(step.teardown(shared.values, setup_result, result))
        return result

    async def _call_async(self, call: Call) -> Any:
        """A plain body among async hooks runs on a thread: it would block the loop's other steps."""
        if self._bound.is_async_body:
            return await _call(self._bound, call)
        return await asyncio.to_thread(_call_for_a_future, self._bound, call)

    # ---- reports

    def _told(self, check: Check, answer: Any) -> bool:
        holds = bool(answer)
        if self._on_check is not None:
            self._on_check(check, holds)
        return holds

    def _succeed(self, result: Any) -> StepReport:
        bound = self._bound
        action, value, converter = None, result, bound.result
        if isinstance(result, Branch):
            # The annotation of the function speaks of what it returns without branching.
            action, value, converter = result.action, result.value, None
        plain, text = result_to_json(
            value, converter, f"step {bound.name!r}: the result", self._max_result_bytes
        )
        if not bound.is_plain:
            bound.hooks.succeed(bound.step, result, self._assignment.attempt)
        report = self._report(Status.SUCCEEDED, result=plain, action=action)
        self.result_text = text  # not before: what fails after all has no result
        return report

    def _fail(self, error: Exception) -> StepReport:
        bound = self._bound
        cause = Cause.INVALID if isinstance(error, _INVALID) else Cause.ERROR
        decision = bound.hooks.fail(bound.step, error, self._assignment.attempt)
        return self._report(Status.FAILED, error=step_error(error, cause), decision=decision)

    def _report(
        self,
        state: Status,
        *,
        result: Any = None,
        action: str | None = None,
        error: StepError | None = None,
        decision: PolicyDecision | None = None,
    ) -> StepReport:
        assignment = self._assignment
        values = {
            "workflow_id": assignment.workflow_id,
            "instance_id": assignment.instance_id,
            "step_name": assignment.step_name,
            "state": state,
            "result": result,
            "attempt": assignment.attempt,
            "action": action,
            "error": error,
            "decision": decision,
            "worker_id": None,
            "started_at": self._started_at,
            "finished_at": self._clock.now(),
        }
        # All of it has been checked, but for an action, which a body makes up.
        return StepReport.of_checked(values) if action is None else StepReport(**values)


def crash_report(assignment: StepAssignment, error: BaseException, cause: Cause = Cause.ERROR) -> StepReport:
    """The report of an attempt that raised what passes through an `Invocation`, such as `SystemExit`."""
    return StepReport(
        workflow_id=assignment.workflow_id,
        instance_id=assignment.instance_id,
        step_name=assignment.step_name,
        attempt=assignment.attempt,
        state=Status.FAILED,
        error=step_error(error, cause),
    )


def _call(bound: BoundStep, call: Call) -> Any:
    return bound.body(*call.args, **call.kwargs)


def _call_for_a_future(bound: BoundStep, call: Call) -> Any:
    try:
        return _call(bound, call)
    except StopIteration as error:
        # No future of asyncio takes it: before Python 3.12 whoever awaits one would wait for ever.
        raise RuntimeError("the step raised StopIteration") from error


async def _value_of(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer

"""A policy of one's own is told of an attempt that ran out of time as of any other failure, and may decide."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fuseline import (
    Depends,
    FailureDecision,
    RunFailed,
    Status,
    Step,
    StepContext,
    StepPolicy,
    TimeoutPolicy,
    Workflow,
    WorkflowPolicy,
    step,
)
from fuseline.model import Cause, RunStatus, RunView, StepAssignment
from fuseline.workflow.invoke import Invocation


class SkipsWhatIsLate(StepPolicy):
    name = "test_skips_what_is_late"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> FailureDecision | None:
        return FailureDecision.SKIP if isinstance(exc, TimeoutError) else None


class TriesOnceMore(StepPolicy):
    name = "test_tries_once_more"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> FailureDecision | None:
        return FailureDecision.RETRY if attempt == 1 else None


class Watches(WorkflowPolicy):
    name = "test_watches_timeouts"

    def __init__(self) -> None:
        self._seen: list[tuple[str, int]] = []

    def on_step_failure(self, step: Step, exc: BaseException, attempt: int) -> None:
        self._seen.append((str(exc), attempt))


def late(is_async: bool, *policies: StepPolicy) -> Step:
    limits = [*policies, TimeoutPolicy(0.05)]

    @step(name="late", policies=limits)
    def plain(ctx: StepContext) -> None:
        ctx.wait_cancelled(30)

    @step(name="late", policies=limits)
    async def waiting() -> None:
        await asyncio.sleep(30)

    return waiting if is_async else plain


@pytest.mark.parametrize("is_async", [False, True])
def test_a_policy_may_skip_what_is_late(is_async: bool) -> None:
    slow = late(is_async, SkipsWhatIsLate())

    @step
    def after(value: Any = Depends(slow)) -> str:
        return f"went on with {value}"

    assert Workflow(outputs=[after]).run() == "went on with None"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_policy_may_have_it_tried_again(is_async: bool) -> None:
    watcher = Watches()
    flow = Workflow(outputs=[late(is_async, TriesOnceMore())], policies=[watcher])
    with pytest.raises(RunFailed, match="ran longer than") as failed:
        flow.run()
    view = failed.value.run
    assert isinstance(view, RunView)
    assert (view.state, view.steps["late"].attempt) == (RunStatus.FAILED, 2)
    assert view.error is not None
    assert view.error.cause is Cause.TIMEOUT
    assert watcher._seen == [(f"attempt {n} ran longer than 0.05 s", n) for n in (1, 2)]


def test_an_invocation_reports_that_it_timed_out() -> None:
    """For whoever enforces the timeout; the body may run on."""
    flow = Workflow(outputs=[late(False, SkipsWhatIsLate())], workflow_id="flow")
    assignment = StepAssignment(
        workflow_id="flow",
        instance_id="i",
        step_name="late",
        attempt=3,
        assigned_at=1.0,
        expires_at=2.0,
        timeout_seconds=0.05,
    )
    context = StepContext.of(assignment)
    invocation = Invocation(flow, assignment, context)
    body = threading.Thread(target=invocation.run_sync)
    body.start()
    report = invocation.timed_out()
    context.cancel()
    body.join()
    assert report.state is Status.FAILED
    assert report.error is not None
    assert (report.error.type, report.error.cause) == ("StepTimeout", Cause.TIMEOUT)
    assert report.error.types[:2] == ["StepTimeout", "TimeoutError"]
    assert report.error.traceback is None
    assert report.decision is not None
    assert report.decision.decision is FailureDecision.SKIP

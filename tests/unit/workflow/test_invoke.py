"""`Invocation`: one attempt from its assignment to its report, as workers execute it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fuseline import (
    Branch,
    Depends,
    FailureDecision,
    Status,
    Step,
    StepContext,
    StepPolicy,
    Workflow,
    step,
)
from fuseline.clock import ManualClock
from fuseline.errors import UnknownStepError
from fuseline.model import Cause, StepAssignment, StepReport
from fuseline.workflow.failure import MAX_TEXT, step_error
from fuseline.workflow.invoke import Invocation, crash_report
from fuseline.workflow.shared import Shared


class Skips(StepPolicy):
    name = "test_invoke_skips"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> tuple[FailureDecision, float]:
        return FailureDecision.RETRY, 2.5


def source() -> int:
    return 1


@step
def plain(n: int = Depends(source), extra: str = "") -> Any:
    if extra == "branch":
        return Branch("many", n)
    return n + 1


@step
async def waiting(n: int = Depends(source)) -> int:
    await asyncio.sleep(0)
    return n + 1


@step(policies=[Skips()])
def broken() -> None:
    raise KeyError("gone")


@step
def conditional(n: int = Depends(source, condition=lambda n: n > 5)) -> int:
    return n


flow = Workflow(outputs=[plain, waiting, broken, conditional], workflow_id="flow")


def assignment(step_name: str, results: dict[str, Any] | None = None, **inputs: Any) -> StepAssignment:
    return StepAssignment(
        workflow_id="flow",
        instance_id="i1",
        step_name=step_name,
        attempt=2,
        payload={"workflow_inputs": inputs, "results": {"source": 1} if results is None else results},
        assigned_at=1.0,
        expires_at=61.0,
    )


def invocation(of: StepAssignment, **options: Any) -> Invocation:
    return Invocation(flow, of, StepContext.of(of), **options)


def test_a_report_says_how_the_attempt_ended_and_when() -> None:
    one = invocation(assignment("plain"), clock=ManualClock(now=7.0))
    assert one.is_async is False
    assert one.run_sync() == StepReport(
        workflow_id="flow",
        instance_id="i1",
        step_name="plain",
        attempt=2,
        state=Status.SUCCEEDED,
        result=2,
        started_at=7.0,
        finished_at=7.0,
    )


def test_a_branch_is_an_action_and_a_result() -> None:
    report = invocation(assignment("plain", extra="branch")).run_sync()
    assert (report.action, report.result) == ("many", 1)


def test_an_async_step_is_awaited_or_runs_on_a_loop_of_its_own() -> None:
    assert invocation(assignment("waiting")).is_async is True
    assert invocation(assignment("waiting")).run_sync().result == 2
    assert asyncio.run(invocation(assignment("waiting")).run_async()).result == 2


def test_a_plain_step_that_is_awaited_blocks_no_loop() -> None:
    threads: list[threading.Thread] = []
    workflow = Workflow(outputs=[step(name="s")(lambda: threads.append(threading.current_thread()))])
    of = assignment("s")
    report = asyncio.run(Invocation(workflow, of, StepContext.of(of)).run_async())
    assert report.state is Status.SUCCEEDED
    assert threads[0] is not threading.current_thread()


def test_a_failure_is_a_report_with_the_error_as_data_and_a_policys_decision() -> None:
    report = invocation(assignment("broken")).run_sync()
    assert report.state is Status.FAILED
    assert report.error is not None
    assert report.error.type == "KeyError"
    assert report.error.types == [
        "KeyError",
        "builtins.KeyError",
        "LookupError",
        "builtins.LookupError",
        "Exception",
        "builtins.Exception",
        "BaseException",
        "builtins.BaseException",
    ]
    assert report.decision is not None
    assert (report.decision.decision, report.decision.delay_seconds) == (FailureDecision.RETRY, 2.5)


def test_a_condition_that_does_not_hold_is_a_skip() -> None:
    checks: list[Any] = []
    one = invocation(
        assignment("conditional"), on_check=lambda check, holds: checks.append((check.parameter, holds))
    )
    assert one.run_sync().state is Status.SKIPPED
    assert checks == [("n", False)]


def test_a_value_that_does_not_fit_is_invalid() -> None:
    for name in ("plain", "waiting"):
        report = invocation(assignment(name, {"source": "many"})).run_sync()
        assert report.error is not None
        assert report.error.cause is Cause.INVALID
        assert "parameter 'n' (of step 'source')" in report.error.message


def test_a_missing_input_is_invalid() -> None:
    def needs(url: str) -> str:
        return url

    workflow = Workflow(outputs=[needs])
    of = assignment("needs")
    report = Invocation(workflow, of, StepContext.of(of)).run_sync()
    assert report.error is not None
    assert report.error.cause is Cause.INVALID
    assert report.error.message == "step 'needs': parameter 'url': the run has no input of this name"


def test_an_empty_payload_is_no_problem_for_who_needs_nothing() -> None:
    of = assignment("broken").model_copy(update={"payload": {}})
    report = invocation(of).run_sync()
    assert report.error is not None
    assert report.error.type == "KeyError"


def test_a_result_over_the_limit_is_invalid() -> None:
    of = assignment("plain", {"source": 10**30})
    report = invocation(of, max_result_bytes=10).run_sync()
    assert report.error is not None
    assert (report.error.type, report.error.cause) == ("MessageTooLargeError", Cause.INVALID)


def test_an_unknown_step_is_an_error_at_once() -> None:
    with pytest.raises(UnknownStepError, match="no step 'missing'"):
        invocation(assignment("missing"))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_a_thread_or_a_task_passes_through(kind: type[BaseException]) -> None:
    @step
    def ends() -> None:
        raise kind

    @step
    async def ends_async() -> None:
        raise kind

    workflow = Workflow(outputs=[ends, ends_async])
    of = assignment("ends")
    with pytest.raises(kind):
        Invocation(workflow, of, StepContext.of(of)).run_sync()
    of = assignment("ends_async")
    coroutine = Invocation(workflow, of, StepContext.of(of)).run_async()
    with pytest.raises(kind):
        coroutine.send(None)


def test_a_crash_is_a_report_too() -> None:
    report = crash_report(assignment("plain"), SystemExit(3))
    assert report.state is Status.FAILED
    assert report.error is not None
    assert (report.error.type, report.error.message) == ("SystemExit", "3")


def test_what_hooks_share_is_the_processs_unless_somebody_brings_another() -> None:
    class Count(Step):
        def before_all(self, shared: dict[str, Any]) -> None:
            shared["begun"] = shared.get("begun", 0) + 1

        def setup(self, shared: dict[str, Any]) -> int:
            return int(shared["begun"])

        def run_step(self, begun):  # type: ignore[no-untyped-def]  # receives the value of setup
            return begun

        def after_all(self, shared: dict[str, Any]) -> None:
            ended.append(shared["begun"])

    ended: list[int] = []
    workflow = Workflow(outputs=[Count])
    of = assignment("count")

    def result(**options: Any) -> Any:
        return Invocation(workflow, of, StepContext.of(of), **options).run_sync().result

    assert [result(), result()] == [1, 1]
    own = Shared()
    assert result(shared=own) == 1
    workflow.shared.end()
    workflow.shared.end()
    assert ended == [1]
    assert result() == 1
    own.end()
    workflow.shared.end()
    assert ended == [1, 1, 1]


def test_who_comes_while_before_all_runs_waits_for_it() -> None:
    entered, release = threading.Event(), threading.Event()
    order: list[str] = []

    class Slow(Step):
        def before_all(self, shared: dict[str, Any]) -> None:
            entered.set()
            release.wait(20)
            order.append("before_all")

        def run_step(self) -> Any:
            order.append("run")

    class SlowAsync(Slow):
        async def run_step(self) -> None:
            order.append("run")

    for kind, name in ((Slow, "slow"), (SlowAsync, "slow_async")):
        entered.clear()
        release.clear()
        order.clear()
        workflow = Workflow(outputs=[kind])
        of = assignment(name)
        threads = [
            threading.Thread(target=Invocation(workflow, of, StepContext.of(of)).run_sync) for _ in range(2)
        ]
        threads[0].start()
        entered.wait(20)
        threads[1].start()
        release.set()
        for thread in threads:
            thread.join(20)
        assert order == ["before_all", "run", "run"]
        workflow.shared.end()


# ---- errors as data


def test_a_traceback_begins_in_the_steps_own_code_and_keeps_its_tail() -> None:
    report = invocation(assignment("broken")).run_sync()
    assert report.error is not None
    assert report.error.traceback is not None
    assert report.error.traceback.startswith("Traceback (most recent call last):\n")
    first = report.error.traceback.splitlines()[1]
    assert "in broken" in first

    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("x" * 20_000)
        deep(n - 1)

    with pytest.raises(ValueError, match="xxx") as caught:
        deep(3)
    data = step_error(caught.value)
    assert data.traceback is not None
    assert len(data.traceback) == MAX_TEXT + 3
    assert data.traceback.startswith("...")
    assert len(data.message) == MAX_TEXT + 3
    assert data.message.endswith("...")


def test_an_exception_that_cannot_be_told_is_told_anyway() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no comment")

    data = step_error(Mute())
    assert data.type == "Mute"
    assert data.message == "(its message cannot be had: RuntimeError)"
    assert step_error(ValueError("\ud800")).message == "\\ud800"
    assert step_error(ValueError("never raised")).traceback == "ValueError: never raised\n"

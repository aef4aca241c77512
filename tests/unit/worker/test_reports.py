"""What the worker says about a step that went wrong: honest, bounded, and always sendable (P7)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fuseline.amqp.wire import read
from fuseline.clock import ManualClock
from fuseline.model import Cause, Status, StepError, StepReport
from fuseline.worker.reports import Sealed, Sealer, cancelled, crashed, died, timed_out
from fuseline.worker.workflows import WorkflowCatalog
from fuseline.workflow import Branch, FailureDecision, Step, StepPolicy, step, workflow_from_functions
from fuseline.workflow.failure import MAX_TEXT
from tests.unit.worker.bodies import assignment, report

CLOCK = ManualClock(now=100.0)
SEALER = Sealer(CLOCK, 1_000, "w7")


def test_sealing_adds_who_and_when_and_keeps_what_is_there() -> None:
    sealed = SEALER.seal(report(assignment("a"), {"x": 1}), started_at=99.0)
    assert (sealed.report.worker_id, sealed.report.started_at, sealed.report.finished_at) == (
        "w7",
        99.0,
        100.0,
    )
    again = SEALER.seal(sealed.report.model_copy(update={"finished_at": 99.5}), started_at=1.0)
    assert (again.report.started_at, again.report.finished_at) == (99.0, 99.5)
    assert read(StepReport, again.body) == again.report == again.plain()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"rows": [1, object()]}, "result.rows[1]"),
        ([math.nan], "result[0]"),
        ("\ud800", "surrogate"),
        ({"deep": None}, "depth"),
    ],
)
def test_a_result_that_json_cannot_say_fails_the_step_and_names_the_place(result: Any, said: str) -> None:
    if isinstance(result, dict) and "deep" in result:
        for _ in range(300):
            result = [result]
    sealed = SEALER.seal(report(assignment("a"), result))
    assert sealed.report.state is Status.FAILED
    assert sealed.report.error is not None
    assert sealed.report.error.cause is Cause.INVALID
    assert said in sealed.report.error.message
    assert read(StepReport, sealed.body).error == sealed.report.error


def test_a_result_over_the_limit_fails_the_step_with_both_figures() -> None:
    """And what went with it goes too: an action would be taken, a custom decision was made about something else."""
    large = report(assignment("a"), "x" * 2_000).model_copy(update={"action": "publish"})
    sealed = SEALER.seal(large)
    assert sealed.report.error is not None
    assert sealed.report.error.type == "MessageTooLargeError"
    assert "1000" in sealed.report.error.message
    assert "2" in sealed.report.error.message
    assert sealed.report.action is None
    assert sealed.report.result is None
    assert len(sealed.body) < 1_000


def test_an_error_carries_the_names_that_a_retry_policy_may_list() -> None:
    class Strange(ConnectionError):
        pass

    error = crashed(assignment("a"), Strange("lost")).error
    assert error is not None
    assert error.type == "Strange"
    assert error.types[0] == "Strange"
    assert {"ConnectionError", "builtins.ConnectionError", "OSError", "Exception"} <= set(error.types)
    assert error.traceback is not None
    assert error.traceback.rstrip().endswith("Strange: lost")


def test_texts_are_bounded_and_can_travel() -> None:
    failed = crashed(assignment("a"), ValueError("\udcff" + "x" * 100_000))
    sealed = Sealer(CLOCK, 100_000).seal(failed)
    assert sealed.report.error is not None
    assert sealed.report.error.cause is Cause.ERROR
    assert len(sealed.report.error.message) < MAX_TEXT + 20
    assert json.loads(sealed.body)["error"]["message"].startswith("\\udcff")


def test_what_happened_is_said() -> None:
    late = timed_out(assignment("a", timeout=1.5)).error
    assert late is not None
    assert late.cause is Cause.TIMEOUT
    assert late.message == "attempt 1 ran longer than 1.5 s"
    assert late.types[:3] == ["StepTimeout", "TimeoutError", "builtins.TimeoutError"]
    for code, said in ((-9, "was killed by signal 9"), (3, "exited with code 3")):
        dead = died(assignment("a", attempt=2), code).error
        assert dead is not None
        assert dead.message == f"the process that executed attempt 2 {said}"
        assert isinstance(dead, StepError)
    assert cancelled(assignment("a")).state is Status.CANCELLED


def _executed(step: Step) -> Sealed:
    workflow = workflow_from_functions(step, workflow_id="w")
    catalog = WorkflowCatalog([workflow], SEALER)
    return catalog.execute(assignment(next(iter(workflow.to_schema().steps))))


def test_a_result_of_none_is_a_success_whatever_is_annotated() -> None:
    """Its JSON is made to look at it, and yet a report without a result says nothing of one."""

    def nothing() -> None:
        return None

    def perhaps() -> int | None:
        return None

    def branching() -> Branch:
        return Branch("aside")

    for body in (nothing, perhaps, branching):
        sealed = _executed(step(body))
        assert (sealed.report.state, sealed.report.error) == (Status.SUCCEEDED, None)
        assert read(StepReport, sealed.body) == sealed.report


def test_what_fails_after_its_result_was_looked_at_says_why() -> None:
    """The JSON of the result is no part of that report, and what the policy decided is."""

    class Refusing(StepPolicy):
        name = "refusing"

        def on_success(self, step: Step, result: Any, attempt: int) -> None:
            raise LookupError(f"{result} is not wanted")

        def on_failure(self, step: Step, exc: BaseException, attempt: int) -> FailureDecision:
            return FailureDecision.RETRY

    def body() -> list[int]:
        return [1]

    sealed = _executed(step(policies=[Refusing()])(body))
    assert sealed.report.error is not None
    assert (sealed.report.error.type, sealed.report.result) == ("LookupError", None)
    assert sealed.report.decision is not None
    assert read(StepReport, sealed.body) == sealed.report

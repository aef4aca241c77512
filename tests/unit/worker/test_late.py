"""A worker asks a step's own policies about an attempt that ran out of time, and does not wait for ever for them."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.model import Cause, FailureDecision, StepAssignment, StepReport
from fuseline.worker import Worker, asking
from tests.unit.worker import late
from tests.unit.worker.five import FiveMethods


def of(step_name: str) -> StepAssignment:
    return StepAssignment(
        workflow_id="late",
        instance_id=f"i-{step_name}",
        step_name=step_name,
        payload={"workflow_inputs": {}, "results": {}},
        assigned_at=1.0,
        expires_at=61.0,
        timeout_seconds=0.1,
    )


def work(*steps: str, executor: Any = "thread") -> dict[str, StepReport]:
    broker = FiveMethods()
    broker.add(*map(of, steps))
    Worker(broker, late.flow, executor=executor, concurrency=2).run_until_idle(0.05)
    reports = [broker.next_report() for _ in steps]
    assert {report.error.cause for report in reports if report.error is not None} == {Cause.TIMEOUT}
    return {report.step_name: report for report in reports}


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_policy_decides(executor: Any) -> None:
    for report in work("plain", "waiting", executor=executor).values():
        assert report.decision is not None
        assert report.decision.decision is FailureDecision.SKIP


def test_a_policy_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: the report goes out without its opinion."""
    monkeypatch.setattr(asking, "OPINION_SECONDS", 0.05)
    late.let_go.clear()  # the module is shared with other tests
    try:
        assert work("stuck")["stuck"].decision is None
    finally:
        late.let_go.set()

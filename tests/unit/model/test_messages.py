"""The messages between broker and worker: what they say when something is left out, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fuseline.model import (
    Cause,
    FailureDecision,
    PolicyDecision,
    RunStatus,
    RunView,
    Status,
    StepAssignment,
    StepError,
    StepReport,
    StepView,
    Trigger,
    WorkerView,
    WorkflowView,
)

REPORT = {"workflow_id": "w", "instance_id": "i", "step_name": "a", "state": "SUCCEEDED"}
ASSIGNMENT = {
    "workflow_id": "w",
    "instance_id": "i",
    "step_name": "a",
    "assigned_at": 1.0,
    "expires_at": 61.0,
}


def test_a_report_needs_to_say_which_step_ended_and_how_and_no_more() -> None:
    report = StepReport(**REPORT)
    assert report.attempt == 1  # whoever leaves it out means the first
    assert report.state is Status.SUCCEEDED
    left_out = (report.result, report.action, report.error, report.decision, report.worker_id)
    assert left_out == (None, None, None, None, None)


def test_an_assignment_without_an_attempt_is_the_first() -> None:
    assignment = StepAssignment(**ASSIGNMENT)
    assert (assignment.attempt, assignment.workflow_version, assignment.payload) == (1, "1", {})
    assert assignment.timeout_seconds is None


@pytest.mark.parametrize("state", [state for state in Status if not state.is_terminal])
def test_a_report_of_a_step_that_has_not_ended_is_refused(state: Status) -> None:
    with pytest.raises(ValidationError, match=f"a report says how a step ended: .* not {state}"):
        StepReport(**{**REPORT, "state": state})


@pytest.mark.parametrize("state", [state for state in Status if state.is_terminal])
def test_a_report_may_say_any_way_to_end(state: Status) -> None:
    assert StepReport(**{**REPORT, "state": state.value}).state is state


@pytest.mark.parametrize("field", [*REPORT])
def test_a_report_that_lacks_a_field_names_it(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        StepReport(**{key: value for key, value in REPORT.items() if key != field})


@pytest.mark.parametrize(
    ("model", "fields", "named"),
    [
        (StepReport, {**REPORT, "attempt": 0}, "attempt"),
        (StepReport, {**REPORT, "state": "DONE"}, "state"),
        (StepReport, {**REPORT, "error": {"message": "m"}}, "error.type"),
        (StepReport, {**REPORT, "error": {"type": "E", "cause": "bad luck"}}, "error.cause"),
        (StepReport, {**REPORT, "decision": {"decision": "MAYBE"}}, "decision.decision"),
        (
            StepReport,
            {**REPORT, "decision": {"decision": "RETRY", "delay_seconds": -1}},
            "decision.delay_seconds",
        ),
        (
            StepReport,
            {**REPORT, "decision": {"decision": "RETRY", "delay_seconds": float("inf")}},
            "delay_seconds",
        ),
        (
            StepReport,
            {**REPORT, "decision": {"decision": "RETRY", "delay_seconds": float("nan")}},
            "delay_seconds",
        ),
        (StepAssignment, {**ASSIGNMENT, "attempt": 0}, "attempt"),
        (StepAssignment, {**ASSIGNMENT, "payload": []}, "payload"),
    ],
)
def test_a_wrong_field_is_named(model: type[BaseModel], fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as raised:
        model(**fields)
    (error,) = raised.value.errors()
    assert ".".join(str(part) for part in error["loc"]).endswith(named)


ERROR = StepError(type="E", message="m", traceback="t", cause=Cause.TIMEOUT, types=["E", "Exception"])


@pytest.mark.parametrize(
    "message",
    [
        StepReport(
            **REPORT,
            result={"deep": [1, None, "é"]},
            attempt=3,
            action="left",
            error=ERROR,
            decision=PolicyDecision(decision=FailureDecision.RETRY, delay_seconds=2.5),
            worker_id="w1",
            started_at=1.5,
            finished_at=2.5,
        ),
        StepAssignment(
            **ASSIGNMENT, payload={"workflow_inputs": {"x": 1}, "results": {"b": [2]}}, timeout_seconds=3
        ),
        RunView(
            workflow_id="w",
            workflow_version="1",
            instance_id="i",
            state=RunStatus.FAILED,
            created_at=1.0,
            error=ERROR,
            steps={"a": StepView(name="a", state=Status.FAILED, error=ERROR)},
        ),
        WorkerView(worker_id="v", workflows=[("w", "1")], registered_at=1.0, last_seen_at=2.0),
        WorkflowView(workflow_id="w", version="1", steps=3, registered_at=1.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_survives_the_journey(message: BaseModel) -> None:
    model = type(message)
    assert model(**message.model_dump()) == message
    assert model(**json.loads(message.model_dump_json())) == message


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        StepReport(**REPORT).attempt = 2  # type: ignore[misc]


def test_an_unknown_field_of_a_newer_sender_is_ignored() -> None:
    assert StepReport(**REPORT, news="from a later version") == StepReport(**REPORT)


def test_which_states_are_final() -> None:
    assert {s for s in Status if not s.is_terminal} == {Status.PENDING, Status.QUEUED, Status.RUNNING}
    assert {s for s in RunStatus if not s.is_terminal} == {RunStatus.RUNNING}
    assert {t for t in Trigger if t.is_cleanup} == {Trigger.ALL_DONE, Trigger.ONE_FAILED}

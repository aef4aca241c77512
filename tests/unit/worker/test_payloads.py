"""What a step that is gone on with gets is what its queue would have brought, whatever the step before does (ADR 0007).

A worker does not read it anew from any message, so that nothing of it may be in the hands of a body, a hook or a policy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from fuseline.amqp import codec
from fuseline.clock import ManualClock
from fuseline.model import Status, StepAssignment
from fuseline.worker.reports import Sealer
from fuseline.worker.workflows import WorkflowCatalog
from fuseline.workflow import Branch, Condition, Depends, Step, StepPolicy, step, workflow_from_functions

INPUTS: dict[str, Any] = {"rows": [{"x": [1]}], "loose": [[2]]}
KEPT: list[Any] = []


def spoil(value: Any) -> None:
    """Changes whatever can be changed in it."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value["spoilt"] = True
    elif isinstance(value, list):
        for one in value:
            spoil(one)
        value.append("spoilt")


@step
def first() -> dict[str, Any]:
    return {}


class Spoiling(Condition):
    def __call__(self, value: Any, step: Step) -> bool:
        spoil(value)
        return True


SPOILING = Spoiling()


class Watching(StepPolicy):
    name = "watching"

    def execute(self, step: Step, call: Callable[[], Any]) -> Any:
        result = call()
        KEPT.append(result)
        return result

    def on_success(self, step: Step, result: Any, attempt: int) -> None:
        spoil(result)


@step
def plain(rows: Any, loose: list[Any], before: Any = Depends(first)) -> Any:
    for one in (rows, loose, before):
        spoil(one)
    KEPT.append(rows)
    return rows


@step
def typed(
    rows: list[dict[str, Any]],
    before: Annotated[dict[str, Any], "said"] = Depends(first, condition=SPOILING),
    **others: Any,
) -> dict[str, Any]:
    spoil(others)
    spoil(rows)
    result = {"before": before, "rows": rows}
    KEPT.append(result)
    return result


@step(policies=[Watching()])
def watched(rows: Any, before: Any = Depends(first)) -> list[Any]:
    return [rows, before]


@step
def branching(rows: Any, before: Any = Depends(first)) -> Branch:
    KEPT.append(rows)
    return Branch("aside", rows)


class Hooked(Step):
    name = "hooked"

    def setup(self, shared: dict[str, Any]) -> None:
        pass

    def teardown(self, shared: dict[str, Any], setup_result: Any, result: Any) -> None:
        KEPT.append(result)
        spoil(result)

    def run_step(self, rows: Any, before: Any = Depends(first)) -> Any:
        return {"rows": rows, "before": before}


@pytest.mark.parametrize(
    "which", [plain, typed, watched, branching, Hooked()], ids=lambda one: one.name or ""
)
def test_neither_what_came_nor_what_is_reported_is_in_anybodys_hands(which: Step) -> None:
    KEPT.clear()
    workflow = workflow_from_functions(which, workflow_id="w")
    name = next(one for one in workflow.to_schema().steps if one != "first")
    payload = {"workflow_inputs": copy.deepcopy(INPUTS), "results": {"first": {"y": [3]}}}
    before = copy.deepcopy(payload)
    assignment = StepAssignment(
        workflow_id="w", instance_id="i", step_name=name, payload=payload, assigned_at=0.0, expires_at=9.0
    )
    sealed = WorkflowCatalog([workflow], Sealer(ManualClock(), 10_000)).execute(assignment)
    spoil(KEPT)
    assert sealed.report.state is Status.SUCCEEDED, sealed.report.error
    assert assignment.payload == before
    assert sealed.report.result == codec.decode(sealed.body)["result"]

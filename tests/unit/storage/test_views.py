"""Stored rows as users see them."""

from __future__ import annotations

from fuseline.engine import Rules, compile_plan
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import StoredRun, StoredSchema
from fuseline.storage.views import run_view, workflow_view
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import run_row, step_row

SCHEMA = graph("w", {"a": ["b"], "b": ["c"]}, outputs=["a", "c"])


def test_steps_without_a_row_are_filled_in_and_those_that_the_schema_lacks_come_last() -> None:
    rows = {
        row.name: row
        for row in (step_row("parse[17]", Status.RUNNING), step_row("a", Status.SUCCEEDED, result=7))
    }
    view = run_view(StoredRun(run_row("i"), {"x": 1}, rows), compile_plan(SCHEMA, Rules()))
    assert {name: step.state for name, step in view.steps.items()} == {
        "a": Status.SUCCEEDED,
        "b": Status.PENDING,
        "c": Status.PENDING,
        "parse[17]": Status.RUNNING,
    }
    assert list(view.steps)[-1] == "parse[17]"
    assert view.outputs == {"a": 7}
    assert view.inputs == {"x": 1}


def test_of_a_run_that_has_ended_what_was_never_queued_is_cancelled() -> None:
    run = run_row("i", RunStatus.FAILED, failed_step="a")
    view = run_view(StoredRun(run, {}, {}), compile_plan(SCHEMA, Rules()))
    assert {step.state for step in view.steps.values()} == {Status.CANCELLED}
    assert view.failed_step == "a"


def test_without_its_schema_a_run_shows_the_rows_there_are() -> None:
    view = run_view(StoredRun(run_row("i"), {}, {"a": step_row("a")}), None)
    assert list(view.steps) == ["a"]
    assert view.outputs == {}


def test_a_version_says_how_large_it_is() -> None:
    view = workflow_view(StoredSchema(SCHEMA, 5.0))
    assert (view.workflow_id, view.steps, view.outputs, view.registered_at) == ("w", 3, ["a", "c"], 5.0)

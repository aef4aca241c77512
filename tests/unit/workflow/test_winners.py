"""An OR group's parameter receives its winner's value, whatever else has finished by then."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline import Depends, StepContext, Workflow, step
from fuseline.broker import MemoryBroker
from fuseline.model import PolicySpec, Status, StepAssignment
from fuseline.testing.flows import Player, graph
from fuseline.workflow.invoke import Invocation


@step
def x() -> str:
    return "x"


@step
def y() -> str:
    return "y"


@step
def z() -> str:
    return "z"


@step
def end(first: str | None = Depends(x, z), second: str | None = Depends(x, y)) -> Any:
    return [first, second]


flow = Workflow(outputs=[end], workflow_id="flow")


def execute(assignment: StepAssignment) -> Any:
    return Invocation(flow, assignment, StepContext.of(assignment)).run_sync().result


def test_each_group_has_a_winner_of_its_own() -> None:
    """`x` wins the first group after `y` has won the second one, of which `x` is a member too, and the first named."""
    with MemoryBroker() as broker:
        schema = flow.to_schema()
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        three = worker.take_all(3)
        for name in ("y", "x", "z"):
            worker.report(three[name], result=name)
        assignment = worker.take()
        assert assignment.payload["winners"] == {"first": "x", "second": "y"}
        assert execute(assignment) == ["x", "y"]


def test_a_winner_that_skipped_itself_has_no_value_to_give() -> None:
    with MemoryBroker() as broker:
        schema = flow.to_schema()
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        three = worker.take_all(3)
        worker.report(three["x"], Status.SKIPPED)
        assignment = worker.take()
        assert assignment.payload["winners"] == {"first": "x", "second": "x"}
        assert assignment.payload["results"] == {}
        report = Invocation(flow, assignment, StepContext.of(assignment)).run_sync()
        assert report.result == [None, None]


@pytest.mark.parametrize("finished", [["x"], ["y", "z"], ["y", "x"]])
def test_an_assignment_without_winners_is_read_as_the_members_are_named(finished: list[str]) -> None:
    """A broker of somebody's own need not know."""
    assignment = StepAssignment(
        workflow_id="flow",
        instance_id="i",
        step_name="end",
        payload={"workflow_inputs": {}, "results": {name: name for name in finished}},
        assigned_at=1.0,
        expires_at=61.0,
    )
    expected = ["x" if "x" in finished else "z", "x" if "x" in finished else "y"]
    assert execute(assignment) == expected


def test_a_group_of_one_has_a_winner_too() -> None:
    schema = graph("one", {"x": ["end"]}, or_groups={"end": {"value": ["x"]}})
    with MemoryBroker() as broker:
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        assert "winners" not in worker.do("x", result=1).payload
        assert worker.take().payload == {
            "workflow_inputs": {},
            "results": {"x": 1},
            "winners": {"value": "x"},
        }


def test_a_group_that_nobody_won_is_not_named() -> None:
    """A trigger let the step run all the same."""
    trigger = PolicySpec(name="trigger", config={"rule": "all_done"})
    schema = graph(
        "none",
        {"x": ["end"], "y": ["end"]},
        or_groups={"end": {"value": ["x", "y"]}},
        policies={"end": [trigger]},
    )
    with MemoryBroker() as broker:
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        for assignment in worker.take_all(2).values():
            worker.report(assignment, Status.FAILED)
        assert worker.take().payload["winners"] == {}

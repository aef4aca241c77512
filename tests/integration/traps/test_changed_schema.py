"""Known trap: a workflow version that is registered anew, and not alike, while runs of it are on their way."""

from __future__ import annotations

import pytest

from fuseline.errors import SchemaConflictError
from fuseline.model import PolicySpec, RunStatus, WorkflowSchema
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, wait_until
from tests.integration.traps.parties import Party


def flow(attempts: int, steps: dict[str, list[str]] | None = None) -> WorkflowSchema:
    """`a`, whose attempts are so many, and then `b`."""
    policies = {"a": [PolicySpec(name="retry", config={"max_retries": attempts, "wait": 1.0})]}
    return graph("changing", steps or {"a": ["b"]}, policies=policies)


def test_policies_changed_under_a_run_serve_its_attempts_from_then_on(party: Party) -> None:
    """Also for a run that began before: it would have failed after its second attempt."""
    _, bodies = party.worker(flow(2))

    def fail_twice(assignment: object) -> str:
        if bodies.runs < 3:
            raise ValueError("again")
        return "done"

    bodies.sync["a"], bodies.sync["b"] = fail_twice, lambda _assignment: "b"
    run = party.broker.dispatch_workflow(flow(2))
    bodies.started.get(timeout=SECONDS)
    party.broker.register_worker([flow(5)])
    view = party.wait(run)
    assert view.state is RunStatus.SUCCEEDED
    assert view.steps["a"].attempt == 3


def test_a_graph_changed_under_a_run_is_refused_and_the_run_goes_on_by_its_own(party: Party) -> None:
    """The first difference is named; a new version is for that."""
    _, bodies = party.worker(flow(2))
    bodies.sync["b"] = lambda _assignment: "b"

    def slow(_assignment: object) -> str:
        wait_until(lambda: bool(refused))
        return "done"

    refused: list[str] = []
    bodies.sync["a"] = slow
    run = party.broker.dispatch_workflow(flow(2))
    bodies.started.get(timeout=SECONDS)
    for changed in (flow(2, {"a": ["b", "c"]}), flow(2, {"a": []})):
        with pytest.raises(SchemaConflictError) as error:
            party.broker.register_worker([changed])
        with pytest.raises(SchemaConflictError):
            party.broker.dispatch_workflow(changed)
        assert "'changing'" in str(error.value)
        assert "step" in str(error.value) or "successors" in str(error.value)
    refused.append("both")
    view = party.wait(run)
    assert view.state is RunStatus.SUCCEEDED
    assert set(view.steps) == {"a", "b"}

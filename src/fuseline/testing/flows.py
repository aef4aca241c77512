"""Small workflows for tests, and a hand that plays their workers over any broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fuseline.broker.base import Broker
from fuseline.model.messages import StepAssignment, StepError, StepReport
from fuseline.model.schema import PolicySpec, StepSchema, WorkflowSchema
from fuseline.model.status import Status
from fuseline.model.views import RunView

Value = TypeVar("Value")
Edges = Mapping[str, Iterable[str]]
"""Successors of a step by action."""


def graph(
    workflow_id: str,
    steps: Mapping[str, Iterable[str] | Edges],
    *,
    version: str = "1",
    outputs: Iterable[str] = (),
    or_groups: Mapping[str, Mapping[str, list[str]]] | None = None,
    policies: Mapping[str, Iterable[PolicySpec]] | None = None,
    workflow_policies: Iterable[PolicySpec] = (),
    inputs_schema: dict[str, Any] | None = None,
) -> WorkflowSchema:
    """A schema from each step's successors, `{"a": ["b"], "b": {"yes": ["c"], "no": ["d"]}}`.

    Steps that only follow need not be named; predecessors come by themselves.
    """
    edges: dict[str, dict[str, list[str]]] = {
        name: {action: list(targets) for action, targets in out.items()}
        if isinstance(out, Mapping)
        else {"default": list(out)}
        for name, out in steps.items()
    }
    for out in list(edges.values()):
        for targets in out.values():
            for target in targets:
                edges.setdefault(target, {})
    before: dict[str, list[str]] = {name: [] for name in edges}
    for name, out in edges.items():
        for target in {target: None for targets in out.values() for target in targets}:
            before[target].append(name)
    return WorkflowSchema(
        workflow_id=workflow_id,
        version=version,
        steps={
            name: StepSchema(
                name=name,
                successors={action: targets for action, targets in out.items() if targets},
                predecessors=before[name],
                or_groups=dict((or_groups or {}).get(name, {})),
                policies=list((policies or {}).get(name, ())),
            )
            for name, out in edges.items()
        },
        outputs=list(outputs),
        policies=list(workflow_policies),
        inputs_schema=inputs_schema,
    )


def report_on(
    assignment: StepAssignment,
    state: Status = Status.SUCCEEDED,
    *,
    result: Any = None,
    action: str | None = None,
    error: str | None = None,
) -> StepReport:
    """The report of an attempt that was handed out. `error`: the message of a failure."""
    return StepReport(
        workflow_id=assignment.workflow_id,
        instance_id=assignment.instance_id,
        step_name=assignment.step_name,
        attempt=assignment.attempt,
        state=Status.FAILED if error is not None else state,
        result=result,
        action=action,
        error=None if error is None else StepError(type="ValueError", message=error, types=["ValueError"]),
    )


def _its_name(assignment: StepAssignment) -> Any:
    return assignment.step_name


@dataclass
class Player:
    """A worker played by the test. What a broker does a little later (over a network) is waited for, up to a deadline."""

    broker: Broker
    worker_id: str
    patience_seconds: float = 15.0
    taken: list[str] = field(default_factory=list)

    def take(self) -> StepAssignment:
        """The next step; it must come."""
        assignment = self.eventually(lambda: self.broker.get_step(self.worker_id), "no step came")
        assert assignment is not None
        self.taken.append(assignment.step_name)
        return assignment

    def take_all(self, count: int) -> dict[str, StepAssignment]:
        """So many steps, by name."""
        return {one.step_name: one for one in (self.take() for _ in range(count))}

    def has_nothing(self) -> bool:
        """Whether there is no step for this worker."""
        return self.broker.get_step(self.worker_id) is None

    def report(self, assignment: StepAssignment, state: Status = Status.SUCCEEDED, **how: Any) -> None:
        """Report as this worker; see `report_on`."""
        self.broker.report_step(self.worker_id, report_on(assignment, state, **how))

    def do(self, name: str, state: Status = Status.SUCCEEDED, **how: Any) -> StepAssignment:
        """Take the next step, which must be `name`, and report it."""
        assignment = self.take()
        assert assignment.step_name == name
        self.report(assignment, state, **how)
        return assignment

    def play(
        self, instance_id: str, bodies: Mapping[str, Callable[[StepAssignment], Any]] | None = None
    ) -> RunView:
        """Execute what comes until the run has ended. A body returns a result, or a `StepReport`; by default its name."""

        def once() -> bool | None:
            assignment = self.broker.get_step(self.worker_id)
            if assignment is None:
                return self.broker.get_run(instance_id).state.is_terminal or None
            self.taken.append(assignment.step_name)
            result = (bodies or {}).get(assignment.step_name, _its_name)(assignment)
            report = result if isinstance(result, StepReport) else report_on(assignment, result=result)
            self.broker.report_step(self.worker_id, report)
            return None

        self.eventually(once, "the run did not end")
        return self.broker.get_run(instance_id)

    def state(self, instance_id: str, step: str) -> Status:
        """How a step stands now."""
        return self.broker.get_run(instance_id).steps[step].state

    def eventually(self, look: Callable[[], Value | None], complaint: str) -> Value:
        """What `look` returns when it is not None; asked again until then."""
        deadline = time.monotonic() + self.patience_seconds
        while (found := look()) is None:
            assert time.monotonic() < deadline, f"{complaint} within {self.patience_seconds:g} s"
            time.sleep(0.005)
        return found

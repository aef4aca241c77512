"""Step fusion: whether whoever executed a step goes on with its only successor at once, and with what.

Where a step has one successor that requires nothing else, a hop through a coordinator adds two trips and a commit to what
is decided already. So the report that ends the step also takes the next one, by a lease: when RabbitMQ has confirmed it,
the worker goes on (ADR 0007). Coordinators have the last word: what they do not grant is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fuseline.clock import Clock
from fuseline.engine import Plan, compile_plan
from fuseline.engine.assigning import assign
from fuseline.engine.machine import action_of
from fuseline.engine.plan import StepPlan
from fuseline.model.messages import StepAssignment
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import Status, Trigger
from fuseline.worker.leases import Held
from fuseline.worker.reports import Sealed


class Fusing:
    """The rule of one worker. After `hops` steps, or `seconds` since the first of them came, others get their turn."""

    def __init__(self, schemas: Sequence[WorkflowSchema], hops: int, seconds: float, clock: Clock) -> None:
        self._plans: dict[tuple[str, str], Plan] = {schema.key: compile_plan(schema) for schema in schemas}
        self._ways: dict[tuple[str, str, str], _Way | None] = {}
        self._hops = hops
        self._seconds = seconds
        self._clock = clock

    def follows(self, held: Held, sealed: Sealed) -> StepAssignment | None:
        """The assignment to go on with when the report of `held` is confirmed; None when it is for the coordinator."""
        if held.hops >= self._hops or sealed.report.state is not Status.SUCCEEDED:
            return None
        if self._clock.monotonic() - held.received_at > self._seconds:
            return None
        done = held.assignment
        if done.replays:
            return (
                None  # which attempt of the next step is its first one since the replay, a worker cannot know
            )
        way = self._way(done)
        if way is None:
            return None
        result = sealed.report.result
        following = way.by_action.get(action_of(way.step, sealed.report.action, result))
        if following is None:
            return None
        # As they came: a body is given copies of them, and its result is none of what it holds on to.
        inputs = done.payload.get("workflow_inputs", {})
        payload = {"workflow_inputs": inputs, "results": {done.step_name: result}}
        return assign(way.plan, following, done.instance_id, payload, self._clock.now())

    def _way(self, done: StepAssignment) -> _Way | None:
        """Looked up once a step of a workflow: it does not change while the worker lives."""
        key = done.workflow_id, done.workflow_version, done.step_name
        if key not in self._ways:
            plan = self._plans.get(key[:2])
            step = None if plan is None else plan.steps.get(done.step_name)
            if plan is None or step is None:
                return None  # and nothing is kept of names that no definition has (P6)
            self._ways[key] = _way_on(plan, step)
        return self._ways[key]


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a step leads to that may be gone on with, by the action that it takes."""

    plan: Plan
    step: StepPlan
    by_action: Mapping[str, StepPlan]


def _way_on(plan: Plan, step: StepPlan) -> _Way | None:
    by_action = {}
    for action in {action for edge in step.out for action in edge.actions}:
        live = [edge.target for edge in step.out if action in edge.actions]
        if len(live) == 1 and _is_only_one(plan, live[0]):
            by_action[action] = plan.steps[live[0]]
    return _Way(plan, step, by_action) if by_action else None


def _is_only_one(plan: Plan, target: str) -> bool:
    step = plan.steps[target]
    return (
        step.fuses and len(step.predecessors) == 1 and not step.groups and step.trigger is Trigger.ALL_SUCCESS
    )

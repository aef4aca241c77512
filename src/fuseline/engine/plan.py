"""A schema compiled once: who waits for whom, by edge, so that an event looks only at the edges it touches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fuseline.engine.retry import RetryRule
from fuseline.engine.rules import Rules
from fuseline.errors import InvalidSchemaError
from fuseline.model.schema import PolicySpec, StepSchema, WorkflowSchema
from fuseline.model.status import Trigger


@dataclass(frozen=True, slots=True)
class Edge:
    """One predecessor-successor pair. It is live when the source took one of `actions`.

    `solo`: the source is a requirement of its own; `groups`: the OR groups of the target that it is a member of.
    """

    source: str
    target: str
    actions: frozenset[str]
    solo: bool
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """All that a decision needs to know of one step. `fuses`: its worker may go on with it from the step before.

    `taken_by`: for each predecessor, the actions with which it leads here. `counted`: the targets of its edges that count
    what has arrived.
    """

    name: str
    out: tuple[Edge, ...]
    actions: frozenset[str]
    predecessors: tuple[str, ...]
    taken_by: dict[str, frozenset[str]]
    counted: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    requirements: int
    trigger: Trigger
    retry: RetryRule | None
    timeout_seconds: float | None
    expiry_seconds: float | None
    fuses: bool = True

    @property
    def needs_counter(self) -> bool:
        """True when more than one edge leads here, so that what has arrived must be remembered."""
        return len(self.predecessors) > 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow version, compiled. `cleanup`: the steps that still start in a failing run."""

    workflow_id: str
    version: str
    steps: dict[str, StepPlan]
    starts: tuple[str, ...]
    cleanup: tuple[str, ...]
    outputs: tuple[str, ...]
    run_timeout_seconds: float | None
    rules: Rules = field(default_factory=Rules)

    def step(self, name: str) -> StepPlan | None:
        """The plan of a step; a name with an index, `parse[17]`, follows the plan of `parse`."""
        found = self.steps.get(name)
        if found is None and name.endswith("]"):
            found = self.steps.get(name.partition("[")[0])
        return found


def compile_plan(schema: WorkflowSchema, rules: Rules | None = None) -> Plan:
    """Compile `schema` (which is valid by construction).

    Raises `InvalidSchemaError` when a policy that the engine reads has a wrong configuration.
    """
    memberships = {name: _memberships(step) for name, step in schema.steps.items()}
    out = {name: _edges_out(step, memberships) for name, step in schema.steps.items()}
    taken_by: dict[str, dict[str, frozenset[str]]] = {name: {} for name in schema.steps}
    for edges in out.values():
        for edge in edges:
            taken_by[edge.target][edge.source] = edge.actions
    steps = {name: _compile_step(step, out[name], taken_by) for name, step in schema.steps.items()}
    return Plan(
        workflow_id=schema.workflow_id,
        version=schema.version,
        steps=steps,
        starts=tuple(schema.starting_steps()),
        cleanup=tuple(name for name, step in steps.items() if step.trigger.is_cleanup),
        outputs=tuple(schema.outputs),
        run_timeout_seconds=_seconds(schema.policies, "workflow_timeout", f"workflow {schema.workflow_id!r}"),
        rules=rules or Rules(),
    )


def _compile_step(
    step: StepSchema, out: tuple[Edge, ...], taken_by: dict[str, dict[str, frozenset[str]]]
) -> StepPlan:
    where = f"step {step.name!r}"
    grouped = {member for members in step.or_groups.values() for member in members}
    return StepPlan(
        name=step.name,
        out=out,
        actions=frozenset(step.successors),
        predecessors=tuple(step.predecessors),
        taken_by={name: taken_by[step.name][name] for name in step.predecessors},
        counted=tuple(edge.target for edge in out if len(taken_by[edge.target]) > 1),
        groups={param: tuple(members) for param, members in step.or_groups.items()},
        requirements=len(step.or_groups) + sum(name not in grouped for name in step.predecessors),
        trigger=step.trigger(),
        retry=RetryRule.from_policies(step.policies, where),
        timeout_seconds=_seconds(step.policies, "timeout", where),
        expiry_seconds=_seconds(step.policies, "expiry", where),
        fuses=_fuses(step.policies, where),
    )


def _memberships(step: StepSchema) -> dict[str, list[str]]:
    """The OR groups by member."""
    found: dict[str, list[str]] = {}
    for param, members in step.or_groups.items():
        for member in members:
            found.setdefault(member, []).append(param)
    return found


def _edges_out(step: StepSchema, memberships: dict[str, dict[str, list[str]]]) -> tuple[Edge, ...]:
    actions_to: dict[str, set[str]] = {}
    for action, target in step.edges_out():
        actions_to.setdefault(target, set()).add(action)
    edges = []
    for target, actions in actions_to.items():
        groups = tuple(memberships[target].get(step.name, ()))
        edges.append(Edge(step.name, target, frozenset(actions), not groups, groups))
    return tuple(edges)


def _fuses(policies: list[PolicySpec], where: str) -> bool:
    fuses = True
    for policy in policies:
        if policy.name == "fusion":
            value = policy.config.get("enabled", True)
            if not isinstance(value, bool):
                raise InvalidSchemaError(
                    f"{where}: policy 'fusion' needs enabled true or false, not {value!r}"
                )
            fuses = value
    return fuses


def _seconds(policies: list[PolicySpec], name: str, where: str) -> float | None:
    value: Any = None
    for policy in policies:
        if policy.name == name:
            value = policy.config.get("seconds")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e10:
                raise InvalidSchemaError(f"{where}: policy {name!r} needs seconds > 0, not {value!r}")
    return None if value is None else float(value)

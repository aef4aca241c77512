"""A workflow's definition as data: what travels, is stored and is compared.

Constructing a `WorkflowSchema` validates the whole graph, so that whoever holds one holds a graph that can run.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fuseline.errors import InvalidSchemaError
from fuseline.model.digest import digest_of
from fuseline.model.status import Trigger

if TYPE_CHECKING:
    from fuseline.workflow.depends import StepLike
    from fuseline.workflow.workflow import Workflow

DEFAULT_ACTION = "default"
MAX_ID_LENGTH = 120
MAX_STEPS = 200_000
MAX_EDGES = 1_000_000
MAX_NAMED = 20
"""Steps of a cycle that an error names."""

# Control characters and surrogates cannot go into a routing key, a file name or a terminal.
_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")


def check_id(kind: str, value: str) -> None:
    """Raise `InvalidSchemaError` naming `kind` unless `value` can be an id: not blank, printable, not too long."""
    if not is_id(value):
        _refuse_id(kind, value)


def is_id(value: str) -> bool:
    """Whether it can be an id: not blank, printable, not too long. Nearly every one is of ASCII, where this is soon said."""
    if value.isascii() and value.isprintable():
        return 0 < len(value) <= MAX_ID_LENGTH and not value.isspace()
    return bool(value.strip() and _ID.fullmatch(value)) and len(value.encode()) <= MAX_ID_LENGTH


def _refuse_id(kind: str, value: str) -> NoReturn:
    if not value.strip():
        raise InvalidSchemaError(f"{kind} is empty")
    if not _ID.fullmatch(value):
        raise InvalidSchemaError(f"{kind} {value!r} has a control character")
    raise InvalidSchemaError(f"{kind} {value[:40]!r}... is over {MAX_ID_LENGTH} bytes long")


class PolicySpec(BaseModel):
    """A policy as data: a registered `name` and its `config` (JSON)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class StepSchema(BaseModel):
    """One step: its edges out by action, the steps it waits for, and its policies.

    `successors` maps an action to the steps that it starts. `or_groups` maps a parameter to the predecessors of which
    the first to finish supplies it; every predecessor outside a group is a requirement of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    successors: dict[str, list[str]] = Field(default_factory=dict)
    predecessors: list[str] = Field(default_factory=list)
    or_groups: dict[str, list[str]] = Field(default_factory=dict)
    policies: list[PolicySpec] = Field(default_factory=list)
    description: str | None = None

    def edges_out(self) -> Iterator[tuple[str, str]]:
        """(action, target) of each edge out."""
        for action, targets in self.successors.items():
            for target in targets:
                yield action, target

    def trigger(self) -> Trigger:
        """The step's trigger rule; the last `trigger` policy counts."""
        rule = Trigger.ALL_SUCCESS
        for policy in self.policies:
            if policy.name == "trigger":
                value = str(policy.config.get("rule"))
                try:
                    rule = Trigger(value)
                except ValueError:
                    known = ", ".join(Trigger)
                    raise InvalidSchemaError(
                        f"step {self.name!r}: trigger rule {value!r} is unknown (known: {known})"
                    ) from None
        return rule


class WorkflowSchema(BaseModel):
    """A workflow version: its graph, what it returns, and the shape of its inputs.

    Raises `pydantic.ValidationError` (a `ValueError`) when the definition contradicts itself; the message names the
    step or edge.
    """

    # These are no fields, and no copy takes them along: `model_copy` may change what they are of.
    __slots__ = ("__weakref__", "_digest", "_inputs_text")

    model_config = ConfigDict(frozen=True, extra="forbid")

    workflow_id: str
    version: str = "1"
    steps: dict[str, StepSchema]
    outputs: list[str] = Field(default_factory=list)
    policies: list[PolicySpec] = Field(default_factory=list)
    inputs_schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _check(self) -> WorkflowSchema:
        _check_ids(self)
        _check_edges(self)
        _check_acyclic(self)
        return self

    @property
    def key(self) -> tuple[str, str]:
        """(workflow_id, version)."""
        return self.workflow_id, self.version

    @property
    def digest(self) -> str:
        """See `digest_of`; computed once. Raises `PydanticSerializationError` for what has no JSON form."""
        found: str | None = getattr(self, "_digest", None)
        if found is None:
            found = digest_of(self.model_dump(mode="json"))
            object.__setattr__(self, "_digest", found)
        return found

    @property
    def inputs_text(self) -> str:
        """`inputs_schema` as JSON, the same for the same schema; written once."""
        found: str | None = getattr(self, "_inputs_text", None)
        if found is None:
            found = json.dumps(self.inputs_schema, sort_keys=True)
            object.__setattr__(self, "_inputs_text", found)
        return found

    def starting_steps(self) -> list[str]:
        """Names of the steps that wait for nothing."""
        return [name for name, step in self.steps.items() if not step.predecessors]

    def first_difference(self, other: WorkflowSchema) -> str | None:
        """What in `other` would break runs of this version: the graph, its joins or its outputs; None if nothing.

        Policies (but for a step's trigger, which is part of its join), descriptions and the input schema may change.
        """
        if self.key != other.key:
            return f"{self.workflow_id} {self.version} is not {other.workflow_id} {other.version}"
        for name in self.steps:
            if name not in other.steps:
                return f"step {name!r} was removed"
        for name in other.steps:
            if name not in self.steps:
                return f"step {name!r} was added"
        for name, mine in self.steps.items():
            theirs = other.steps[name]
            if set(mine.edges_out()) != set(theirs.edges_out()):
                return f"successors of step {name!r} changed"
            if set(mine.predecessors) != set(theirs.predecessors):
                return f"predecessors of step {name!r} changed"
            if {k: set(v) for k, v in mine.or_groups.items()} != {
                k: set(v) for k, v in theirs.or_groups.items()
            }:
                return f"OR groups of step {name!r} changed"
            if mine.trigger() != theirs.trigger():
                return f"trigger of step {name!r} changed from {mine.trigger()} to {theirs.trigger()}"
        if self.outputs != other.outputs:
            return f"outputs changed from {self.outputs} to {other.outputs}"
        return None

    def to_yaml(self) -> str:
        """The schema as YAML text; `from_yaml` reads it back."""
        text: str = _yaml().safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> WorkflowSchema:
        """Read what `to_yaml` wrote. Raises `InvalidSchemaError` if it is not YAML or not a mapping."""
        yaml = _yaml()
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidSchemaError(f"not YAML: {error}") from error
        if not isinstance(data, dict):
            raise InvalidSchemaError("a workflow file holds a mapping with workflow_id, version and steps")
        return cls(**data)

    def to_workflow(self, steps: Mapping[str, StepLike]) -> Workflow:
        """A `Workflow` of this definition, whose steps' bodies are given by name.

        The definition says the edges and policies, the bodies what their parameters need. Raises `InvalidSchemaError`
        when a body is missing, is too many, or depends on a step that has no edge to it, and `PolicyError` for a policy
        whose class is not imported.
        """
        return _makers[0](self, steps)


# Filled in by the room above, which this one cannot import: `import fuseline` does.
_makers: list[Callable[[WorkflowSchema, Mapping[str, StepLike]], Workflow]] = []


def set_workflow_maker(maker: Callable[[WorkflowSchema, Mapping[str, StepLike]], Workflow]) -> None:
    """Say what `WorkflowSchema.to_workflow` does."""
    _makers[:] = [maker]


def _check_ids(schema: WorkflowSchema) -> None:
    check_id("workflow_id", schema.workflow_id)
    check_id("version", schema.version)
    if not schema.steps:
        raise InvalidSchemaError(f"workflow {schema.workflow_id!r} has no steps")
    if len(schema.steps) > MAX_STEPS:
        raise InvalidSchemaError(
            f"workflow {schema.workflow_id!r} has {len(schema.steps)} steps, over {MAX_STEPS}"
        )
    for key, step in schema.steps.items():
        check_id("step name", key)
        if step.name != key:
            raise InvalidSchemaError(f"step {key!r} is named {step.name!r}: key and name must be equal")
        if len(set(step.predecessors)) != len(step.predecessors):
            raise InvalidSchemaError(f"step {key!r} lists a predecessor twice")
        for action in step.successors:
            if not is_id(action):
                _refuse_id(f"action of step {key!r}", action)
        step.trigger()
    for output in schema.outputs:
        if output not in schema.steps:
            raise InvalidSchemaError(f"output {output!r} is not a step")


def _check_edges(schema: WorkflowSchema) -> None:
    if not _edges_agree(schema.steps):
        _refuse_edges(schema)
    for name, step in schema.steps.items():
        for param, members in step.or_groups.items():
            if not members:
                raise InvalidSchemaError(f"OR group {param!r} of step {name!r} is empty")
            if len(set(members)) != len(members):
                raise InvalidSchemaError(f"OR group {param!r} of step {name!r} lists a step twice")
            known = set(step.predecessors)
            for member in members:
                if member not in known:
                    raise InvalidSchemaError(
                        f"OR group {param!r} of step {name!r}: {member!r} is not a predecessor of it"
                    )


def _edges_agree(steps: Mapping[str, StepSchema]) -> bool:
    """Whether successors and predecessors say the same, of no more edges than there may be.

    Found out without an object for each edge, of which a wide graph has ten thousands; what is wrong is looked for when
    something is.
    """
    listed = {name: set(step.predecessors) for name, step in steps.items()}
    edges = 0
    for source, step in steps.items():
        for target in _targets(step):
            if source not in listed.get(target, ()):
                return False
            edges += 1
    # Every edge out is an edge in: where there are as many, there are no others.
    return edges == sum(map(len, listed.values())) and edges <= MAX_EDGES


def _targets(step: StepSchema) -> Collection[str]:
    """The steps that it has edges to, each once."""
    if len(step.successors) == 1:
        (targets,) = step.successors.values()
        if len(targets) == 1:
            return targets
    return dict.fromkeys(target for _, target in step.edges_out())


def _refuse_edges(schema: WorkflowSchema) -> NoReturn:
    steps = schema.steps
    # Dictionaries, for their order: of several mistakes, the same one is named each time.
    forward = {(source, target): None for source, step in steps.items() for _, target in step.edges_out()}
    backward = {(source, target): None for target, step in steps.items() for source in step.predecessors}
    if len(forward) > MAX_EDGES:
        raise InvalidSchemaError(
            f"workflow {schema.workflow_id!r} has {len(forward)} edges, over {MAX_EDGES}"
        )
    for source, target in forward:
        if target not in steps:
            raise InvalidSchemaError(f"successor {target!r} of step {source!r} is not a step")
    for source, target in backward:
        if source not in steps:
            raise InvalidSchemaError(f"predecessor {source!r} of step {target!r} is not a step")
    if missing := forward.keys() - backward.keys():
        source, target = min(missing)
        raise InvalidSchemaError(
            f"edge {source!r} -> {target!r}: {target!r} does not list it as a predecessor"
        )
    source, target = min(backward.keys() - forward.keys())
    raise InvalidSchemaError(f"edge {source!r} -> {target!r}: {source!r} does not list it as a successor")


def _check_acyclic(schema: WorkflowSchema) -> None:
    """Kahn's algorithm; what is left over contains a cycle, which is then named."""
    waiting = {name: len(step.predecessors) for name, step in schema.steps.items()}
    ready = [name for name, count in waiting.items() if not count]
    if not ready:
        raise InvalidSchemaError(
            f"workflow {schema.workflow_id!r} has no starting step: every step waits for another"
        )
    while ready:
        name = ready.pop()
        del waiting[name]
        for target in _targets(schema.steps[name]):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if waiting:
        cycle = _a_cycle(schema, set(waiting))
        if len(cycle) > MAX_NAMED:
            cycle[MAX_NAMED // 2 : -MAX_NAMED // 2] = [f"... {len(cycle) - MAX_NAMED} more ..."]
        raise InvalidSchemaError(f"the graph has a cycle: {' -> '.join(cycle)}")


def _a_cycle(schema: WorkflowSchema, among: set[str]) -> list[str]:
    """A cycle's steps along its edges, the first one again at the end."""
    path: dict[str, int] = {}
    name = min(among)
    while name not in path:  # every step left over has a predecessor that is left over too
        path[name] = len(path)
        name = next(source for source in schema.steps[name].predecessors if source in among)
    return [name, *reversed(list(path)[path[name] :])]


def _yaml() -> Any:
    """Imported when it is needed: it is slow to import, and few need it."""
    return importlib.import_module("yaml")

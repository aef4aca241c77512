"""From outputs to a graph: which steps belong to a workflow, their names, and the edges as the schema has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuseline.errors import InvalidSchemaError
from fuseline.model.schema import DEFAULT_ACTION, StepSchema, WorkflowSchema
from fuseline.workflow.depends import StepLike, check_step_like
from fuseline.workflow.function import FunctionStep
from fuseline.workflow.naming import unique_names
from fuseline.workflow.policies import StepPolicy, check_step_policies, policy_from_spec
from fuseline.workflow.signature import Parameter, Signature, Source, read_signature
from fuseline.workflow.step import Step

Edges = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a workflow. `sources`: for each parameter that another step supplies, the names of the candidates."""

    name: str
    step: Step
    signature: Signature
    sources: Mapping[str, tuple[str, ...]]
    policies: Sequence[StepPolicy]
    description: str | None
    successors: Edges = field(default_factory=dict)
    predecessors: list[str] = field(default_factory=list)
    or_groups: Edges = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """The steps by name, those that others wait for first, and the names of the outputs."""

    nodes: dict[str, Node]
    outputs: list[str]


class StepMaker:
    """Makes the steps of one workflow out of what stands in `Depends`: each function and each class once."""

    def __init__(self, known: Iterable[Step] = ()) -> None:
        self._made: dict[Callable[..., Any], Step] = {}
        for step in known:
            key = step.function if isinstance(step, FunctionStep) else type(step)
            self._made.setdefault(key, step)

    def step(self, like: StepLike) -> Step:
        """The step that is meant. Raises `InvalidSchemaError` for a class that cannot be made without arguments."""
        if isinstance(like, Step):
            return like
        made = self._made.get(like)
        if made is None:
            made = self._made[like] = self._make(like)
        return made

    def _make(self, like: type[Step] | Callable[..., Any]) -> Step:
        if not isinstance(like, type):
            return FunctionStep(like)
        try:
            made = like()
        except TypeError as error:
            raise InvalidSchemaError(
                f"step class {like.__name__} cannot be made without arguments: {error}; make an instance of it"
            ) from error
        assert isinstance(made, Step)
        return made


def discover(outputs: Sequence[StepLike]) -> Graph:
    """The graph that leads to `outputs`: from them backwards, and from any step forwards along drawn edges.

    Raises `InvalidSchemaError`.
    """
    if not outputs:
        raise InvalidSchemaError("a workflow needs at least one output")
    for one in outputs:
        check_step_like(one, "outputs")
    maker = StepMaker()
    roots = [maker.step(one) for one in outputs]
    signatures: dict[Step, Signature] = {}
    todo = list(reversed(roots))
    while todo:
        step = todo.pop()
        if step in signatures:
            continue
        naming = step.naming
        signatures[step] = read_signature(step, naming.explicit or naming.base)
        near = [maker.step(like) for one in _dependent(signatures[step]) for like in _likes(one)]
        near += [source for source, _ in step.edges_in]
        near += [target for _, target in step.edges_out]
        todo += [one for one in reversed(near) if one not in signatures]
    steps = list(signatures)
    names = dict(zip(steps, unique_names([step.naming for step in steps]), strict=True))
    nodes = {}
    for step, signature in signatures.items():
        sources = {
            one.name: tuple(dict.fromkeys(names[maker.step(like)] for like in _likes(one)))
            for one in _dependent(signature)
        }
        name = names[step]
        check_step_policies(step.policies, f"step {name!r}")
        nodes[name] = Node(name, step, signature, sources, tuple(step.policies), step.doc)
    _connect(nodes, names)
    return Graph(_sources_first(nodes), list(dict.fromkeys(names[root] for root in roots)))


def given(schema: WorkflowSchema, steps: Mapping[str, StepLike]) -> Graph:
    """The graph of `schema`, whose steps' bodies are `steps`: the schema says the edges, and the bodies their parameters.

    A parameter without `Depends` that the schema has as an OR group takes its value from that. Raises
    `InvalidSchemaError` when a body is missing, is too many, or depends on a step that the schema does not connect,
    `PolicyError` for a policy that is not registered.
    """
    if missing := [name for name in schema.steps if name not in steps]:
        raise InvalidSchemaError(f"workflow {schema.workflow_id!r}: no step is given for {missing[0]!r}")
    if unknown := [name for name in steps if name not in schema.steps]:
        raise InvalidSchemaError(f"workflow {schema.workflow_id!r} has no step {unknown[0]!r}")
    own = StepMaker()
    bodies: dict[str, Step] = {}
    for name, like in steps.items():
        check_step_like(like, f"step {name!r}")
        bodies[name] = own.step(like)
    names = {step: name for name, step in bodies.items()}
    maker = StepMaker(bodies.values())
    nodes = {}
    for name, one in schema.steps.items():
        signature = read_signature(bodies[name], name)
        sources: dict[str, tuple[str, ...]] = {}
        for parameter in signature.parameters:
            if parameter.dependency is not None:
                found = [names.get(maker.step(like)) for like in _likes(parameter)]
                for like, source in zip(_likes(parameter), found, strict=True):
                    if source not in one.predecessors:
                        raise InvalidSchemaError(
                            f"step {name!r}: parameter {parameter.name!r} depends on {like!r}, and the schema has no "
                            "edge from there"
                        )
                sources[parameter.name] = tuple(source for source in found if source is not None)
            elif parameter.source is Source.INPUT and parameter.name in one.or_groups:
                sources[parameter.name] = tuple(one.or_groups[parameter.name])
        nodes[name] = Node(
            name,
            bodies[name],
            signature,
            sources,
            _policies_of(one),
            one.description,
            {action: list(targets) for action, targets in one.successors.items()},
            list(one.predecessors),
            {param: list(members) for param, members in one.or_groups.items()},
        )
    return Graph(nodes, list(schema.outputs))


def _policies_of(schema: StepSchema) -> list[StepPolicy]:
    made = [policy_from_spec(spec) for spec in schema.policies]
    check_step_policies(made, f"step {schema.name!r}")
    return [policy for policy in made if isinstance(policy, StepPolicy)]


def _dependent(signature: Signature) -> list[Parameter]:
    return [one for one in signature.parameters if one.dependency is not None]


def _likes(parameter: Parameter) -> tuple[StepLike, ...]:
    return () if parameter.dependency is None else parameter.dependency.sources


def _connect(nodes: dict[str, Node], names: Mapping[Step, str]) -> None:
    """Fill in the edges.

    Drawn edges between two steps say which actions lead from one to the other; where there are none, a parameter's
    `Depends` means the default action. So an action edge stands in place of the implied default one: otherwise the
    target would run on both. A drawn edge without a `Depends` is a requirement of its own.
    """
    for node in nodes.values():
        drawn: dict[str, list[str]] = {}
        for origin, action in node.step.edges_in:
            drawn.setdefault(names[origin], []).append(action)
        wanted = [source for sources in node.sources.values() for source in sources]
        for source in dict.fromkeys([*wanted, *drawn]):
            node.predecessors.append(source)
            for action in drawn.get(source, [DEFAULT_ACTION]):
                nodes[source].successors.setdefault(action, []).append(node.name)
        grouped = {source for sources in node.sources.values() if len(sources) > 1 for source in sources}
        for param, sources in node.sources.items():
            # A step that is needed alone as well as in a group: a group of one, else the group would stand for both.
            if len(sources) > 1 or sources[0] in grouped:
                node.or_groups[param] = list(sources)


def _sources_first(nodes: dict[str, Node]) -> dict[str, Node]:
    """The same in an order to read, and to start in; what is in a cycle comes last, for the schema to complain about."""
    waiting = {name: len(node.predecessors) for name, node in nodes.items()}
    ready = [name for name, count in waiting.items() if not count]
    order: dict[str, Node] = {}
    at = 0
    while at < len(ready):
        name = ready[at]
        at += 1
        order[name] = nodes[name]
        for target in dict.fromkeys(t for targets in nodes[name].successors.values() for t in targets):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return order | {name: node for name, node in nodes.items() if name not in order}

"""`Workflow`: the graph that leads to some outputs, with an id and a version."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from pydantic import ValidationError

from fuseline.errors import InvalidSchemaError, PolicyError, UnknownStepError
from fuseline.model.inputs import validate_inputs
from fuseline.model.schema import MAX_ID_LENGTH, StepSchema, WorkflowSchema, set_workflow_maker
from fuseline.workflow.bind import BoundParameter, BoundStep
from fuseline.workflow.depends import StepLike, step_likes
from fuseline.workflow.export import export_yaml, to_mermaid
from fuseline.workflow.graph import Graph, Node, discover, given
from fuseline.workflow.hooks import hooks_of, is_coroutine_function
from fuseline.workflow.inputs import check_inputs, input_parameters, inputs_schema, plain_inputs
from fuseline.workflow.naming import snake_case
from fuseline.workflow.policies import Policy, StepPolicy, WorkflowPolicy, policy_from_spec
from fuseline.workflow.step import Step

if TYPE_CHECKING:
    from fuseline.engine.plan import Plan
    from fuseline.storage.base import RuntimeStorage
    from fuseline.workflow.local import Finished
    from fuseline.workflow.shared import Shared


class Dispatcher(Protocol):
    """What a workflow needs of a broker to be dispatched."""

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        """Begin a run; its instance id."""


class Workflow:
    """The steps that lead to `outputs`: found from them backwards, and from any step forwards along drawn edges.

    `outputs` are steps, classes of steps or functions. Without a `workflow_id` it is made of `name`, or of the outputs'
    names. `policies` may hold `WorkflowPolicy` objects, and `StepPolicy` objects, which then hold for every step that
    has none of their name.

    A workflow is made of what its steps are at this moment: edges and policies that are added to a step afterwards belong
    to workflows that are made afterwards. Raises `InvalidSchemaError` naming the step, parameter or edge that is wrong,
    `PolicyError`.
    """

    def __init__(
        self,
        outputs: StepLike | Sequence[StepLike],
        *,
        workflow_id: str | None = None,
        version: str = "1",
        policies: Iterable[Policy] = (),
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        graph = discover(step_likes(outputs))
        self._init(graph, workflow_id, version, policies, name, description)

    def _init(
        self,
        graph: Graph,
        workflow_id: str | None,
        version: str,
        policies: Iterable[Policy],
        name: str | None,
        description: str | None,
    ) -> None:
        self.workflow_id = workflow_id or _default_id(name, graph.outputs)
        self.version = version
        self.name = name
        self.description = description
        self._graph = graph
        self._policies = tuple(policies)
        self._shared: Shared | None = None
        self._build()

    @classmethod
    def from_schema(cls, schema: WorkflowSchema, steps: Mapping[str, StepLike]) -> Self:
        """The workflow that `schema` describes; `steps` are the bodies by name. See `WorkflowSchema.to_workflow`."""
        self = cls.__new__(cls)
        self._init(
            given(schema, steps),
            schema.workflow_id,
            schema.version,
            [policy_from_spec(spec) for spec in schema.policies],
            schema.name,
            schema.description,
        )
        return self

    # ---- what it is made of

    @property
    def steps(self) -> Mapping[str, Step]:
        """The steps by name, those that others wait for first."""
        return MappingProxyType({name: node.step for name, node in self._graph.nodes.items()})

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the output steps."""
        return tuple(self._graph.outputs)

    @property
    def policies(self) -> Sequence[Policy]:
        """The workflow's own policies."""
        return self._policies

    @property
    def shared(self) -> Shared:
        """What the hooks of its steps share when workers of this process execute them."""
        if self._shared is None:
            # With asyncio, which `import fuseline` does without.
            self._shared = shared = importlib.import_module("fuseline.workflow.shared").Shared()
            atexit.register(shared.end)
        return self._shared

    def add_policy(self, policy: Policy) -> None:
        """Add one of the workflow's own policies. Not while it runs: a change of its definition as any other."""
        self._policies = (*self._policies, policy)
        self._build()

    def bound_step(self, name: str) -> BoundStep:
        """A step, ready to be executed; one of an indexed name (`parse[17]`) is `parse`. Raises `UnknownStepError`."""
        found = self._bound.get(name)
        if found is None and name.endswith("]"):
            found = self._bound.get(name.partition("[")[0])
        if found is None:
            raise UnknownStepError(f"workflow {self.workflow_id!r} {self.version} has no step {name!r}")
        return found

    # ---- definition

    def to_schema(self) -> WorkflowSchema:
        """The definition as data."""
        return self._schema

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return to_mermaid(self._schema)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the definition to a file, as YAML: the text of `to_schema().to_yaml()`."""
        export_yaml(self._schema, Path(path))

    # ---- runs

    def dispatch(self, broker: Dispatcher, inputs: Mapping[str, Any] | None = None) -> str:
        """Begin a run on a broker; returns its instance id.

        Raises `InvalidInputsError` naming the field when the inputs do not fit `to_schema().inputs_schema`, and whatever
        the broker raises.
        """
        plain = plain_inputs(self.workflow_id, inputs)
        validate_inputs(self._schema, plain)
        return broker.dispatch_workflow(self._schema, plain)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        max_workers: int | None = None,
        storage: RuntimeStorage | None = None,
        trace: str | os.PathLike[str] | IO[str] | None = None,
        raise_on_failure: bool = True,
    ) -> Any:
        """Execute in this process, by the same scheduler as everywhere; works inside a running event loop, too.

        Steps that do not wait for each other run at the same time: plain functions on threads, `async` ones on a loop;
        `max_workers` bounds how many. `storage` (default: memory) is where the run is recorded; not one that a
        coordinator works on. `trace`, a path or an open text file, receives a JSON line for each event.

        Returns the output's value, as the annotation of the output step wants it, or a list for several outputs; None
        for one that was not reached. Raises `RunFailed`, unless `raise_on_failure` is False, and `InvalidInputsError`
        before anything is done.
        """
        local = _local()
        plan = local.prepare(self, self._check(inputs), max_workers, storage, trace)
        return self._values(local.run(plan), raise_on_failure)

    async def run_async(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        max_workers: int | None = None,
        storage: RuntimeStorage | None = None,
        trace: str | os.PathLike[str] | IO[str] | None = None,
        raise_on_failure: bool = True,
    ) -> Any:
        """`run`, awaited: `async` steps run on this loop. Cancelling it cancels the run."""
        local = _local()
        plan = local.prepare(self, self._check(inputs), max_workers, storage, trace)
        return self._values(await local.run_async(plan), raise_on_failure)

    def __repr__(self) -> str:
        return f"<Workflow {self.workflow_id} {self.version}: {len(self._graph.nodes)} steps>"

    # ---- inside

    def _check(self, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
        return check_inputs(self.workflow_id, self._input_parameters, inputs)

    def _values(self, finished: Finished, raise_on_failure: bool) -> Any:
        if raise_on_failure:
            finished.raise_failure()
        values = [
            finished.value(name, self._graph.nodes[name].signature.result) for name in self._graph.outputs
        ]
        return values[0] if len(values) == 1 else values

    def _parameters(self) -> list[BoundParameter]:
        return [one for bound in self._bound.values() for one in bound.parameters]

    def _build(self) -> None:
        self.plan: Plan | None = None
        """For runs in this process: made by the first of them."""
        watchers: list[WorkflowPolicy] = []
        for_steps: list[StepPolicy] = []
        for policy in self._policies:
            if isinstance(policy, WorkflowPolicy):
                watchers.append(policy)
            elif isinstance(policy, StepPolicy):
                for_steps.append(policy)
            else:
                raise PolicyError(f"workflow {self.workflow_id!r}: {policy!r} is not a policy")
        self.watchers = tuple(watchers)
        own = {name: _policies_of(node, for_steps) for name, node in self._graph.nodes.items()}
        self._bound = {name: self._bind(node, own[name]) for name, node in self._graph.nodes.items()}
        self._input_parameters = input_parameters(self._parameters())
        try:
            self._schema = WorkflowSchema(
                workflow_id=self.workflow_id,
                version=self.version,
                steps={name: _step_schema(node, own[name]) for name, node in self._graph.nodes.items()},
                outputs=self._graph.outputs,
                policies=[policy.to_spec() for policy in watchers],
                inputs_schema=inputs_schema(self._parameters()),
                name=self.name,
                description=self.description,
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"].removeprefix("Value error, ")
            raise InvalidSchemaError(f"{place}: {message}" if place else message) from error

    def _bind(self, node: Node, policies: Sequence[StepPolicy]) -> BoundStep:
        steps = self._graph.nodes
        parameters = [
            BoundParameter(
                one,
                f"step {node.name!r}: parameter {one.name!r}",
                tuple((name, steps[name].step) for name in node.sources.get(one.name, ())),
            )
            for one in node.signature.parameters
        ]
        conditions = [
            one.dependency.condition
            for one in node.signature.parameters
            if one.dependency is not None and one.dependency.condition is not None
        ]
        hooks = hooks_of(node.step, node.name, policies, self.watchers, conditions)
        return BoundStep(
            name=node.name,
            step=node.step,
            body=node.step.body,
            parameters=tuple(parameters),
            result=node.signature.result,
            hooks=hooks,
            is_async_body=is_coroutine_function(node.step.body),
            is_plain=hooks.are_none,
        )


set_workflow_maker(Workflow.from_schema)


def workflow_from_functions(
    outputs: StepLike | Sequence[StepLike],
    *,
    workflow_id: str | None = None,
    version: str = "1",
    policies: Iterable[Policy] = (),
    name: str | None = None,
    description: str | None = None,
) -> Workflow:
    """A `Workflow` of plain functions whose parameters have `Depends` defaults; each function becomes one step."""
    return Workflow(
        outputs,
        workflow_id=workflow_id,
        version=version,
        policies=policies,
        name=name,
        description=description,
    )


def _policies_of(node: Node, for_steps: Sequence[StepPolicy]) -> list[StepPolicy]:
    names = {policy.name for policy in node.policies}
    return list(node.policies) + [policy for policy in for_steps if policy.name not in names]


def _step_schema(node: Node, policies: Sequence[StepPolicy]) -> StepSchema:
    return StepSchema(
        name=node.name,
        successors=node.successors,
        predecessors=node.predecessors,
        or_groups=node.or_groups,
        policies=[policy.to_spec() for policy in policies],
        description=node.description,
    )


def _default_id(name: str | None, outputs: Sequence[str]) -> str:
    text = snake_case(name) if name else "-".join(outputs)
    if len(text.encode()) <= MAX_ID_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{text.encode()[: MAX_ID_LENGTH - 13].decode(errors='ignore')}-{digest}"


def _local() -> Any:
    """What executes runs here. With engine, ledger and asyncio it would double what `import fuseline` costs."""
    return importlib.import_module("fuseline.workflow.local")

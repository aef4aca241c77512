"""Policies: objects for people, data in the schema, and the registry that leads back.

What a shipped policy asks for is done by whoever schedules or executes the step (engine, worker): they are data, and a
retry survives the worker that failed. A policy of your own acts where the step is executed, and its decision travels in
the report.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

from pydantic_core import PydanticSerializationError, to_jsonable_python

from fuseline.errors import PolicyError
from fuseline.model.messages import FailureDecision, PolicyDecision
from fuseline.model.schema import PolicySpec
from fuseline.workflow.naming import snake_case

if TYPE_CHECKING:
    from fuseline.model.views import RunView
    from fuseline.workflow.step import Step
    from fuseline.workflow.workflow import Workflow

Decision: TypeAlias = FailureDecision | PolicyDecision | tuple[FailureDecision, float] | None
"""`FailureDecision.RETRY`, that and a delay in seconds, `PolicyDecision`, or None: no opinion."""

P = TypeVar("P", bound="Policy")

_registry: dict[str, type[Policy]] = {}


class Policy:
    """What step and workflow policies have in common. `name` is what the schema says; by default, the class's.

    A subclass is registered by its name, so that a schema can be turned back into objects.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, *, is_base: bool = False, **kwargs: Any) -> None:
        """`is_base`: the class is only there to be subclassed, and has no name in schemas."""
        super().__init_subclass__(**kwargs)
        if not is_base:
            if "name" not in vars(cls):
                cls.name = snake_case(cls.__name__)
            register_policy(cls)

    def config(self) -> dict[str, Any]:
        """The arguments that make an equal policy, as JSON: by default, the instance's public attributes."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The policy that `config()` described. Raises `PolicyError`."""
        try:
            return cls(**config)
        except TypeError as error:
            raise PolicyError(f"policy {cls.name!r} cannot be made of {dict(config)!r}: {error}") from error

    def to_spec(self) -> PolicySpec:
        """The policy as data. Raises `PolicyError` when its config is not JSON."""
        try:
            return PolicySpec(name=self.name, config=to_jsonable_python(self.config()))
        except (PydanticSerializationError, ValueError) as error:
            raise PolicyError(f"the config of policy {self.name!r} is not JSON: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.name == other.name and self.config() == other.config()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.config().items())
        return f"{type(self).__name__}({said})"


class StepPolicy(Policy, is_base=True):
    """A policy of steps; every method may be left out.

    Given to a `Workflow`, it holds for each of its steps that has none of the same name.
    """

    def execute(self, step: Step, call: Callable[[], Any]) -> Any:
        """Goes around the execution of a plain function: call `call()` and return what is to be the result."""
        return call()

    async def execute_async(self, step: Step, call: Callable[[], Awaitable[Any]]) -> Any:
        """The same for an `async` one."""
        return await call()

    def on_start(self, step: Step, attempt: int) -> None:
        """Before each attempt; what it raises fails the attempt."""

    def on_success(self, step: Step, result: Any, attempt: int) -> None:
        """After an attempt that succeeded; what it raises fails the attempt."""

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> Decision:
        """After an attempt that failed: what is to be done, or None. The first policy with an opinion decides."""
        return None

    def attach_to_step(self, step: Step) -> Self:
        """Add this to the step's policies, for the workflows that are made from then on."""
        step.policies = (*step.policies, self)
        return self

    def attach_to_workflow(self, workflow: Workflow) -> Self:
        """Make this a policy of all steps of the workflow that have none of its name."""
        workflow.add_policy(self)
        return self


class WorkflowPolicy(Policy, is_base=True):
    """A policy of a workflow; every method may be left out.

    The step methods are called wherever a step is executed, a worker included. `on_workflow_start` and
    `on_workflow_finished` are called by `Workflow.run` and `run_async`; a coordinator executes no code of yours.
    """

    def on_workflow_start(self, workflow: Workflow, inputs: Mapping[str, Any]) -> None:
        """Before a run in this process; what it raises keeps it from beginning."""

    def on_workflow_finished(self, workflow: Workflow, run: RunView) -> None:
        """After a run in this process, however it ended."""

    def on_step_start(self, step: Step, attempt: int) -> None:
        """Before each attempt of each step; what it raises fails the attempt."""

    def on_step_success(self, step: Step, result: Any, attempt: int) -> None:
        """After an attempt that succeeded."""

    def on_step_failure(self, step: Step, exc: BaseException, attempt: int) -> None:
        """After an attempt that failed."""

    def attach_to_workflow(self, workflow: Workflow) -> Self:
        """Add this to the workflow's policies."""
        workflow.add_policy(self)
        return self


def register_policy(policy: type[P]) -> type[P]:
    """Make the class known by its name. Subclassing does it already.

    Raises `PolicyError` when another class has the name. The same class defined anew (a notebook's cell, a module
    loaded again) takes its place.
    """
    known = _registry.get(policy.name)
    if known is not None and (known.__module__, known.__qualname__) != (
        policy.__module__,
        policy.__qualname__,
    ):
        raise PolicyError(
            f"policy name {policy.name!r} of {policy.__qualname__} is that of {known.__module__}.{known.__qualname__}"
        )
    _registry[policy.name] = policy
    return policy


def policy_from_spec(spec: PolicySpec) -> Policy:
    """The object that a policy's data describes. Raises `PolicyError` for an unknown name or a wrong config."""
    known = _registry.get(spec.name)
    if known is None:
        raise PolicyError(f"no policy is registered as {spec.name!r} (known: {', '.join(sorted(_registry))})")
    return known.from_config(spec.config)


def check_step_policies(policies: Iterable[object], where: str) -> None:
    """Raise `PolicyError` naming `where` unless all are `StepPolicy` objects."""
    for policy in policies:
        if isinstance(policy, StepPolicy):
            continue
        if isinstance(policy, type) and issubclass(policy, StepPolicy):
            raise PolicyError(f"{where}: {policy.__name__} is a class; give an instance of it")
        raise PolicyError(f"{where}: {policy!r} is not a StepPolicy")


def decision_of(answer: Decision, policy: Policy) -> PolicyDecision | None:
    """What `on_failure` returned, as data. Raises `PolicyError` for anything that is no decision."""
    if answer is None or isinstance(answer, PolicyDecision):
        return answer
    try:
        if isinstance(answer, tuple):
            decision, delay_seconds = answer
            return PolicyDecision(decision=decision, delay_seconds=delay_seconds)
        return PolicyDecision(decision=FailureDecision(answer))
    except ValueError as error:
        raise PolicyError(f"policy {policy.name!r} decided {answer!r}: {error}") from error

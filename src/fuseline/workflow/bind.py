"""From an assignment to the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fuseline.model.messages import StepAssignment
from fuseline.workflow.context import StepContext
from fuseline.workflow.convert import Converter, ParameterError, convert_parameter
from fuseline.workflow.depends import Condition
from fuseline.workflow.hooks import Hooks
from fuseline.workflow.signature import MISSING, Parameter, Source
from fuseline.workflow.step import Step


@dataclass(frozen=True, slots=True)
class BoundParameter:
    """A parameter, and the steps that may supply it: (name, step) of each."""

    parameter: Parameter
    where: str
    sources: tuple[tuple[str, Step], ...] = ()


@dataclass(frozen=True, slots=True)
class BoundStep:
    """One step of a workflow, ready to be executed: all that does not depend on an assignment.

    `is_plain`: nothing goes around its body, and nobody is told that it starts or succeeds.
    """

    name: str
    step: Step
    body: Callable[..., Any]
    parameters: tuple[BoundParameter, ...]
    result: Converter | None
    hooks: Hooks
    is_async_body: bool
    is_plain: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that has to hold before the step goes on. `source` None: there is no value, so that it cannot hold."""

    parameter: str
    condition: Condition | Callable[[Any], Any]
    value: Any
    source: Step | None
    source_name: str | None

    def ask(self) -> Any:
        """The condition's answer, which may have to be awaited; False without a value."""
        if self.source is None:
            return False
        if isinstance(self.condition, Condition):
            return self.condition(self.value, self.source)
        return self.condition(self.value)


@dataclass(slots=True)
class Call:
    """The arguments of a body. `checks` come first; `setup` names (or, among `args`, counts) what receives its value."""

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    setup: str | int | None = None

    def set_up(self, value: Any) -> None:
        """Put in what `setup` returned."""
        if isinstance(self.setup, int):
            self.args[self.setup] = value
        elif self.setup is not None:
            self.kwargs[self.setup] = value

    def put(self, parameter: Parameter, value: Any) -> None:
        """Add an argument."""
        if parameter.positional_only:
            self.args.append(value)
        else:
            self.kwargs[parameter.name] = value


def bind(step: BoundStep, assignment: StepAssignment, context: StepContext) -> Call:
    """The call that `assignment` asks for. Raises `ParameterError` naming the parameter that has no fitting value."""
    payload = assignment.payload
    inputs: Mapping[str, Any] = payload.get("workflow_inputs") or {}
    results: Mapping[str, Any] = payload.get("results") or {}
    winners: Mapping[str, str] = payload.get("winners") or {}
    call = Call()
    for bound in step.parameters:
        parameter = bound.parameter
        source = Source.STEP if bound.sources else parameter.source
        if source is Source.STEP:
            call.put(parameter, _result(bound, results, winners, call))
        elif source is Source.INPUT:
            value = _input(bound, inputs)
            if value is not MISSING:
                call.put(parameter, value)
        elif source is Source.CONTEXT:
            call.put(parameter, context)
        elif source is Source.SETUP:
            call.setup = len(call.args) if parameter.positional_only else parameter.name
            call.put(parameter, None)
        else:
            taken = {one.parameter.name for one in step.parameters}
            call.kwargs |= {
                name: convert_parameter(value, parameter.converter, f"{bound.where}: {name!r}")
                for name, value in inputs.items()
                if name not in taken
            }
    return call


def _result(bound: BoundParameter, results: Mapping[str, Any], winners: Mapping[str, str], call: Call) -> Any:
    """The winner's result, or where none is named that of the first source that has one.

    Without any (a winner may have skipped itself) None, or the parameter's default.
    """
    parameter = bound.parameter
    winner = winners.get(parameter.name)
    name: str | None = None
    step: Step | None = None
    for source, its_step in bound.sources:
        if source in results and (winner is None or winner == source):
            name, step = source, its_step
            break
    if name is None:
        value = None if parameter.default is MISSING else parameter.default
    else:
        value = convert_parameter(results[name], parameter.converter, bound.where, name)
    condition = parameter.dependency.condition if parameter.dependency is not None else None
    if condition is not None:
        call.checks.append(Check(parameter.name, condition, value, step, name))
    return value


def _input(bound: BoundParameter, inputs: Mapping[str, Any]) -> Any:
    """The run's input; MISSING leaves it to the parameter's default."""
    parameter = bound.parameter
    if parameter.name in inputs:
        return convert_parameter(inputs[parameter.name], parameter.converter, bound.where)
    if parameter.default is not MISSING:
        # What comes after a positional-only argument has to follow it.
        return parameter.default if parameter.positional_only else MISSING
    raise ParameterError(f"{bound.where}: the run has no input of this name")

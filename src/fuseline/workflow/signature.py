"""What the parameters of a body ask for, read once when a workflow is made."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from fuseline.errors import InvalidSchemaError
from fuseline.workflow.context import StepContext
from fuseline.workflow.convert import Converter, UnconvertibleError
from fuseline.workflow.depends import Dependency
from fuseline.workflow.function import FunctionStep, inner_function
from fuseline.workflow.step import Branch, Step

MISSING: Final = inspect.Parameter.empty


class Source(Enum):
    """Where a parameter's value comes from."""

    STEP = "step"  # the result of another step
    INPUT = "input"  # the run's input of that name
    INPUTS = "inputs"  # all inputs that no other parameter takes (`**inputs`)
    CONTEXT = "context"  # the StepContext
    SETUP = "setup"  # what the class's `setup` returned


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `default` is MISSING without one; `converter` None takes a value as it comes."""

    name: str
    source: Source
    annotation: Any
    converter: Converter | None
    default: Any = MISSING
    dependency: Dependency | None = None
    positional_only: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a step's body in their order, and the converter of its result."""

    parameters: tuple[Parameter, ...]
    result: Converter | None


def read_signature(step: Step, name: str) -> Signature:
    """What step `name` asks for. Raises `InvalidSchemaError` naming the parameter and what is wrong with it."""
    if not isinstance(step, FunctionStep) and type(step).run_step is Step.run_step:
        raise InvalidSchemaError(f"step {name!r}: class {type(step).__name__} has no run_step")
    body = step.body
    try:
        signature = inspect.signature(body)
    except (ValueError, TypeError) as error:
        raise InvalidSchemaError(
            f"step {name!r}: the parameters of {body!r} cannot be read: {error}"
        ) from error
    hints = _Hints(body, step._names_around, name)
    setup = _setup_parameter(step, signature)
    parameters = [_parameter(one, hints, name, one.name == setup) for one in signature.parameters.values()]
    return Signature(tuple(parameters), hints.result())


def _setup_parameter(step: Step, signature: inspect.Signature) -> str | None:
    """The parameter of a class's `run_step` that receives what `setup` returned."""
    parameters = list(signature.parameters.values())
    if isinstance(step, FunctionStep) or any(one.annotation is not MISSING for one in parameters):
        return None
    named = [one.name for one in parameters if one.default is MISSING and one.kind not in _VARIADIC]
    return named[0] if named else None


_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameter(one: inspect.Parameter, hints: _Hints, step: str, is_setup: bool) -> Parameter:
    where = f"step {step!r}: parameter {one.name!r}"
    if one.kind is inspect.Parameter.VAR_POSITIONAL:
        raise InvalidSchemaError(f"{where}: *{one.name} has no names to take values by")
    annotation = hints.of(one.name)
    positional_only = one.kind is inspect.Parameter.POSITIONAL_ONLY
    if one.kind is inspect.Parameter.VAR_KEYWORD:
        return Parameter(one.name, Source.INPUTS, annotation, _converter(annotation, where))
    if is_setup:
        return Parameter(one.name, Source.SETUP, annotation, None, positional_only=positional_only)
    if _is_context(annotation):
        return Parameter(one.name, Source.CONTEXT, annotation, None, positional_only=positional_only)
    dependency, default = _dependency(one, annotation)
    return Parameter(
        one.name,
        Source.INPUT if dependency is None else Source.STEP,
        annotation,
        _converter(annotation, where),
        default,
        dependency,
        positional_only,
    )


def _dependency(one: inspect.Parameter, annotation: Any) -> tuple[Dependency | None, Any]:
    if isinstance(one.default, Dependency):
        return one.default, MISSING
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, Dependency):
                return extra, one.default
    return None, one.default


def _is_context(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_context(one) for one in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, StepContext)


def _converter(annotation: Any, where: str) -> Converter | None:
    try:
        return Converter.of(annotation)
    except UnconvertibleError as error:
        raise InvalidSchemaError(f"{where}: no JSON value can become {annotation!r}: {error}") from error


class _Hints:
    """The annotations of a body, those that are text evaluated."""

    def __init__(self, body: Callable[..., Any], names_around: Mapping[str, Any], step: str) -> None:
        # A bound method has the function's; `partial` and decorators are looked through.
        function = inner_function(getattr(body, "__func__", body))
        if not hasattr(function, "__annotations__") and not inspect.isroutine(function):
            function = type(function).__call__
        self._annotations: dict[str, Any] = dict(getattr(function, "__annotations__", {}))
        self._globals = getattr(function, "__globals__", {})
        self._locals = {**_closure(function), **names_around}
        self._step = step

    def of(self, name: str) -> Any:
        """The annotation of a parameter; `Any` without one. Raises `InvalidSchemaError`."""
        try:
            return self._evaluate(name)
        except Exception as error:
            raise InvalidSchemaError(
                f"step {self._step!r}: parameter {name!r}: its annotation {self._annotations[name]!r} cannot be "
                f"resolved: {error} (is it imported only for type checking, or defined inside a function?)"
            ) from error

    def result(self) -> Converter | None:
        """The converter of what the body returns; None where its annotation says nothing that can be used.

        What comes out is JSON by what it is in any case, so that, unlike a parameter's, this annotation need not resolve.
        """
        try:
            annotation = _without_branch(self._evaluate("return"))
            return Converter.of(annotation)
        except (NameError, AttributeError, UnconvertibleError):
            return None

    def _evaluate(self, name: str) -> Any:
        if name not in self._annotations:
            return Any
        holder = SimpleNamespace(__annotations__={name: self._annotations[name]})
        return typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)[name]


def _closure(function: Any) -> dict[str, Any]:
    """The variables around that the function uses itself."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    found = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _without_branch(annotation: Any) -> Any:
    """What may be the value: a `Branch` carries it, and says nothing about it."""
    if annotation is Branch:
        return Any
    if get_origin(annotation) in (Union, UnionType):
        rest = tuple(one for one in get_args(annotation) if one is not Branch)
        return Union[rest] if rest else Any  # noqa: UP007 - made at run time, of a tuple
    return annotation

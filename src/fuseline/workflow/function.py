"""Functions as steps: `@step`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from fuseline.workflow.naming import Naming, Origin, real_module, snake_case
from fuseline.workflow.policies import StepPolicy
from fuseline.workflow.step import Step, first_paragraph, names_around

P = ParamSpec("P")
R = TypeVar("R")


class FunctionStep(Step, Generic[P, R]):
    """A step whose body is a function, plain or `async`. Calling it calls the function: for your tests of it."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        policies: Iterable[StepPolicy] | None = None,
        description: str | None = None,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        """`names`: what annotations of the function that are text may mention besides its module's names."""
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"a FunctionStep is made of a function, not of {function!r}")
        self.function = function
        self._names_around = names or {}
        functools.update_wrapper(self, function, updated=())
        super().__init__(name=name, policies=policies, description=description)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def body(self) -> Callable[..., Any]:
        return self.function

    @property
    def naming(self) -> Naming:
        function = inner_function(self.function)
        own = getattr(function, "__name__", None) or type(function).__name__
        code = getattr(function, "__code__", None)
        origin = Origin(
            real_module(getattr(function, "__module__", None) or ""),
            getattr(function, "__qualname__", own),
            0 if code is None else code.co_firstlineno,
            self._number,
        )
        return Naming(self.name, snake_case(own), origin)

    @property
    def doc(self) -> str | None:
        return self.description or first_paragraph(getattr(inner_function(self.function), "__doc__", None))

    def __repr__(self) -> str:
        return f"<step {self.name or self.naming.base}>"


def inner_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `functools.partial` and decorators were put around."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


@overload
def step(function: Callable[P, R], /) -> FunctionStep[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    policies: Iterable[StepPolicy] | None = None,
    description: str | None = None,
) -> Callable[[Callable[P, R]], FunctionStep[P, R]]: ...


def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    policies: Iterable[StepPolicy] | None = None,
    description: str | None = None,
) -> Any:
    """Make a step of a function, plain or `async`: `@step`, or `@step(name=..., policies=[...])`.

    Its name is the function's in snake_case unless `name` is given; its description the first paragraph of the docstring.
    Raises `TypeError` for anything but a function, `InvalidSchemaError` for a name that cannot be one.
    """
    frame = sys._getframe(1)

    def decorate(function: Callable[P, R]) -> FunctionStep[P, R]:
        if isinstance(function, type):
            raise TypeError(f"@step is for functions; a class such as {function.__name__} subclasses Step")
        return FunctionStep(
            function,
            name=name,
            policies=policies,
            description=description,
            names=names_around(function, frame),
        )

    return decorate if function is None else decorate(function)

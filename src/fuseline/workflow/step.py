"""Steps as people write them, and the edges between them.

A step is a definition. Edges and policies are added while a module is being read; executing a step never changes it, so
that runs cannot leak into each other and one worker may execute a step many times at once.
"""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self, TypeVar

from fuseline.model.schema import DEFAULT_ACTION, check_id
from fuseline.workflow.naming import Naming, Origin, check_step_name, real_module, snake_case
from fuseline.workflow.policies import StepPolicy, check_step_policies

S = TypeVar("S", bound="Step")

_numbers = itertools.count()
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Branch:
    """What a step returns to choose the edges that it takes: those of `action`; `value` is its result.

    Example: `return Branch("reject", "the score is too low")`.
    """

    action: str
    value: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.action, str):
            raise TypeError(f"the action of a Branch is a string, not {self.action!r}")


class Step:
    """A node of workflows. Subclass it and write `run_step`; or decorate a function with `@step`.

    Around `run_step` there are hooks, each of which may be `async`. `shared` is a dictionary that all steps of the
    workflow share: one per run in `Workflow.run`, one per process in a worker.

    - `before_all(shared)`: once, before the first execution (per run in `Workflow.run`, per process in a worker);
    - `setup(shared)`: before each execution. A `run_step(self, setup_res)` none of whose parameters has an annotation
      receives what it returned;
    - `teardown(shared, setup_result, result)`: after each execution that was set up, with `result` None if it failed;
    - `after_all(shared)`: once, when the run is over (in a worker: when the process ends).

    `name`, `policies` and `description` may be given here or as attributes of the class. Without a name the step is
    named after its class, in snake_case.
    """

    name: str | None = None
    policies: Sequence[StepPolicy] = ()
    description: str | None = None

    _out: list[tuple[str, Step]]
    _in: list[tuple[Step, str]]
    _number: int
    _names_around: Mapping[str, Any] = {}

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        # Here and not in __init__, so that a subclass whose __init__ does not call it works as well.
        self = super().__new__(cls)
        self._out = []
        self._in = []
        self._number = next(_numbers)
        return self

    def __init__(
        self,
        *,
        name: str | None = None,
        policies: Iterable[StepPolicy] | None = None,
        description: str | None = None,
    ) -> None:
        if name is not None:
            self.name = name
        if policies is not None:
            self.policies = tuple(policies)
        if description is not None:
            self.description = description
        if self.name is not None:
            check_step_name(self.name)
        check_step_policies(self.policies, f"step {self!r}")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "run_step" in vars(cls):
            cls._names_around = names_around(vars(cls)["run_step"], sys._getframe(1))

    # ---- what a subclass writes

    def before_all(self, shared: dict[str, Any]) -> Any:
        """Once, before the first execution."""

    def setup(self, shared: dict[str, Any]) -> Any:
        """Before each execution; what it returns goes to `run_step` and `teardown`."""

    def run_step(self, *args: Any, **kwargs: Any) -> Any:
        """The step itself."""
        raise NotImplementedError(f"{type(self).__name__} has no run_step")

    def teardown(self, shared: dict[str, Any], setup_result: Any, result: Any) -> Any:
        """After each execution that was set up. What it raises fails the step."""

    def after_all(self, shared: dict[str, Any]) -> Any:
        """Once, when all is over."""

    # ---- edges

    def next(self, step: S, action: str = DEFAULT_ACTION) -> S:
        """Draw an edge: when this step finishes with `action`, it leads to `step`. Returns `step`.

        Between two steps that a `Depends` connects already, drawn edges say which actions lead from one to the other, in
        place of the default one that `Depends` means; `step` would otherwise run on both. Without a `Depends`, a drawn
        edge is a requirement of its own.
        """
        if not isinstance(step, Step):
            raise TypeError(
                f"an edge leads to a step, not to {step!r}: decorate a function with @step, "
                "and make an instance of a class"
            )
        check_id("action", action)
        if (action, step) not in self._out:
            self._out.append((action, step))
            step._in.append((self, action))
        return step

    def __rshift__(self, step: S) -> S:
        """`a >> b` is `a.next(b)`."""
        return self.next(step)

    def __sub__(self, action: str) -> ActionEdge:
        """`(a - "reject") >> b` is `a.next(b, action="reject")`."""
        if not isinstance(action, str):
            return NotImplemented
        check_id("action", action)
        return ActionEdge(self, action)

    @property
    def edges_out(self) -> Sequence[tuple[str, Step]]:
        """(action, step) of each edge that was drawn from here."""
        return tuple(self._out)

    @property
    def edges_in(self) -> Sequence[tuple[Step, str]]:
        """(step, action) of each edge that was drawn to here."""
        return tuple(self._in)

    # ---- what a workflow asks

    @property
    def body(self) -> Callable[..., Any]:
        """The callable that is executed."""
        return self.run_step

    @property
    def naming(self) -> Naming:
        """What its name in a workflow is made of."""
        kind = type(self)
        origin = Origin(real_module(kind.__module__), kind.__qualname__, 0, self._number)
        return Naming(self.name, snake_case(kind.__name__), origin)

    @property
    def doc(self) -> str | None:
        """The first paragraph of what it says about itself."""
        return self.description or first_paragraph(type(self).__dict__.get("__doc__"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>" if self.name else f"<{type(self).__name__}>"


@dataclass(frozen=True, slots=True)
class ActionEdge:
    """The beginning of an edge, `a - "reject"`; `>> b` ends it."""

    source: Step
    action: str

    def __rshift__(self, step: S) -> S:
        return self.source.next(step, self.action)


def first_paragraph(doc: str | None) -> str | None:
    """The first paragraph of a docstring, on one line; None without one."""
    if not doc or not doc.strip():
        return None
    return " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())


def names_around(function: object, frame: FrameType) -> dict[str, Any]:
    """The local names of `frame` that the annotations of `function` mention as text.

    Under `from __future__ import annotations` a class that is defined inside a function is otherwise out of reach.
    """
    if frame.f_locals is frame.f_globals:
        return {}
    texts = [text for text in getattr(function, "__annotations__", {}).values() if isinstance(text, str)]
    words = set(_WORD.findall(" ".join(texts)))
    return {name: value for name, value in frame.f_locals.items() if name in words}

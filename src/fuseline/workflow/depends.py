"""What a parameter's value comes from: `Depends`, `Condition`, `Computed`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from fuseline.workflow.step import Step

T = TypeVar("T")

StepLike: TypeAlias = Step | type[Step] | Callable[..., Any]
"""A step; a class of steps, of which the workflow makes one; or a function, of which the workflow makes one step."""

Computed = Annotated[T, "computed"]
"""`Computed[T]` means `T`, and says to the reader that the value comes from another step."""


class Condition(ABC):
    """Whether a step goes on with the value of a step that it depends on. A subclass has no state of a run."""

    @abstractmethod
    def __call__(self, value: Any, step: Step) -> Any:
        """True to go on; false: the depending step is SKIPPED, and its successors go on. `step` supplied the value."""


AnyCondition: TypeAlias = Condition | type[Condition] | Callable[[Any], Any]
"""A `Condition`, a class of one that is made without arguments, or any callable of the value."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """What `Depends` says. Several `sources` are an OR group: the first to finish supplies the value."""

    sources: tuple[StepLike, ...]
    condition: Condition | Callable[[Any], Any] | None = None


def Depends(  # noqa: N802 - reads as a declaration, and is the name that users know
    *sources: StepLike | Sequence[StepLike], condition: AnyCondition | None = None
) -> Any:
    """As the default of a parameter: its value is the result of another step.

    `Depends(a)`: the result of `a`. `Depends(a, b)` or `Depends([a, b])`: that of the first of them to finish.
    `Depends(a, condition=c)`: that of `a`, if `c` holds for it; else the step is SKIPPED and its successors go on, as it
    is when there is no value (`a` itself was skipped).

    A parameter without a value (its source was skipped, not reached or has failed, and the step starts all the same)
    receives None; one that is written `Annotated[T, Depends(a)] = default` receives the default.

    The declared type is `Any`, so that it can stand as the default of a parameter of any type. Raises `TypeError`.
    """
    found: list[StepLike] = []
    for source in sources:
        found += step_likes(source)
    if not found:
        raise TypeError("Depends() needs a step")
    for one in found:
        check_step_like(one, "Depends")
    if isinstance(condition, type) and issubclass(condition, Condition):
        condition = condition()
    elif condition is not None and not callable(condition):
        raise TypeError(f"a condition is a Condition or a callable of the value, not {condition!r}")
    return Dependency(tuple(dict.fromkeys(found)), condition)


def step_likes(value: object) -> list[Any]:
    """One or several, as a list."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def check_step_like(value: object, where: str) -> None:
    """Raise `TypeError` unless a step can be made of `value`."""
    if isinstance(value, Step) or (isinstance(value, type) and issubclass(value, Step)):
        return
    if isinstance(value, type | Dependency) or not callable(value):
        raise TypeError(f"{where}: {value!r} is no step, no class of steps and no function")

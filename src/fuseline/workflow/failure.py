"""An exception as data."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from fuseline.model.messages import Cause, StepAssignment, StepError

MAX_TEXT: Final = 8_000
"""Characters of a message and of a traceback's tail that travel."""

_HERE: Final = str(Path(__file__).parent)


class StepTimeout(TimeoutError):
    """What a policy is told when an attempt ran longer than its execution timeout. Nothing raises it."""


def timeout_of(assignment: StepAssignment) -> StepTimeout:
    """That this attempt ran longer than it may."""
    return StepTimeout(f"attempt {assignment.attempt} ran longer than {assignment.timeout_seconds:g} s")


def timeout_error(timeout: StepTimeout) -> StepError:
    """The same as data: no traceback leads to it, and its own class is known by its plain name alone."""
    error = step_error(timeout, Cause.TIMEOUT)
    types = [name for name in error.types if not name.startswith("fuseline.")]
    return error.model_copy(update={"traceback": None, "types": types})


def step_error(error: BaseException, cause: Cause = Cause.ERROR) -> StepError:
    """`types` has both forms, `ValueError` and `builtins.ValueError`, of every class, most special first.

    The traceback begins at the step's own code and keeps its tail: the innermost frames are the ones to read.
    """
    kinds = [kind for kind in type(error).__mro__ if kind is not object]
    names = [name for kind in kinds for name in (kind.__name__, f"{kind.__module__}.{kind.__qualname__}")]
    return StepError(
        type=type(error).__name__,
        message=_bounded(_message(error)),
        traceback=_bounded(_trace(error), tail=True),
        cause=cause,
        types=list(dict.fromkeys(names)),
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001 - an exception's own __str__ may raise anything; it is told below
        return f"(its message cannot be had: {type(problem).__name__})"


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _outside(error.__traceback__)))
    except Exception as problem:  # noqa: BLE001 - as above
        return f"(its traceback cannot be had: {type(problem).__name__})"


def _outside(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of ours that led to the step; all of it when nothing else is there."""
    mine = trace
    while mine is not None and mine.tb_frame.f_code.co_filename.startswith(_HERE):
        mine = mine.tb_next
    return trace if mine is None else mine


def _bounded(text: str, *, tail: bool = False) -> str:
    """Bounded, and without lone surrogates (a path that is not UTF-8), which JSON cannot carry."""
    if len(text) > MAX_TEXT:
        text = f"...{text[-MAX_TEXT:]}" if tail else f"{text[:MAX_TEXT]}..."
    return text.encode("utf-8", "backslashreplace").decode()

"""Rows of the engine as tuples of column values, in the order of the tables' columns, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fuseline.engine.state import DeadLetter, GroupCount, JoinRow, RunRow, StepRow
from fuseline.errors import CallerError
from fuseline.model.messages import StepError
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus, Status

MAX_NESTING = 500
"""Arrays and objects within one another. What nests deeper might be written and then not be read again: reading needs a
frame for each level, of the same 1,000 that all of Python's calls share."""

_STATUS = {status.value: status for status in Status}
_RUN_STATUS = {status.value: status for status in RunStatus}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def _encoder() -> Callable[[Any], str]:
    """The encoder in C that the module builds anew for each call of its own, which takes a third of the time."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python
        return json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
    chunks = make(None, _refuse, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


def _refuse(value: Any) -> NoReturn:
    raise TypeError(f"a {type(value).__name__} has no JSON form")


_encode = _encoder()

loads = json.loads


def dumps(value: Any) -> str:
    """ASCII JSON. Raises `CallerError` for what JSON cannot express, or nests deeper than `MAX_NESTING`."""
    try:
        text = _encode(value)
    except (TypeError, ValueError) as error:
        raise CallerError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise CallerError(f"nests deeper than {MAX_NESTING} levels") from error
    # Counting brackets is cheap and says nearly always that nothing more has to be looked at.
    if text.count("[") + text.count("{") > MAX_NESTING and _nesting(text) > MAX_NESTING:
        raise CallerError(f"nests deeper than {MAX_NESTING} levels")
    return text


def _nesting(text: str) -> int:
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _error(value: StepError | None) -> str | None:
    return None if value is None else dumps(value.model_dump(mode="json"))


def _to_error(text: str | None) -> StepError | None:
    return None if text is None else StepError(**loads(text))


def run_values(row: RunRow) -> tuple[Any, ...]:
    """A header, all columns."""
    return (
        row.instance_id,
        row.workflow_id,
        row.version,
        row.status.value,
        row.created_at,
        row.open_steps,
        row.failed_step,
        _error(row.error),
        row.due_at,
        row.finished_at,
        row.replays,
    )


RUN_CHANGES = (
    "instance_id",
    "status",
    "open_steps",
    "failed_step",
    "error",
    "due_at",
    "finished_at",
    "replays",
)
"""The header's columns that may change, behind its key."""


def run_changes(row: RunRow) -> tuple[Any, ...]:
    """A header's `RUN_CHANGES`."""
    return (
        row.instance_id,
        row.status.value,
        row.open_steps,
        row.failed_step,
        _error(row.error),
        row.due_at,
        row.finished_at,
        row.replays,
    )


def to_run(values: Sequence[Any]) -> RunRow:
    """A header again."""
    (
        i,
        workflow_id,
        version,
        status,
        created_at,
        open_steps,
        failed_step,
        error,
        due_at,
        finished_at,
        replays,
    ) = values
    return RunRow(
        i,
        workflow_id,
        version,
        _RUN_STATUS[status],
        created_at,
        open_steps,
        failed_step,
        _to_error(error),
        due_at,
        finished_at,
        replays,
    )


def step_values(instance_id: str, row: StepRow) -> tuple[Any, ...]:
    """A step, all columns."""
    return (
        instance_id,
        row.name,
        row.status.value,
        row.attempt,
        row.failures,
        row.losses,
        row.holder,
        row.queued_at,
        row.started_at,
        row.finished_at,
        row.due_at,
        row.action,
        None if row.result is None else dumps(row.result),
        _error(row.error),
    )


def to_step(values: Sequence[Any]) -> StepRow:
    """A step again, from its columns behind the instance id."""
    (
        name,
        status,
        attempt,
        failures,
        losses,
        holder,
        queued_at,
        started_at,
        finished_at,
        due_at,
        action,
        result,
        error,
    ) = values
    return StepRow(
        name,
        _STATUS[status],
        attempt,
        failures,
        losses,
        holder,
        queued_at,
        started_at,
        finished_at,
        due_at,
        action,
        None if result is None else loads(result),
        _to_error(error),
    )


def join_values(instance_id: str, row: JoinRow) -> tuple[Any, ...]:
    """A join's counter, all columns."""
    groups = {param: [g.open_edges, g.failed_edges, g.winner] for param, g in row.groups.items()}
    return (instance_id, row.name, row.unresolved, row.met, row.failed, row.fired, dumps(groups))


def to_join(values: Sequence[Any]) -> JoinRow:
    """A counter again, from its columns behind the instance id."""
    name, unresolved, met, failed, fired, groups = values
    counts = {param: GroupCount(*group) for param, group in loads(groups).items()}
    return JoinRow(name, unresolved, met, failed, bool(fired), counts)


def letter_values(instance_id: str, workflow_id: str, version: str, row: DeadLetter) -> tuple[Any, ...]:
    """A dead letter, all columns."""
    return (
        instance_id,
        row.step,
        row.attempt,
        row.letter_id,
        workflow_id,
        version,
        row.reason.value,
        _error(row.error),
        row.died_at,
        row.state.value,
        row.settled_at,
        row.next_attempt,
    )


def to_letter(values: Sequence[Any]) -> DeadLetter:
    """A dead letter again, from its columns behind the instance id."""
    step, attempt, letter_id, _, _, reason, error, died_at, state, settled_at, next_attempt = values
    return DeadLetter(
        letter_id,
        step,
        attempt,
        DeadLetterReason(reason),
        StepError(**loads(error)),
        died_at,
        DeadLetterState(state),
        settled_at,
        next_attempt,
    )

"""Dispatches as the arguments of commands: one run by itself, or many of one workflow version together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.errors import CallerError, InvalidInputsError, InvalidMessageError
from fuseline.model.inputs import validate_inputs
from fuseline.model.schema import WorkflowSchema, check_id, is_id

RUNS_AT_ONCE: Final = 500
"""Runs of one command at most. They share a message, a transaction and an answer; as many as a coordinator's batch."""
BYTES_AT_ONCE: Final = 256 * 1024
"""Inputs of one command, roughly; one run with larger ones has a command of its own."""

_LEVELS: Final = 4
"""Of a command around the inputs of one of its runs."""
_LEVELS_OF_ONE: Final = 2
"""The same where it is about one run."""

Run = tuple[str, dict[str, Any]]
"""An instance id and its inputs."""


def checked_inputs(workflow: WorkflowSchema, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs as JSON has them. Raises `InvalidInputsError` naming the place of what does not fit."""
    return validate_inputs(workflow, _plain_one(workflow, inputs, _LEVELS_OF_ONE))


def runs_at_once(
    workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None], instance_ids: Sequence[str]
) -> list[list[Run]]:
    """All of them checked, in their order, in parts of a size for one command each.

    Raises `InvalidInputsError` naming which of the runs is wrong, and where, `InvalidSchemaError` likewise of an id that
    can be none; `CallerError` unless there are as many ids.
    """
    if len(inputs) != len(instance_ids):
        raise CallerError(
            f"{len(inputs)} inputs and {len(instance_ids)} instance ids: each run has one of both"
        )
    return list(_parts(workflow, list(inputs), list(instance_ids)))


def _parts(
    workflow: WorkflowSchema, inputs: list[dict[str, Any] | None], instance_ids: list[str]
) -> Iterator[list[Run]]:
    for first in range(0, len(inputs), RUNS_AT_ONCE):
        places = range(first, min(first + RUNS_AT_ONCE, len(inputs)))
        some = inputs[first : places.stop]
        for place in places:
            if not is_id(instance_ids[place]):
                check_id(f"run {place} of {len(inputs)}: instance_id", instance_ids[place])
        plain, size = _plain(workflow, some, places, len(inputs))
        for place, one in zip(places, plain, strict=True):
            try:
                validate_inputs(workflow, one)
            except InvalidInputsError as error:
                raise InvalidInputsError(f"run {place} of {len(inputs)}: {error}") from error
        runs = list(zip(instance_ids[first : places.stop], plain, strict=True))
        if size <= BYTES_AT_ONCE:
            yield runs
        else:
            yield from _cut(runs)


def _plain(
    workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None], places: Sequence[int], count: int
) -> tuple[list[dict[str, Any]], int]:
    """All of them as JSON has them, and how many bytes that is.

    In one go, in half the time that they take one by one, for which all who could work wait. They are gone through a second
    time only to find out which of them is wrong: what a generator yields is there once.
    """
    try:
        body = codec.encode([one or {} for one in inputs], nesting=codec.UNBOUNDED)
        plain: list[dict[str, Any]] = _parsed(body, levels=_LEVELS - 1)
    except InvalidMessageError as error:
        for place, one in zip(places, inputs, strict=True):
            try:
                _plain_one(workflow, one or {}, _LEVELS)
            except InvalidInputsError as found:
                raise InvalidInputsError(f"run {place} of {count}: {found}") from found
        raise InvalidInputsError(f"inputs of workflow {workflow.workflow_id!r}: {error}") from error
    return plain, len(body)


def _plain_one(workflow: WorkflowSchema, inputs: dict[str, Any], levels: int) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = _parsed(codec.encode(inputs, nesting=codec.UNBOUNDED), levels)
    except InvalidMessageError as error:
        raise InvalidInputsError(f"inputs of workflow {workflow.workflow_id!r}: {error}") from error
    return plain


def _cut(runs: Sequence[Run]) -> Iterator[list[Run]]:
    part: list[Run] = []
    size = 0
    for run in runs:
        bytes_ = len(codec.encode(run[1], nesting=codec.UNBOUNDED))
        if part and size + bytes_ > BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(run)
        size += bytes_
    if part:
        yield part


def _parsed(body: bytes, levels: int) -> Any:
    """What was just encoded, so that no number in it is beyond a double, if it can be read within so many levels more."""
    value = codec.parse(b"[" * levels + body + b"]" * levels)
    for _ in range(levels):
        (value,) = value
    return value

"""Dispatches as the arguments of commands: one run by itself, or many of one workflow version together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.errors import CallerError, InvalidInputsError, InvalidMessageError
from fuseline.model.inputs import validate_inputs
from fuseline.model.schema import WorkflowSchema, check_id, is_id

RUNS_AT_ONCE: Final = 200
"""Runs of one command at most. They share a message, a transaction and an answer, which more would hardly make cheaper."""
BYTES_AT_ONCE: Final = 256 * 1024
"""Inputs of one command, roughly; one run with larger ones has a command of its own."""

_LEVELS: Final = 4
"""Of a command around the inputs of one of its runs."""

Run = tuple[str, dict[str, Any]]
"""An instance id and its inputs."""


def checked_inputs(workflow: WorkflowSchema, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs as JSON has them. Raises `InvalidInputsError` naming the place of what does not fit."""
    return _checked(workflow, inputs)[0]


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
    return list(_parts(workflow, inputs, instance_ids))


def _parts(
    workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None], instance_ids: Sequence[str]
) -> Iterator[list[Run]]:
    for first in range(0, len(inputs), RUNS_AT_ONCE):
        some = slice(first, first + RUNS_AT_ONCE)
        plain = _checked_together(workflow, inputs[some], instance_ids[some])
        if plain is not None:
            yield list(zip(instance_ids[some], plain, strict=True))
        else:
            yield from _parts_one_by_one(workflow, inputs, instance_ids, range(len(inputs))[some])


def _checked_together(
    workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None], instance_ids: Sequence[str]
) -> list[dict[str, Any]] | None:
    """None when they are too large for one command, or one of them is wrong, and it has to be found out which.

    Nearly always nothing is, and in one go it is said in half the time, for which all who could work wait.
    """
    if not all(map(is_id, instance_ids)):
        return None
    try:
        body = codec.encode([one or {} for one in inputs], nesting=codec.UNBOUNDED)
        if len(body) > BYTES_AT_ONCE:
            return None
        plain = _parsed(body, levels=_LEVELS - 1)
        return [validate_inputs(workflow, one) for one in plain]
    except (InvalidMessageError, InvalidInputsError):
        return None


def _parts_one_by_one(
    workflow: WorkflowSchema,
    inputs: Sequence[dict[str, Any] | None],
    instance_ids: Sequence[str],
    places: Sequence[int],
) -> Iterator[list[Run]]:
    part: list[Run] = []
    size = 0
    for place in places:
        check_id(f"run {place} of {len(inputs)}: instance_id", instance_ids[place])
        try:
            plain, bytes_ = _checked(workflow, inputs[place] or {})
        except InvalidInputsError as error:
            raise InvalidInputsError(f"run {place} of {len(inputs)}: {error}") from error
        if part and size + bytes_ > BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append((instance_ids[place], plain))
        size += bytes_
    if part:
        yield part


def _checked(workflow: WorkflowSchema, inputs: dict[str, Any]) -> tuple[dict[str, Any], int]:
    try:
        body = codec.encode(inputs, nesting=codec.UNBOUNDED)
        plain: dict[str, Any] = _parsed(body, levels=_LEVELS)
    except InvalidMessageError as error:
        raise InvalidInputsError(f"inputs of workflow {workflow.workflow_id!r}: {error}") from error
    return validate_inputs(workflow, plain), len(body)


def _parsed(body: bytes, levels: int) -> Any:
    """What was just encoded, so that no number in it is beyond a double, if it can be read within so many levels more."""
    value = codec.parse(b"[" * levels + body + b"]" * levels)
    for _ in range(levels):
        (value,) = value
    return value

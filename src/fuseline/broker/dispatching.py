"""Dispatches as the arguments of commands: one run by itself, or many of one workflow version together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.errors import CallerError, InvalidInputsError, InvalidMessageError
from fuseline.model.inputs import validate_inputs
from fuseline.model.schema import WorkflowSchema, check_id

RUNS_AT_ONCE: Final = 200
"""Runs of one command at most. They share a message, a transaction and an answer, which more would hardly make cheaper."""
BYTES_AT_ONCE: Final = 256 * 1024
"""Inputs of one command, roughly; one run with larger ones has a command of its own."""

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
    part: list[Run] = []
    size = 0
    for place, (instance_id, one) in enumerate(zip(instance_ids, inputs, strict=True)):
        check_id(f"run {place} of {len(inputs)}: instance_id", instance_id)
        try:
            plain, bytes_ = _checked(workflow, one or {})
        except InvalidInputsError as error:
            raise InvalidInputsError(f"run {place} of {len(inputs)}: {error}") from error
        if part and (len(part) >= RUNS_AT_ONCE or size + bytes_ > BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append((instance_id, plain))
        size += bytes_
    if part:
        yield part


def _checked(workflow: WorkflowSchema, inputs: dict[str, Any]) -> tuple[dict[str, Any], int]:
    try:
        body = codec.encode(inputs)
        plain: dict[str, Any] = codec.decode(body)
    except InvalidMessageError as error:
        raise InvalidInputsError(f"inputs of workflow {workflow.workflow_id!r}: {error}") from error
    return validate_inputs(workflow, plain), len(body)

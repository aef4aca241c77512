"""Values as they come out of JSON, so that a broker in this process gives and takes what one over a wire would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from fuseline.amqp.codec import MAX_WRAPPED_NESTING, decode, encode
from fuseline.errors import (
    InvalidInputsError,
    InvalidMessageError,
    InvalidSchemaError,
    MessageTooLargeError,
)
from fuseline.model.inputs import validate_inputs
from fuseline.model.schema import WorkflowSchema


def as_json(value: Any, what: str, max_bytes: int) -> Any:
    """`value` as it comes out of JSON, sharing nothing with the caller's.

    Raises `InvalidMessageError` and `MessageTooLargeError`, which say `what` it is.
    """
    try:
        body = encode(value)
    except InvalidMessageError as error:
        raise InvalidMessageError(f"{what}: {error}") from error
    if len(body) > max_bytes:
        raise MessageTooLargeError(f"{what} has {len(body)} bytes, over {max_bytes}")
    return decode(body)


def check_definition(workflow: WorkflowSchema) -> None:
    """Raise `InvalidSchemaError` naming the place of what JSON cannot express: nobody could be shown the workflow."""
    try:
        encode(workflow)
    except InvalidMessageError as error:
        raise InvalidSchemaError(f"workflow {workflow.workflow_id!r}: {error}") from error


def checked_inputs(workflow: WorkflowSchema, inputs: dict[str, Any] | None, max_bytes: int) -> dict[str, Any]:
    """A run's inputs, plain and valid. Raises `InvalidInputsError` naming the field, `MessageTooLargeError`."""
    given = {} if inputs is None else inputs
    try:
        checked = as_json(given, f"inputs of workflow {workflow.workflow_id!r}", max_bytes)
    except InvalidMessageError as error:
        raise InvalidInputsError(str(error)) from error
    return validate_inputs(workflow, checked)


def all_checked_inputs(
    workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None], max_bytes: int
) -> list[dict[str, Any]]:
    """The inputs of many runs. Raises as `checked_inputs` does, and says of which run."""
    checked = []
    for place, one in enumerate(inputs):
        try:
            checked.append(checked_inputs(workflow, one, max_bytes))
        except InvalidInputsError as error:
            raise InvalidInputsError(f"run {place} of {len(inputs)}: {error}") from error
    return checked


def detached(payload: dict[str, Any]) -> dict[str, Any]:
    """A copy: a worker in this process may change what it gets, and storage keeps its own. It came out of JSON before."""
    body = to_json(payload)
    try:
        copied: dict[str, Any] = from_json(body, cache_strings="keys")
    except ValueError:  # it goes deeper than this parser does
        copied = decode(body, nesting=MAX_WRAPPED_NESTING)
    return copied

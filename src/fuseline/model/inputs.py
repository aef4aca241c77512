"""Run inputs against a workflow's input schema, before anything is half done (P7)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs

from fuseline.errors import InvalidInputsError, InvalidSchemaError
from fuseline.model.schema import WorkflowSchema


def validate_inputs(schema: WorkflowSchema, inputs: dict[str, Any]) -> dict[str, Any]:
    """`inputs` unchanged, if they fit `schema.inputs_schema` (JSON Schema, draft 2020-12); without one, all do.

    Raises `InvalidInputsError` naming the first field that does not fit, and `InvalidSchemaError` when the input schema
    is itself no JSON Schema.
    """
    if not isinstance(inputs, dict):
        raise InvalidInputsError(
            f"inputs of workflow {schema.workflow_id!r} are not an object: {inputs!r:.100}"
        )
    if schema.inputs_schema is None:
        return inputs
    validator = _validator(schema.inputs_text)
    try:
        error = None if validator.is_valid(inputs) else next(iter(validator.iter_errors(inputs)), None)
    except (TypeError, ValueError) as problem:
        raise InvalidInputsError(
            f"inputs of workflow {schema.workflow_id!r} are not JSON: {problem}"
        ) from problem
    if error is not None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        where = f"input {place.lstrip('.')!r}: " if place else ""
        raise InvalidInputsError(f"workflow {schema.workflow_id!r}: {where}{error.message}")
    return inputs


def check_inputs_schema(schema: WorkflowSchema) -> None:
    """Raise `InvalidSchemaError` unless `schema.inputs_schema` is a JSON Schema that can be used here (or None)."""
    if schema.inputs_schema is not None:
        _validator(schema.inputs_text)


@lru_cache(maxsize=1024)
def _validator(text: str) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(json.loads(text), retriever=_fetch_nothing)
    except ValueError as error:
        message = getattr(error, "message", str(error))
        raise InvalidSchemaError(f"inputs_schema is not a JSON Schema: {message}") from error


def _fetch_nothing(uri: str) -> NoReturn:
    """A schema comes from whoever registers it: it must not make this process read files or ask servers."""
    raise ValueError(f"inputs_schema must hold all that it refers to, and does not hold {uri}")

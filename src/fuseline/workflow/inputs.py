"""A workflow's inputs: their JSON Schema, and the check before a run in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python

from fuseline.errors import InvalidInputsError, InvalidSchemaError
from fuseline.workflow.bind import BoundParameter
from fuseline.workflow.convert import ResultError, problems_of, to_plain_json
from fuseline.workflow.signature import MISSING, Source

_Key = tuple[str, str]


def input_parameters(parameters: Iterable[BoundParameter]) -> list[BoundParameter]:
    """Those that take their value from the run's inputs."""
    return [
        one for one in parameters if not one.sources and one.parameter.source in (Source.INPUT, Source.INPUTS)
    ]


def inputs_schema(parameters: Iterable[BoundParameter]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an object of all inputs that the parameters take.

    An input is required when one of its parameters has no default. Several parameters of a name and different types:
    the input has to fit all of them. Other inputs are refused, unless somebody takes them as `**inputs`. Raises
    `InvalidSchemaError` naming the parameter whose type has no JSON Schema.
    """
    wanted = input_parameters(parameters)
    others = any(one.parameter.source is Source.INPUTS for one in wanted)
    named = [one for one in wanted if one.parameter.source is Source.INPUT]
    schemas, definitions = _json_schemas(named)
    properties: dict[str, dict[str, Any]] = {}
    defaults: dict[str, list[Any]] = {}
    for one, schema in zip(named, schemas, strict=True):
        name = one.parameter.name
        properties[name] = _both(properties.get(name, {}), schema)
        defaults.setdefault(name, []).append(one.parameter.default)
    required = [name for name, values in defaults.items() if any(one is MISSING for one in values)]
    for name, values in defaults.items():
        said = [_default(one) for one in values]
        if name not in required and all(one == said[0] for one in said):
            properties[name] = properties[name] | said[0]
    result: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        result["required"] = required
    if not others:
        result["additionalProperties"] = False
    if definitions:
        result["$defs"] = definitions
    return result


def check_inputs(
    workflow_id: str, parameters: Iterable[BoundParameter], inputs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Inputs as JSON, if every parameter can be made of them; what fits by conversion (`"7"` for an int) will do.

    Raises `InvalidInputsError` naming the first input that is missing, unknown, does not fit or has no JSON form.
    """
    plain = plain_inputs(workflow_id, inputs)
    wanted = input_parameters(parameters)
    names = {one.parameter.name for one in wanted if one.parameter.source is Source.INPUT}
    where = f"workflow {workflow_id!r}: input"
    for one in wanted:
        parameter = one.parameter
        if parameter.source is Source.INPUTS:
            names |= plain.keys()
        elif parameter.name not in plain:
            if parameter.default is MISSING:
                raise InvalidInputsError(f"{where} {parameter.name!r} is missing (step {_step_of(one)})")
        elif parameter.converter is not None:
            try:
                parameter.converter.from_json(plain[parameter.name])
            except ValidationError as error:
                raise InvalidInputsError(f"{where} {parameter.name!r}: {problems_of(error)}") from error
    for name in plain:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise InvalidInputsError(f"{where} {name!r} is unknown (known: {known})")
    return plain


def plain_inputs(workflow_id: str, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Inputs in JSON types: dates, paths, models and the like become what JSON has for them.

    Raises `InvalidInputsError` when they are no mapping of names, or one has no JSON form.
    """
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        raise InvalidInputsError(f"inputs of workflow {workflow_id!r} are not an object: {inputs!r:.100}")
    plain = {}
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise InvalidInputsError(
                f"workflow {workflow_id!r}: the name of an input is a string, not {name!r}"
            )
        try:
            plain[name] = to_plain_json(value, f"workflow {workflow_id!r}: input {name!r}")
        except ResultError as error:
            raise InvalidInputsError(str(error)) from error
    return plain


def _json_schemas(named: list[BoundParameter]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    adapters: list[tuple[_Key, Literal["validation"], TypeAdapter[Any]]] = []
    for index, one in enumerate(named):
        if one.parameter.converter is not None:
            adapter = one.parameter.converter.adapter
            try:
                adapter.json_schema()
            except PydanticInvalidForJsonSchema as error:
                raise InvalidSchemaError(
                    f"{one.where}: its type has no JSON Schema: {str(error).splitlines()[0]}"
                ) from error
            adapters.append(((str(index), one.parameter.name), "validation", adapter))
    by_key, rest = TypeAdapter.json_schemas(adapters)
    found = {key[0]: schema for (key, _), schema in by_key.items()}
    return [dict(found.get(str(index), {})) for index in range(len(named))], rest.get("$defs", {})


def _default(value: Any) -> dict[str, Any]:
    try:
        return {"default": to_jsonable_python(value)}
    except (PydanticSerializationError, ValueError):
        return {}


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    if one == other or not other:
        return one
    if not one:
        return other
    known = one["allOf"] if one.keys() == {"allOf"} else [one]
    return one if other in known else {"allOf": [*known, other]}


def _step_of(one: BoundParameter) -> str:
    return one.where.removeprefix("step ").partition(":")[0]

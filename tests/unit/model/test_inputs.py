"""Run inputs against the workflow's input schema: what is wrong is named before anything begins (P7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fuseline.errors import InvalidInputsError, InvalidSchemaError
from fuseline.model import StepSchema, WorkflowSchema
from fuseline.model.inputs import check_inputs_schema, validate_inputs


def workflow(shape: dict[str, Any] | None) -> WorkflowSchema:
    return WorkflowSchema(workflow_id="w", steps={"a": StepSchema(name="a")}, inputs_schema=shape)


SHAPE = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "pages": {"type": "array", "items": {"type": "object", "properties": {"url": {"type": "string"}}}},
        "node": {"$ref": "#/$defs/node"},
    },
    "required": ["n"],
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}


@pytest.mark.parametrize(
    "inputs",
    [{"n": 1}, {"n": 1, "more": None}, {"n": 1, "pages": [{"url": "x"}]}, {"n": 1, "node": {"next": {}}}],
)
def test_inputs_that_fit_come_back_unchanged(inputs: dict[str, Any]) -> None:
    assert validate_inputs(workflow(SHAPE), inputs) is inputs


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "workflow 'w': \"n\" is a required property"),
        ({"n": "1"}, "workflow 'w': input 'n': \"1\" is not of type \"integer\""),
        ({"n": 1, "pages": [{"url": "x"}, {"url": 2}]}, "input 'pages[1].url': 2 is not of type"),
        ({"n": 1, "node": {"next": {"next": 3}}}, "input 'node.next.next': 3 is not"),
        ({"n": 1, 2: 3}, "inputs of workflow 'w' are not JSON"),
        ({"n": b"bytes"}, "inputs of workflow 'w' are not JSON: Unsupported type: 'bytes'"),
        ({"n": "\ud800"}, "inputs of workflow 'w' are not JSON"),
        ([1], "inputs of workflow 'w' are not an object: [1]"),
        (None, "inputs of workflow 'w' are not an object: None"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_field_named(inputs: Any, message: str) -> None:
    with pytest.raises(InvalidInputsError) as raised:
        validate_inputs(workflow(SHAPE), inputs)
    assert message in str(raised.value)


def test_without_a_schema_any_object_will_do() -> None:
    inputs = {"anything": [1, None]}
    assert validate_inputs(workflow(None), inputs) is inputs
    check_inputs_schema(workflow(None))
    with pytest.raises(InvalidInputsError, match="not an object"):
        validate_inputs(workflow(None), [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shape", [{"type": "thing"}, {"properties": 3}, {"$ref": "#/$defs/missing"}, {"pattern": "("}]
)
def test_an_inputs_schema_that_is_none_is_refused_when_it_is_registered(shape: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchemaError, match="inputs_schema is not a JSON Schema: ") as raised:
        check_inputs_schema(workflow(shape))
    assert "\n" not in str(raised.value)


def test_an_inputs_schema_makes_nobody_read_files_or_ask_servers(tmp_path: Path) -> None:
    """It comes from whoever may register a workflow."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "string"}')
    for uri in (secret.as_uri(), "http://127.0.0.1:9/schema"):
        with pytest.raises(InvalidSchemaError, match="must hold all that it refers to, and does not hold"):
            check_inputs_schema(workflow({"$ref": uri}))


def test_an_inputs_schema_is_written_down_once_and_not_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand runs are dispatched in one call."""
    flow = workflow(SHAPE)
    validate_inputs(flow, {"n": 1})
    monkeypatch.setattr(json, "dumps", None)
    for number in range(100):
        validate_inputs(flow, {"n": number})


def test_a_copy_with_another_inputs_schema_goes_by_that() -> None:
    flow = workflow(SHAPE)
    validate_inputs(flow, {"n": 1})
    other = flow.model_copy(update={"inputs_schema": {"required": ["m"]}})
    with pytest.raises(InvalidInputsError, match='"m" is a required property'):
        validate_inputs(other, {"n": 1})
    validate_inputs(flow.model_copy(update={"inputs_schema": None}), {})

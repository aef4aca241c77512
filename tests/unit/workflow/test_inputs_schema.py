"""The JSON Schema of a workflow's inputs, made of annotations."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from fuseline import Depends, InvalidInputsError, InvalidSchemaError, StepContext, Workflow, step
from fuseline.model.inputs import validate_inputs


class Address(BaseModel):
    street: str


class Customer(BaseModel):
    address: Address


class Size(enum.Enum):
    SMALL = "s"


def schema_of(*functions: Any) -> dict[str, Any]:
    schema = Workflow(outputs=list(functions)).to_schema().inputs_schema
    assert schema is not None
    return schema


def test_without_parameters_there_are_no_inputs() -> None:
    def nothing(ctx: StepContext) -> int:
        return 1

    assert schema_of(nothing) == {"type": "object", "properties": {}, "additionalProperties": False}


def test_types_defaults_and_constraints_come_from_the_annotations() -> None:
    def order(  # type: ignore[no-untyped-def]  # without an annotation everything is taken
        customer: Customer,
        count: Annotated[int, Field(ge=1, description="How many")],
        day: dt.date,
        size: Size = Size.SMALL,
        note: str | None = None,
        anything=None,
        odd: Any = object(),  # noqa: B008 - a default that has no JSON form is left out of the schema
    ) -> int:
        return count

    schema = schema_of(order)
    assert schema["required"] == ["customer", "count", "day"]
    properties = schema["properties"]
    assert properties["customer"] == {"$ref": "#/$defs/Customer"}
    assert set(schema["$defs"]) == {"Address", "Customer", "Size"}
    assert properties["count"] == {"type": "integer", "minimum": 1, "description": "How many"}
    assert properties["day"] == {"type": "string", "format": "date"}
    assert properties["size"]["default"] == "s"
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["anything"] == {"default": None}
    assert properties["odd"] == {}


def test_results_of_other_steps_are_no_inputs() -> None:
    def one(a: int) -> int:
        return a

    def two(b: int, one: int = Depends(one)) -> int:
        return b + one

    assert set(schema_of(two)["properties"]) == {"a", "b"}


def test_an_input_of_several_steps_has_to_fit_all_of_them_and_is_required_by_any() -> None:
    def one(n: int, m: int = 3) -> int:
        return n

    def two(n: Annotated[int, Field(le=10)], m: int = 3) -> int:
        return n

    def three(n=7, m: int = 3) -> int:  # type: ignore[no-untyped-def]  # without an annotation everything is taken
        return int(n)

    def four(n: Annotated[int, Field(ge=0)]) -> int:
        return n

    def five(n=8) -> int:  # type: ignore[no-untyped-def]  # as above
        return int(n)

    assert schema_of(five, one)["properties"]["n"] == {"type": "integer"}
    assert schema_of(three, five)["properties"]["n"] == {}
    assert schema_of(five)["properties"]["n"] == {"default": 8}
    schema = schema_of(one, two, three, four)
    assert schema["required"] == ["n"]
    assert schema["properties"]["m"] == {"type": "integer", "default": 3}
    workflow = Workflow(outputs=[one, two, three, four])
    assert validate_inputs(workflow.to_schema(), {"n": 10}) == {"n": 10}
    for wrong in (11, -1, "3"):
        with pytest.raises(InvalidInputsError, match="'n'"):
            validate_inputs(workflow.to_schema(), {"n": wrong})


def test_the_schema_alone_names_the_place_that_does_not_fit() -> None:
    def order(customer: Customer) -> int:
        return 1

    schema = Workflow(outputs=[order]).to_schema()
    assert validate_inputs(schema, {"customer": {"address": {"street": "a"}}})
    with pytest.raises(InvalidInputsError, match=r"customer\.address\.street"):
        validate_inputs(schema, {"customer": {"address": {"street": 1}}})
    with pytest.raises(InvalidInputsError, match="costumer"):
        validate_inputs(schema, {"customer": {"address": {"street": "a"}}, "costumer": 1})


def test_two_models_of_one_name_do_not_mix() -> None:
    def make(field: str) -> type[BaseModel]:
        return type("Model", (BaseModel,), {"__annotations__": {field: int}})

    one_model, two_model = make("a"), make("b")

    @step
    def one(x: one_model) -> int:  # type: ignore[valid-type]  # made at run time
        return 1

    @step
    def two(y: two_model) -> int:  # type: ignore[valid-type]  # made at run time
        return 1

    schema = Workflow(outputs=[one, two]).to_schema()
    assert validate_inputs(schema, {"x": {"a": 1}, "y": {"b": 2}})
    with pytest.raises(InvalidInputsError):
        validate_inputs(schema, {"x": {"b": 1}, "y": {"b": 2}})


def test_a_type_without_a_json_schema_is_named() -> None:
    def call(back: Callable[[int], int]) -> int:
        return 1

    with pytest.raises(
        InvalidSchemaError, match=r"step 'call': parameter 'back': its type has no JSON Schema"
    ):
        Workflow(outputs=[call])

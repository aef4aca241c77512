"""Results become JSON at once and strictly; what cannot is an error that names the step and the place (P7)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, PlainSerializer, field_serializer

from fuseline import Branch, RetryPolicy, RunFailed, Workflow, step
from fuseline.errors import MessageTooLargeError
from fuseline.model import Cause, RunView
from fuseline.workflow.convert import MAX_NESTING, Converter, ResultError, result_to_json, to_plain_json


class Measure(BaseModel):
    value: Any


class Sample(BaseModel):
    mean: float
    other: float | None


@dataclass
class Holder:
    things: list[Any]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (math.nan, " is nan, which JSON cannot express"),
        (-math.inf, " is -inf, which JSON cannot express"),
        ([1, {"a": math.inf}], " at [1].a is inf, which JSON cannot express"),
        (Sample(mean=math.nan, other=None), " at mean is nan, which JSON cannot express"),
        (Measure(value=math.nan), " at value is nan, which JSON cannot express"),
        (object(), " is of type object, which has no JSON form"),
        ({"rows": [1, print]}, " at rows[1] is of type builtin_function_or_method, which has no JSON form"),
        (Holder([1, {2: object()}]), " at things[1].2 is of type object, which has no JSON form"),
        ("\ud800", " has a lone surrogate, which JSON cannot express"),
        ({"a": {"\ud800": 1}}, " at a (the key '\\ud800') has a lone surrogate, which JSON cannot express"),
        (
            b"\xff",
            " is of type bytes, which has no JSON form (",
        ),
        (10**4300, " has a number of more than 4300 digits, which parsers refuse"),
        (nested(MAX_NESTING + 1), f" nests more than {MAX_NESTING} deep"),
        (nested(5000), " refers to itself or nests too deep"),
        (circular(), " refers to itself or nests too deep"),
    ],
    ids=[str(index) for index in range(15)],  # some of these values have no text either
)
def test_what_has_no_json_form_is_named_with_its_place(value: Any, problem: str) -> None:
    with pytest.raises(ResultError) as caught:
        to_plain_json(value, "the result")
    assert str(caught.value).startswith(f"the result{problem}")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**80),
        1.5,
        "text with NaN and Infinity",
        {"NaN": "Infinity"},
        "prüfe \U0001f600",
        "\x00",
        [],
        nested(MAX_NESTING),
        [[] for _ in range(MAX_NESTING * 2)],
        {"a": [1, None, {"b": "c"}]},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_stays_what_it_is_and_shares_nothing(value: Any) -> None:
    plain = to_plain_json(value, "the result")
    assert plain == value
    assert type(plain) is type(value)
    if isinstance(value, list | dict):
        assert plain is not value


def test_a_result_that_is_too_large_says_how_large_it_is() -> None:
    assert to_plain_json("x" * 98, "the result", 100) == "x" * 98
    with pytest.raises(MessageTooLargeError, match="the result is 101 bytes of JSON, and 100 are allowed"):
        to_plain_json("x" * 99, "the result", 100)


def test_an_annotation_that_cannot_be_serialized_is_named() -> None:
    class Broken(BaseModel):
        n: int

        @field_serializer("n")
        def _fail(self, _n: int) -> str:
            raise ValueError("cannot say it")

    with pytest.raises(
        ResultError, match=r"the result is of type Broken, which has no JSON form \(.*cannot say it"
    ):
        result_to_json(Broken(n=1), None, "the result")


def test_an_annotation_that_cannot_say_its_value_is_to_blame() -> None:
    def fail(_value: Any) -> Any:
        raise ValueError("cannot say it")

    converter = Converter(Annotated[int, PlainSerializer(fail)])
    with pytest.raises(ResultError, match=r"the result has no JSON form: .*cannot say it"):
        result_to_json(1, converter, "the result")


def test_an_annotation_that_cannot_be_hashed_converts_too() -> None:
    assert Converter(Annotated[int, ["not", "hashable"]]).from_json("7") == 7


def test_a_number_that_is_not_finite_is_found_behind_an_annotation_too() -> None:
    for annotation, value, place in (
        (float, math.nan, ""),
        (list[float], [1.0, math.nan], " at [1]"),
        (Sample, Sample(mean=math.nan, other=None), " at mean"),
    ):
        with pytest.raises(ResultError, match=re.escape(f"the result{place} is nan")):
            result_to_json(value, Converter(annotation), "the result")


def failed(workflow: Workflow) -> RunView:
    with pytest.raises(RunFailed) as caught:
        workflow.run()
    assert isinstance(caught.value.run, RunView)
    return caught.value.run


def test_a_result_without_a_json_form_fails_the_step_with_an_error_that_says_so_and_is_not_tried_again() -> (
    None
):
    calls: list[int] = []

    @step(policies=[RetryPolicy(3)])
    def measure() -> object:
        calls.append(1)
        return {"mean": math.nan}

    error = failed(Workflow(outputs=[measure])).error
    assert error is not None
    assert error.message == "step 'measure': the result at mean is nan, which JSON cannot express"
    assert error.cause is Cause.INVALID
    assert calls == [1]


def test_a_result_that_does_not_fit_its_annotation_fails_the_step() -> None:
    @step
    def count() -> list[int]:
        return [1, "many"]  # type: ignore[list-item]  # the mismatch is what is tested

    error = failed(Workflow(outputs=[count])).error
    assert error is not None
    assert error.message.startswith(
        "step 'count': the result does not fit its annotation: [1]: Input should be"
    )
    assert error.cause is Cause.INVALID


def test_a_long_list_of_problems_is_cut() -> None:
    @step
    def count() -> list[int]:
        return ["a", "b", "c", "d", "e"]  # type: ignore[list-item]  # the mismatch is what is tested

    error = failed(Workflow(outputs=[count])).error
    assert error is not None
    assert error.message.endswith("and 2 more")


def test_the_value_of_a_branch_is_not_checked_by_the_annotation() -> None:
    @step
    def count() -> int:
        return Branch("many", "a lot")  # type: ignore[return-value]  # what users do

    assert Workflow(outputs=[count]).run() == "a lot"


def test_an_annotation_that_may_be_a_branch_speaks_of_the_other_value() -> None:
    @step
    def count(n: str) -> int | Branch:
        return Branch("x", n) if n == "a lot" else n  # type: ignore[return-value]  # pydantic makes the int

    workflow = Workflow(outputs=[count])
    assert workflow.run({"n": "7"}) == 7
    assert workflow.run({"n": "a lot"}) == "a lot"


def test_an_annotation_that_does_not_resolve_says_nothing_about_the_result() -> None:
    def source():  # type: ignore[no-untyped-def]  # its annotation is set below
        return {"a": 1}

    source.__annotations__ = {"return": "NotThere"}
    assert Workflow(outputs=[source]).run() == {"a": 1}

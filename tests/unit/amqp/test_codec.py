"""P7: what cannot travel is refused where it is made, with its place; what is read was really JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fuseline.amqp import codec
from fuseline.amqp.codec import MAX_NESTING, MAX_WRAPPED_NESTING, decode, encode, encode_plain
from fuseline.errors import InvalidMessageError
from fuseline.model import Status, StepAssignment, StepReport

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Model(BaseModel):
    number: float = 0.0
    inner: Any = None


@dataclasses.dataclass
class Data:
    number: float


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@given(json_values)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert decode(encode(value)) == value


@given(json_values)
def test_every_json_parser_reads_it(value: Any) -> None:
    assert json.loads(encode(value)) == value


def report(result: Any) -> StepReport:
    return StepReport(
        workflow_id="w",
        instance_id="i",
        step_name="s",
        state=Status.SUCCEEDED,
        result=result,
        finished_at=1.0,
    )


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "value"),
        ({"rows": [1, {"x": math.inf}]}, "rows[1].x"),
        ({"rows": [1, -math.inf]}, "rows[1]"),
        ({"m": Model(number=math.nan)}, "m.number"),
        (Model(inner=[math.nan]), "inner[0]"),
        ({"d": Data(math.inf)}, "d.number"),
        (
            report({"a": [math.nan]}),
            "a[0]",
        ),
        (report({"a": None, "b": [math.inf]}), "b[0]"),
        (report({"text": "null", "m": Model(number=math.nan)}), "m.number"),
        (report(math.nan), "result"),
        ({"a": "\ud800"}, "a is a lone surrogate"),
        ({"a": ["x", "\udfff y"]}, "a[1] is a lone surrogate"),
        ({"\ud800": 1}, "key '\\ud800'"),
        ({"a": {"b": object()}}, "a.b is of type object"),
        ({"a": b"\xff"}, "a is of type bytes"),
    ],
)
def test_what_json_cannot_express_is_named_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        encode(value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"rows": [1, {"x": math.nan}]}, "rows[1].x"),
        ({"a": None, "rows": [1, -math.inf]}, "rows[1]"),
        ({"a": ["x", "\udfff y"]}, "a[1] is a lone surrogate"),
        ({"a": {"b": object()}}, "a.b is of type object"),
    ],
)
def test_of_plain_values_it_is_named_too(value: Any, place: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        encode_plain(value)
    assert place in str(caught.value)


def test_the_fields_of_an_assignment_are_written_as_the_assignment_is() -> None:
    made = StepAssignment(
        workflow_id="w",
        instance_id="i",
        step_name="s",
        payload={"workflow_inputs": {"x": 1e300}, "results": {"a": None, "b": ["ä", 1.0]}},
        assigned_at=1.5,
        expires_at=1e9,
    )
    assert encode_plain(vars(made)) == encode(made)


@pytest.mark.parametrize("encoded", [encode, encode_plain])
def test_texts_that_only_look_like_numbers_that_are_none_may_pass(encoded: Any) -> None:
    value = {"a": "NaN", "b": ["Infinity"], "NaN": None}
    assert decode(encoded(value)) == value


@pytest.mark.parametrize("text", ["Infinity", "1e999", "0193e123", "9" * 300, "x 1e+0309"])
def test_texts_that_only_look_like_numbers_that_are_too_large_are_read(text: str) -> None:
    value = {"id": "0193e12300e000", "a": [text, 1e300, -1.5e-305], text: None}
    assert decode(json.dumps(value).encode()) == value


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidMessageError, match="itself"):
        encode(value)


def test_models_dates_and_sets_have_a_json_form() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    assert decode(encode({"m": Model(number=1.5), "d": Data(2.0), "t": when, "s": {1}})) == {
        "m": {"number": 1.5, "inner": None},
        "d": {"number": 2.0},
        "t": "2026-01-02T00:00:00Z",
        "s": [1],
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b'{"a": -Infinity}',
        b"1e999",
        b"-1.5E+999",
        b'{"a":1e999}',
        b"[0,1e999]",
        b"[ 1e999]",
        b'{"id": "0193e123", "a":\n1e0999}',
        b'{"a": [' + b"9" * 400 + b".5]}",
        b'{"a": ' + b"9" * 250 + b"e99}",
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xff",
        b"{} x",
    ],
)
@pytest.mark.parametrize("nesting", [MAX_NESTING, MAX_WRAPPED_NESTING])
def test_what_is_not_strict_json_is_refused(body: bytes, nesting: int) -> None:
    with pytest.raises(InvalidMessageError):
        decode(body, nesting=nesting)
    deep = b"[" * 210 + b"0," + body + b"]" * 210
    with pytest.raises(InvalidMessageError):
        decode(deep, nesting=nesting)


def test_large_integers_are_numbers() -> None:
    assert decode(b"9" * 400) == int("9" * 400)


def test_nesting_is_bounded_and_what_was_accepted_can_be_passed_on_inside_something_else() -> None:
    assert decode(encode(nested(MAX_NESTING))) == nested(MAX_NESTING)
    with pytest.raises(InvalidMessageError):
        encode(nested(MAX_NESTING + 1))
    with pytest.raises(InvalidMessageError):
        decode(b"[" * 202 + b"]" * 202)
    wrapped = {"payload": {"results": {"step": nested(MAX_NESTING)}}}
    body = encode(wrapped, nesting=MAX_WRAPPED_NESTING)
    assert decode(body, nesting=MAX_WRAPPED_NESTING) == wrapped
    with pytest.raises(InvalidMessageError):
        encode(nested(MAX_WRAPPED_NESTING + 1), nesting=MAX_WRAPPED_NESTING)
    with pytest.raises(InvalidMessageError):
        decode(b"[" * 251 + b"]" * 251, nesting=MAX_WRAPPED_NESTING)
    with pytest.raises(InvalidMessageError):
        decode(b"[" * 100_000, nesting=MAX_WRAPPED_NESTING)


@pytest.mark.parametrize("levels", [251, 330, 400, 600, 900, 990, 5_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_whatever_nests_too_deep_is_no_message(levels: int, begin: bytes, end: bytes) -> None:
    """P1: one that the parser could read and nobody else would end a coordinator, and the next one."""
    with pytest.raises(InvalidMessageError):
        decode(begin * levels + b"0" + end * levels, nesting=MAX_WRAPPED_NESTING)


def test_wide_is_not_deep() -> None:
    value: Any = [{"a": []}] * 1_000
    assert decode(encode(value)) == value


def test_properties_say_what_the_message_is() -> None:
    props = codec.properties(
        codec.ASSIGNMENT,
        message_id="m",
        timestamp=12.9,
        correlation_id="run",
        expiration_seconds=0.0001,
        traceparent="00-a-b-01",
        headers={"x": 1},
    )
    assert (props.delivery_mode, props.content_type, props.type) == (2, "application/json", codec.ASSIGNMENT)
    assert (props.message_id, props.correlation_id, props.timestamp) == ("m", "run", 12)
    assert props.headers == {"x": 1, "traceparent": "00-a-b-01"}
    assert codec.traceparent_of(props) == "00-a-b-01"
    assert props.expiration == "1", "0 would mean: only if a consumer waits"


def test_an_expiration_stays_in_the_range_that_rabbitmq_takes() -> None:
    def expiration(seconds: float) -> object:
        return codec.properties("t", message_id="m", timestamp=0, expiration_seconds=seconds).expiration

    assert expiration(1e12) == str(2**32 - 1)
    assert expiration(-5) == "0"
    assert expiration(1.5) == "1500"


def test_a_message_without_a_trace_has_none() -> None:
    assert codec.traceparent_of(codec.properties("t", message_id="m", timestamp=0)) is None
    assert codec.traceparent_of(codec.Properties(headers={"traceparent": 7})) is None

"""Bytes and properties of the messages. JSON, strictly: what is written here every language can read.

The `type` property says what a body is. `Properties` is pika's, so that nothing is copied on the way; other rooms make
it with `properties()` and read it as `Delivery.properties`.

JSON parsers bound how deep lists and objects may nest. A result travels on inside other messages (an assignment, a
reply), where it lies deeper than in its own report. So what comes in may nest `MAX_NESTING` deep, and the messages that
carry it on `MAX_WRAPPED_NESTING`: whatever was accepted once can be passed on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, Final, NoReturn, TypeAlias

import pika
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, SchemaSerializer, core_schema, from_json, to_json

from fuseline.errors import InvalidMessageError

Properties: TypeAlias = pika.BasicProperties

ASSIGNMENT: Final = "fuseline.assignment.v1"
REPORT: Final = "fuseline.report.v1"
REPORTS: Final = "fuseline.reports.v1"
"""Several reports of one workflow, each a line: what one worker had to say at one moment."""
CLAIM: Final = "fuseline.claim.v1"
HEARTBEAT: Final = "fuseline.heartbeat.v1"
ECHO: Final = "fuseline.echo.v1"
COMMAND: Final = "fuseline.command.v1"
REPLY: Final = "fuseline.reply.v1"
CONTROL: Final = "fuseline.control.v1"
EVENT: Final = "fuseline.event.v1"
PROBE: Final = (
    "fuseline.probe.v1"  # empty: asks RabbitMQ whether anybody listens to events, who then ignores it
)

CONTENT_TYPE: Final = "application/json"
LINES_CONTENT_TYPE: Final = "application/x-ndjson"
TRACEPARENT: Final = "traceparent"

MAX_NESTING: Final = 200
MAX_WRAPPED_NESTING: Final = 250
UNBOUNDED: Final = 2**63
"""For what is bounded in another way."""

_MAX_EXPIRATION_MS = 2**32 - 1  # RabbitMQ refuses more
_OURS: Final = vars(Properties(content_type=CONTENT_TYPE, delivery_mode=2))
_PLAIN = SchemaSerializer(core_schema.any_schema())


def encode(value: Any, *, nesting: int = MAX_NESTING) -> bytes:
    """`value` (JSON types, pydantic models, dataclasses, dates, ...) as UTF-8 JSON without spaces.

    Raises `InvalidMessageError` for NaN and infinity, lone surrogates, what has no JSON form, and what nests deeper
    than `nesting`; the message names the place (`result.rows[3]`).
    """
    body = encode_plain(value, nesting=nesting)
    if _may_hide_non_finite(value, body):
        _refuse_non_finite(value)
    return body


def encode_plain(value: Any, *, nesting: int = MAX_NESTING) -> bytes:
    """As `encode`, for JSON's own types alone: no model or dataclass in it can hide that a number is not finite."""
    try:
        body = to_json(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError) as error:
        _refuse(value, error)
    # One byte is found, or found missing, far sooner than a word, and most bodies have no capital N or I.
    if (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body):
        _refuse_non_finite(value)
    if len(body) > 2 * nesting and body.count(b"[") + body.count(b"{") > nesting:
        decode(body, nesting=nesting)
    return body


def decode(body: bytes, *, nesting: int = MAX_NESTING) -> Any:
    """The value of a JSON body.

    Raises `InvalidMessageError` when it is not JSON, has NaN, a number beyond a double or a lone surrogate, or nests
    deeper than `nesting`.
    """
    value = parse(body, nesting=nesting)
    refuse_infinity(value)
    return value


def parse(body: bytes, *, nesting: int = MAX_NESTING) -> Any:
    """As `decode`, but that a number beyond a double may be there, as infinity.

    For what a coordinator has sent, which sends none, and for who looks with `refuse_infinity` where one could be.
    """
    try:
        # Values are ids and results, of which no two are alike: keeping them for the next time only fills memory.
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        if "recursion limit" not in str(error) or nesting <= MAX_NESTING:
            raise InvalidMessageError(f"not JSON: {error}") from error
        return _decode_deep(body, nesting)


def refuse_infinity(value: Any, place: str = "") -> None:
    """Raise `InvalidMessageError` if a number in `value`, which was parsed, is beyond a double."""
    # It comes out of the parser as infinity. Writing it again shows that far sooner than searching the body does.
    if b"Infinity" in to_json(value, inf_nan_mode="constants"):
        _refuse_non_finite(value, place)


def properties(
    message_type: str,
    *,
    message_id: str,
    timestamp: float,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    expiration_seconds: float | None = None,
    traceparent: str | None = None,
    headers: Mapping[str, Any] | None = None,
    content_type: str = CONTENT_TYPE,
) -> Properties:
    """Properties of a message of ours, persistent.

    `message_type` is one of the constants above; `correlation_id` the instance_id (of commands and replies: the
    request's id); `timestamp` seconds since the epoch; `expiration_seconds` how long the message may wait in its queue
    (RabbitMQ counts in milliseconds, and 49 days are the most).
    """
    table = dict(headers) if headers else None
    if traceparent is not None:
        table = (table or {}) | {TRACEPARENT: traceparent}
    expiration = None
    if expiration_seconds is not None:
        # Rounded up, so that a positive time never becomes 0, which means "only if a consumer waits".
        expiration = str(min(max(0, math.ceil(expiration_seconds * 1000)), _MAX_EXPIRATION_MS))
    made = Properties.__new__(Properties)
    fields = made.__dict__
    fields.update(_OURS)  # in half the time that pika takes to set each
    fields["content_type"] = content_type
    fields["type"] = message_type
    fields["message_id"] = message_id
    fields["correlation_id"] = correlation_id
    fields["reply_to"] = reply_to
    fields["timestamp"] = int(timestamp)
    fields["expiration"] = expiration
    fields["headers"] = table
    return made


def traceparent_of(props: Properties) -> str | None:
    """The W3C trace context of a message, to pass on; None when there is none."""
    value = (props.headers or {}).get(TRACEPARENT)
    return value if isinstance(value, str) else None


def _may_hide_non_finite(value: Any, body: bytes) -> bool:
    nulls = body.count(b"null")
    if nulls and isinstance(value, BaseModel):
        # Fields without a value are a null each, and nothing is hidden by that.
        nulls -= [type(one) for one in value.__dict__.values()].count(NoneType)
    return nulls > 0 and _hides_non_finite(value)


def _hides_non_finite(value: Any) -> bool:
    """Whether a model or dataclass in `value` holds a NaN or infinity, which pydantic would write as `null`."""
    plain = to_json(_PLAIN.to_python(value), inf_nan_mode="constants", serialize_unknown=True)
    return b"NaN" in plain or b"Infinity" in plain


def _refuse_non_finite(value: Any, place: str = "") -> None:
    """Raise if a number in `value` is not finite; the bytes alone may also mean a text such as "NaN"."""
    for where, one in _leaves(_PLAIN.to_python(value), place):
        if isinstance(one, float) and not math.isfinite(one):
            raise InvalidMessageError(f"{where or 'value'} is {one}, which JSON cannot express")


def _refuse(value: Any, error: Exception) -> NoReturn:
    """Raise with the place of what to_json could not write."""
    try:
        for place, one in _leaves(_PLAIN.to_python(value), ""):
            try:
                to_json(one)
            except (PydanticSerializationError, ValueError) as reason:
                told = "a lone surrogate" if "surrogates" in str(reason) else f"of type {type(one).__name__}"
                raise InvalidMessageError(
                    f"{place or 'value'} is {told}, which JSON cannot express"
                ) from reason
    except (RecursionError, PydanticSerializationError):
        raise InvalidMessageError(f"the value refers to itself or nests too deep: {error}") from error
    raise InvalidMessageError(f"the value has no JSON form: {error}") from error


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """(place, leaf) of all that is no list or object, keys of objects included."""
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(key, str):
                yield f"key {key!r} of {place or 'value'}", key
            yield from _leaves(one, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, one in enumerate(value):
            yield from _leaves(one, f"{place}[{index}]")
    else:
        yield place, value


def _decode_deep(body: bytes, nesting: int) -> Any:
    """As `decode`, with a parser that goes deeper and has to be watched for what it lets through."""

    def refuse_constant(name: str) -> NoReturn:
        raise InvalidMessageError(f"not JSON: {name} is no number")

    try:
        value = json.loads(body, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidMessageError):
            raise
        raise InvalidMessageError(f"not JSON, or nested too deep: {error}") from error
    if _is_deeper(value, nesting):
        raise InvalidMessageError(f"nested more than {nesting} deep")
    for place, one in _leaves(value, ""):
        if isinstance(one, float) and not math.isfinite(one):
            raise InvalidMessageError(f"{place or 'value'} is beyond the range of a double")
        if isinstance(one, str) and not _is_unicode(one):
            raise InvalidMessageError(f"{place or 'value'} has a lone surrogate")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_deeper(value: Any, nesting: int) -> bool:
    # Level by level: what the parser takes may nest deeper than a function may call itself.
    level, found = 0, [value]
    while found := [one for one in found if isinstance(one, dict | list)]:
        level += 1
        if level > nesting:
            return True
        found = [part for one in found for part in (one.values() if isinstance(one, dict) else one)]
    return False

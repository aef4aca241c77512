"""Between JSON and what annotations promise, in both directions, and strictly.

What a step receives is converted by its parameters' annotations; what it returns is checked by the annotation of its
result and becomes JSON at once, so that a run in this process sees exactly what a run over the network does.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from types import CoroutineType
from typing import Any, Final, NamedTuple

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from fuseline.errors import CallerError, MessageTooLargeError

MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
MAX_NESTING: Final = 200
"""How deep lists and objects may nest: JSON parsers bound it, and a result travels inside other messages."""
MAX_DIGITS: Final = 4300
"""Of a number: Python, for one, reads no longer one."""

_ANY: Final = TypeAdapter[Any](Any)
_LONG_NUMBER: Final = re.compile(rb"\d{%d}" % (MAX_DIGITS + 1))
_UNTYPED: Final = (Any, object)
_NESTING: Final = (dict, list)
_MAX_PROBLEMS = 3


class ParameterError(CallerError, ValueError):
    """A value does not fit the parameter that it is for; the message names the step and the parameter."""

    code = "invalid_parameter"


class ResultError(CallerError, ValueError):
    """What a step returned does not fit its annotation, or has no JSON form; the message names step and place."""

    code = "invalid_result"


class UnconvertibleError(TypeError):
    """pydantic knows no way from JSON to this annotation."""


class Converter:
    """One annotation. `adapter` is pydantic's."""

    __slots__ = ("adapter", "annotation")

    def __init__(self, annotation: Any) -> None:
        """Raises `UnconvertibleError`."""
        self.annotation = annotation
        try:
            self.adapter = _adapter(annotation)
        except TypeError as error:  # what is not hashable is not cached
            if "unhashable" not in str(error):
                raise
            self.adapter = _new_adapter(annotation)

    @classmethod
    def of(cls, annotation: Any) -> Converter | None:
        """The converter of an annotation; None when it says nothing (`Any`, `object`)."""
        return None if any(annotation is one for one in _UNTYPED) else cls(annotation)

    def from_json(self, value: Any) -> Any:
        """A JSON value, or an object that fits already, as the annotation wants it. Raises `ValidationError`."""
        try:
            return self.adapter.validator.validate_python(value)
        except ValidationError as problem:
            # A strict model takes a date, a tuple or a set from JSON text only, where there is no other way to say it.
            try:
                return self.adapter.validate_json(to_json(value))
            except (ValidationError, PydanticSerializationError):
                raise problem from None

    def to_plain(self, value: Any) -> Any:
        """A result, checked and converted by the annotation, in JSON types. Raises `ValidationError` and others."""
        # Not by way of the adapter's own methods, which only hand on their many options.
        value = self.adapter.validator.validate_python(value)
        # By alias and round trip: what comes out must be what the same annotation takes in.
        return self.adapter.serializer.to_python(
            value, mode="json", by_alias=True, round_trip=True, warnings=False
        )


def _new_adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UnconvertibleError(str(error).splitlines()[0]) from error


_adapter = lru_cache(maxsize=4096)(_new_adapter)


def fresh(value: Any) -> Any:
    """A JSON value whose lists and objects are nobody else's: a step that changes one changes no other step's."""
    kind = type(value)
    if kind is dict:
        return {key: fresh(one) if type(one) in _NESTING else one for key, one in value.items()}
    if kind is list:
        return [fresh(one) if type(one) in _NESTING else one for one in value]
    return value


def convert_parameter(value: Any, converter: Converter | None, where: str, source: str | None = None) -> Any:
    """`value` for a parameter, the result of step `source` if it is one.

    Raises `ParameterError` that begins with `where`, and names the step.
    """
    if type(value) is dict or type(value) is list:
        value = fresh(value)
    if converter is None:
        return value
    try:
        return converter.from_json(value)
    except ValidationError as error:
        told = "" if source is None else f" (of step {source!r})"
        raise ParameterError(f"{where}{told}: {problems_of(error)}") from error


class Plain(NamedTuple):
    """A value in JSON types, and its JSON, where that was made to look at it."""

    value: Any
    text: bytes | None = None


def result_to_json(
    value: Any, converter: Converter | None, where: str, max_bytes: int = MAX_RESULT_BYTES
) -> Plain:
    """A step's result in JSON types, sharing nothing with `value`.

    Raises `ResultError` that begins with `where` and names the place: the result does not fit its annotation, has no
    JSON form (a file, NaN, a lone surrogate), or nests too deep. Raises `MessageTooLargeError`.
    """
    if type(value) is CoroutineType:
        value.close()
        raise ResultError(f"{where} is a coroutine that nobody awaited: write `async def`")
    if converter is None:
        return _to_plain(value, where, max_bytes)
    try:
        plain = converter.to_plain(value)
    except ValidationError as error:
        raise ResultError(f"{where} does not fit its annotation: {problems_of(error)}") from error
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        # Says the same with its place, unless the annotation is to blame.
        _to_plain(value, where, max_bytes)
        raise ResultError(f"{where} has no JSON form: {error}") from error
    return _checked(plain, value, where, max_bytes)


def to_plain_json(value: Any, where: str, max_bytes: int = MAX_RESULT_BYTES) -> Any:
    """Any value in JSON types, by what it is. Raises `ResultError`, `MessageTooLargeError`."""
    return _to_plain(value, where, max_bytes).value


def _to_plain(value: Any, where: str, max_bytes: int) -> Plain:
    if _is_small(value):
        return Plain(value)
    try:
        plain = to_jsonable_python(value, by_alias=True, round_trip=True, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ResultError(f"{where}{_first_problem(value, error)}") from error
    return _checked(plain, value, where, max_bytes)


def _is_small(value: Any) -> bool:
    """Whether it is JSON as it is, without looking any closer."""
    kind = type(value)
    if kind is int:
        return bool(-(2**63) < value < 2**63)
    return value is None or kind is bool or (kind is float and math.isfinite(value))


def _checked(plain: Any, value: Any, where: str, max_bytes: int) -> Plain:
    """`plain`, which was made of `value`, if it can travel."""
    if _is_small(plain) and plain is not None:
        return Plain(plain)
    try:
        text = to_json(plain, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ResultError(f"{where}{_first_problem(plain, error)}") from error
    if b"NaN" in text or b"Infinity" in text:
        for place, one in _leaves(plain, ""):
            if isinstance(one, float) and not math.isfinite(one):
                raise ResultError(f"{where}{place} is {one}, which JSON cannot express")
    if b"null" in text:
        for place, one in _hidden(plain, value):
            raise ResultError(f"{where}{place} is {one}, which JSON cannot express")
    if text.count(b"[") + text.count(b"{") > MAX_NESTING and _depth(plain) > MAX_NESTING:
        raise ResultError(f"{where} nests more than {MAX_NESTING} deep")
    if len(text) > MAX_DIGITS and _LONG_NUMBER.search(text):
        raise ResultError(f"{where} has a number of more than {MAX_DIGITS} digits, which parsers refuse")
    if len(text) > max_bytes:
        raise MessageTooLargeError(f"{where} is {len(text)} bytes of JSON, and {max_bytes} are allowed")
    return Plain(plain, text)


def _hidden(plain: Any, value: Any) -> Iterator[tuple[str, float]]:
    """(place, number) of what is not finite in `value` and null in `plain`: models and dataclasses write it so."""
    opened = _ANY.dump_python(value, by_alias=True, round_trip=True, warnings=False)
    lost = {
        place: one for place, one in _leaves(opened, "") if isinstance(one, float) and not math.isfinite(one)
    }
    if lost:
        for place, one in _leaves(plain, ""):
            if one is None and place in lost:
                yield place, lost[place]


def problems_of(error: ValidationError) -> str:
    """What pydantic found, on one line, with the places."""
    problems = error.errors(include_url=False, include_context=False)
    told = []
    for one in problems[:_MAX_PROBLEMS]:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        told.append(f"{place.lstrip('.')}: {one['msg']}" if place else one["msg"])
    if len(problems) > _MAX_PROBLEMS:
        told.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(told)


def _first_problem(value: Any, error: Exception) -> str:
    """Where the value cannot be said in JSON, as the end of a sentence."""
    with contextlib.suppress(PydanticSerializationError, ValueError, RecursionError):
        value = _ANY.dump_python(value, warnings=False)  # opens models and dataclasses
    for place, one in _leaves(value, ""):
        if isinstance(one, dict | list | tuple):
            return " refers to itself or nests too deep"
        try:
            to_json(_ANY.dump_python(one, mode="json", warnings=False))
        except (PydanticSerializationError, ValueError) as reason:
            if "surrogates" in str(reason):
                return f"{place} has a lone surrogate, which JSON cannot express"
            why = "" if "unknown type" in str(reason) else f" ({reason})"
            return f"{place} is of type {type(one).__name__}, which has no JSON form{why}"
    return f" has no JSON form: {error}"


def _leaves(value: Any, place: str, limit: int = MAX_NESTING * 2) -> Iterator[tuple[str, Any]]:
    """(place, leaf) of all that is no list or object, keys included; at the limit what is there, whatever it is."""
    if limit and isinstance(value, dict):
        for key, one in value.items():
            if isinstance(key, str):
                yield f" at {place} (the key {key!r})" if place else f" (the key {key!r})", key
            yield from _leaves(one, f"{place}.{key}" if place else str(key), limit - 1)
    elif limit and isinstance(value, list | tuple | set | frozenset):
        for index, one in enumerate(value):
            yield from _leaves(one, f"{place}[{index}]", limit - 1)
    else:
        yield f" at {place}" if place else "", value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(one) for one in value), default=0)
    return 0

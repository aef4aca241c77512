"""Lists of values as the literals of PostgreSQL's arrays.

A list goes into one as JSON does: what pydantic-core writes is an array's literal but for the brackets, and for what no
literal knows (control characters, and letters beyond ASCII in a database that has none), which is looked for. JSON's null
is NULL there, and its true is true. https://www.postgresql.org/docs/15/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from fuseline.errors import CallerError


def to_array(values: Sequence[Any]) -> bytes | str:
    """Of texts, numbers, truths and None, and nothing else; bytes where they are ASCII.

    Raises `CallerError` for NaN and infinity.
    """
    try:
        written = to_json(values, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError):  # a lone surrogate
        return _to_array(values)
    if not written.isascii() or (b"\\" in written and _has_control(written)):
        return _to_array(values)
    if (b"N" in written or b"I" in written) and _has_non_finite(values):
        raise CallerError("a number that PostgreSQL cannot hold: it is not finite")
    return b"{" + written[1:-1] + b"}"


def _has_control(written: bytes) -> bool:
    # JSON writes a backslash and a quotation mark as an array does; whatever else it escapes is a control character.
    return b"\\" in written.replace(b"\\\\", b"").replace(b'\\"', b"")


def _has_non_finite(values: Sequence[Any]) -> bool:
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)


def _to_array(values: Sequence[Any]) -> str:
    return "{" + ",".join([_literal(value) for value in values]) + "}"


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + str.replace(value, "\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, float) and not math.isfinite(value):
        raise CallerError("a number that PostgreSQL cannot hold: it is not finite")
    return repr(value).lower()

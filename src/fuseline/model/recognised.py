"""Definitions that came as JSON: one that was checked before, and is in use still, is not checked again."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, TypeAlias
from weakref import WeakValueDictionary

from pydantic import TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator

from fuseline.model.digest import digest_of
from fuseline.model.schema import WorkflowSchema

_IN_USE: Final[WeakValueDictionary[str, WorkflowSchema]] = WeakValueDictionary()
"""By the digest of the JSON that they were made of. Kept by those who use them, not by this."""


def _recognise(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    digest = _digest(value)
    if digest is None:
        return check(value)
    known = _IN_USE.get(digest)
    if known is None:
        known = _IN_USE[digest] = check(value)
    return known


def _digest(value: Any) -> str | None:
    """None: this is a definition already, or did not come out of JSON. The check says what is wrong with it."""
    if type(value) is not dict:
        return None
    try:
        return digest_of(value)
    except (TypeError, ValueError, RecursionError):
        return None


Definition: TypeAlias = Annotated[WorkflowSchema, WrapValidator(_recognise)]
"""A `WorkflowSchema` as a field of what comes out of JSON. Those that say the same are one object, as nobody changes one:
comparing it with itself, and finding its plan, costs nothing. A digest takes an eighth of the time of a check.
"""

_ADAPTER: Final[TypeAdapter[WorkflowSchema]] = TypeAdapter(Definition)


_BY_TEXT: Final[WeakValueDictionary[bytes, WorkflowSchema]] = WeakValueDictionary()
"""Likewise, by the digest of the text that they were read from."""


def recognised(plain: dict[str, Any]) -> WorkflowSchema:
    """The definition in these JSON types. Raises `pydantic.ValidationError`."""
    return _ADAPTER.validate_python(plain)


def recognised_text(text: str) -> WorkflowSchema:
    """The definition in this JSON. The same text again is not even parsed, as long as anybody uses what came of it.

    Storage is asked every few seconds for each definition in use, which may have a hundred thousand steps. Raises
    `ValueError` for what is no JSON, and `pydantic.ValidationError`.
    """
    key = hashlib.sha256(text.encode()).digest()
    known = _BY_TEXT.get(key)
    if known is None:
        known = _BY_TEXT[key] = recognised(json.loads(text))
    return known

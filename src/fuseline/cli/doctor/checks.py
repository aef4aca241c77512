"""What an examination finds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Health(StrEnum):
    """How bad it is. Only PROBLEM makes `doctor` fail."""

    OK = "ok"
    NOTE = "note"  # nothing to do, but good to know; or it could not be found out
    WARNING = "warning"
    PROBLEM = "problem"


class Check(NamedTuple):
    """One thing that was looked at: what it is, how it is, and what to do about it (empty: nothing)."""

    name: str
    health: Health
    found: str
    advice: str = ""

"""A definition in 64 characters: whoever has the definition too need not be sent it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(plain: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a definition in JSON types, written with sorted keys and without spaces.

    Raises `TypeError` or `ValueError` for what is no JSON. Two definitions that are equal may have two digests (1 and 1.0,
    a field that is left out and its default); two that differ have not one.
    """
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

"""An outbox from which nothing leaves, but what a test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def outbox_with(**said: Any) -> Any:
    """`said`: its methods that the test looks at."""
    return SimpleNamespace(**{"flush": lambda: None, "refusals": SimpleNamespace(), **said})

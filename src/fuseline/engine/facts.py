"""`@fact(frozen=True, slots=True)`: a dataclass that nobody changes, for what is made several times an event.

Type checkers see `dataclass` and hold it to be frozen. When the program runs it is not: a frozen one sets each field by
way of `object.__setattr__`, which takes three times as long. Equality and hash are those of a frozen one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["fact"]

if TYPE_CHECKING:
    from dataclasses import dataclass as fact
else:

    def fact(*, frozen: bool, slots: bool) -> Any:
        """See above."""
        return dataclass(slots=slots, unsafe_hash=frozen)

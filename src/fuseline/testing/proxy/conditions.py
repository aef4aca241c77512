"""The weather on the way: what `TcpProxy` was told, and what that means for the bytes of one direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Direction: TypeAlias = Literal["to_server", "to_client"]
"""One way through the proxy."""

Where: TypeAlias = Literal["both", "to_server", "to_client"]
"""One way, or both."""

DIRECTIONS: Final[tuple[Direction, ...]] = ("to_server", "to_client")

# How long a throttled direction is silent between two portions: short beside any heartbeat or deadline.
_PORTION_SECONDS: Final = 0.05


def directions(where: Where) -> tuple[Direction, ...]:
    """The directions that are meant. Raises `ValueError` for another word."""
    if where == "both":
        return DIRECTIONS
    if where not in DIRECTIONS:
        raise ValueError(f"a direction is one of both, to_server, to_client, not {where!r}")
    return (where,)


@dataclass(slots=True)
class Conditions:
    """What holds now. Only the proxy's thread changes and reads it."""

    accepts: bool = True
    frozen: set[Direction] = field(default_factory=set)
    loses: bool = False
    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: dict[Direction, float | None] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS))
    cut_after: dict[Direction, int | None] = field(default_factory=lambda: dict.fromkeys(DIRECTIONS))
    """Bytes that still get through, over all connections, before the one that carries the last is cut."""

    def wait_seconds(
        self, direction: Direction, arrived: float, luck: float, sent_until: float, now: float
    ) -> float:
        """How long what arrived at `arrived` is kept back yet; infinite until something changes.

        `luck` in [0, 1) is its share of the jitter; `sent_until` is when the throttle allows the next byte.
        """
        if direction in self.frozen:
            return math.inf
        due = arrived + self.latency_seconds + luck * self.jitter_seconds
        if self.bytes_per_second[direction] is not None:
            due = max(due, sent_until)
        return max(0.0, due - now)

    def portion(self, direction: Direction, size: int) -> int:
        """How many of `size` bytes may go at once."""
        rate, left = self.bytes_per_second[direction], self.cut_after[direction]
        if rate is not None:
            size = min(size, max(1, int(rate * _PORTION_SECONDS)))
        return size if left is None else min(size, left)

    def sent(self, direction: Direction, size: int) -> bool:
        """Count what went; true when the connection that carried it is to be cut now (once)."""
        left = self.cut_after[direction]
        if left is None:
            return False
        self.cut_after[direction] = left - size if left > size else None
        return left <= size

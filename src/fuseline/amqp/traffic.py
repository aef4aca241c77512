"""What went over a link, counted: for benchmarks, and for tests that keep the number of messages a step from growing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(slots=True)
class Traffic:
    """Counted since the link was made, on the link's thread; other threads may read.

    `published`: messages sent, those that were sent again included. `confirms` and `acks`: frames, each of which may be
    about many messages; `acks` counts nacks as well. `delivered`: messages that came, replies included.
    """

    published: int = 0
    confirms: int = 0
    delivered: int = 0
    acks: int = 0

    @property
    def frames(self) -> int:
        """AMQP frames: method, header and body of each message (a body over 128 KiB has more), and the answers."""
        return 3 * (self.published + self.delivered) + self.confirms + self.acks

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.published + other.published,
            self.confirms + other.confirms,
            self.delivered + other.delivered,
            self.acks + other.acks,
        )

"""When a publishing channel that refused a message is opened anew."""

from __future__ import annotations

import math
from typing import Final

_SHORTEST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


class Renewal:
    """Says which refusals (`basic.nack`) are answered with a new channel.

    A full queue refuses, and then a new channel is of no use. But RabbitMQ (3.10 at least) also refuses the first message
    that a channel sends to a quorum queue which has no leader just then, and from then on every further one to that
    queue on that channel, though a leader was elected long ago. So a refusal is answered with a new channel, and while
    that changes nothing, with longer and longer pauses in between.
    """

    def __init__(self) -> None:
        self._pause_seconds = _SHORTEST_SECONDS
        self._not_before = -math.inf

    def is_due(self, now: float) -> bool:
        """A message was refused now: whether the channel is to be renewed for it."""
        if now < self._not_before:
            return False
        if now >= self._not_before + _LONGEST_SECONDS:  # that was another time
            self._pause_seconds = _SHORTEST_SECONDS
        self._not_before = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_SECONDS)
        return True

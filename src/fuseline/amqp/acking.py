"""Acknowledgements that wait a moment for each other: to a quorum queue each one is a write to its log."""

from __future__ import annotations

from typing import Final

ACK_SECONDS: Final = 0.02
"""How long an acknowledgement may wait. Whoever dies meanwhile leaves messages that come again, and change nothing then."""
WINDOW_SHARE: Final = 4
"""They wait until they are this part of the prefetch: the rest of it keeps the consumer busy."""


class Acks:
    """What was settled on one channel, in one of its lives, and is not told yet.

    RabbitMQ numbers the deliveries of a channel from 1. One acknowledgement tells of all up to a number that has not been
    told itself, so it may only be one below which everything is settled; stragglers are told one by one.
    """

    __slots__ = ("_beyond", "_floor", "_told", "_untold", "waiting")

    def __init__(self) -> None:
        self._floor = 1  # all below are settled
        self._told = 1  # all below are told
        self._beyond: set[int] = set()  # settled, with something unsettled below
        self._untold: list[int] = []
        self.waiting = 0
        """Deliveries that RabbitMQ counts as unacknowledged and nobody else does."""

    def add(self, tag: int, multiple: bool) -> None:
        """It is done (`multiple`: and all before it)."""
        self._untold.append(tag)
        if multiple:
            if tag >= self._floor:
                self._floor = tag + 1
                self._beyond = {one for one in self._beyond if one > tag}
            self._settle_on()
            self.waiting = max(self.waiting + 1, tag + 1 - self._told)
        else:
            self.waiting += 1
            self.skip(tag)

    def skip(self, tag: int) -> None:
        """It is settled otherwise."""
        if tag == self._floor:
            self._floor += 1
            self._settle_on()
        elif tag > self._floor:
            self._beyond.add(tag)

    def take(self) -> list[tuple[int, bool]]:
        """What is to be told now: (tag, whether of all before it)."""
        if not self._untold:
            return []
        below = [tag for tag in self._untold if tag < self._floor]
        found = [(tag, False) for tag in self._untold if tag >= self._floor]
        if below:
            last = max(below)
            found.insert(0, (last, last > self._told))
            self._told = max(self._told, last + 1)
        self._untold.clear()
        self.waiting = 0
        return found

    def _settle_on(self) -> None:
        beyond = self._beyond
        while self._floor in beyond:
            beyond.discard(self._floor)
            self._floor += 1

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

    __slots__ = ("_ends", "_floor", "_starts", "_told", "_untold", "waiting")

    def __init__(self) -> None:
        self._floor = 1  # all below are settled
        self._told = 1  # all below are told
        # What is settled above, in runs without a gap: between two of them is something that is held (P6).
        self._ends: dict[int, int] = {}  # by the first of a run, its last
        self._starts: dict[int, int] = {}  # the other way round
        self._untold: list[int] = []
        self.waiting = 0
        """Deliveries that RabbitMQ counts as unacknowledged and nobody else does."""

    def add(self, tag: int, multiple: bool) -> None:
        """It is done (`multiple`: and all before it)."""
        self._untold.append(tag)
        if multiple:
            if tag >= self._floor:
                self._pass_over(tag)
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
            first, last = self._starts.pop(tag - 1, tag), self._ends.pop(tag + 1, tag)
            self._ends[first], self._starts[last] = last, first

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
        last = self._ends.pop(self._floor, None)
        if last is not None:
            self._starts.pop(last, None)
            self._floor = last + 1

    def _pass_over(self, tag: int) -> None:
        """All up to it is settled."""
        self._floor = tag + 1
        for first, last in list(self._ends.items()):
            if first <= tag:
                del self._ends[first]
                self._starts.pop(last, None)
                self._floor = max(self._floor, last + 1)
        self._settle_on()

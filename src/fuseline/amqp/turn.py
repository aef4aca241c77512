"""Calls that wait until pika has done with what it read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fuseline.amqp.loops import LoopAdapter


class Turn:
    """Makes the users' callbacks from the loop itself, not from inside pika.

    Two reasons. pika takes an exception out of a callback for a broken connection, and closes it. And while pika reads,
    a user's callback would see a link in the middle of a change. So calls gather, and are made once per turn of the
    loop, in order. If one raises, the loop gets the exception, and the calls after it are made all the same.
    """

    def __init__(self, loop: LoopAdapter) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, call: Callable[[], None]) -> None:
        """Make `call` soon."""
        self._calls.append(call)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        try:
            # What the calls add is for the next turn, so that reading gets its share.
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            if self._calls:
                self._schedule()

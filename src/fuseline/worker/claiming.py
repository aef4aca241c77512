"""When attempts are claimed, and when what waits for a place goes to somebody else: one timer for the oldest of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fuseline.clock import Clock
from fuseline.worker.leases import Held, Holdings

WAIT_SECONDS: Final = 300.0
"""How long a delivery may wait for a place here before somebody else gets it."""


class ClaimTimer:
    """Calls `claim` for what has run for `claim_after_seconds`, `hand_back` for what has waited too long.

    Short steps, of which there are many, cost no timer each.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        holdings: Holdings,
        waiting: Callable[[], list[Held]],
        claim_after_seconds: float,
        claim: Callable[[Held], None],
        hand_back: Callable[[Held], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._holdings = holdings
        self._waiting = waiting
        self._after = claim_after_seconds
        self._claim = claim
        self._hand_back = hand_back
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Something may have come that has to be claimed some day."""
        if self._timer is None and len(self._holdings):
            oldest = next(self._holdings.unclaimed(), None) or next(iter(self._waiting()), None)
            if oldest is not None:
                wait = max(0.0, oldest.received_at + self._after - self._clock.monotonic())
                self._timer = self._loop.call_later(wait, self._due)

    def cancel(self) -> None:
        """Call no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for held in list(self._holdings.unclaimed()):
            if held.received_at <= now - self._after:
                self._claim(held)
        for held in [one for one in self._waiting() if one.received_at <= now - WAIT_SECONDS]:
            self._hand_back(held)
        nearest = min((held.received_at for held in self._holdings.unclaimed()), default=None)
        if nearest is not None or self._waiting():
            due = (now if nearest is None else nearest) + self._after
            self._timer = self._loop.call_later(max(0.01, due - now), self._due)

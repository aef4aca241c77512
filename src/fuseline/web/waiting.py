"""Waiting for the end of a run without taking up the threads that everything else needs."""

from __future__ import annotations

import math

import anyio.to_thread
from anyio import CapacityLimiter

from fuseline.broker.base import Broker
from fuseline.errors import DeadlineExceededError
from fuseline.model.views import RunView

MAX_WAIT_SECONDS = 30.0
_WAITERS = 64
_LOOK_SECONDS = 1.0
"""How often a run is looked at for those who wait while all places are taken."""


class Waiting:
    """Up to 64 requests wait in threads of their own; those beyond look now and then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._places = CapacityLimiter(_WAITERS)
        self._looks = CapacityLimiter(4)

    async def wait(self, instance_id: str, seconds: float) -> RunView | None:
        """The run if it ends within `seconds`. Raises what the broker raises."""
        if self._places.available_tokens >= 1:
            return await anyio.to_thread.run_sync(self._wait, instance_id, seconds, limiter=self._places)
        for _ in range(max(1, math.ceil(seconds / _LOOK_SECONDS))):
            await anyio.sleep(min(seconds, _LOOK_SECONDS))
            run = await anyio.to_thread.run_sync(self._wait, instance_id, 0.0, limiter=self._looks)
            if run is not None:
                return run
        return None

    def _wait(self, instance_id: str, seconds: float) -> RunView | None:
        try:
            return self._broker.wait(instance_id, seconds)
        except DeadlineExceededError:
            return None

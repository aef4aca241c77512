"""Places that abandoned bodies keep: they are told of, and a worker that has none left for long ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fuseline.errors import FatalError, FuselineError
from fuseline.worker.slots import EXHAUSTED_SECONDS, Slots

log = logging.getLogger(__name__)


class Places:
    """Watches the slots of a worker for bodies that were stopped and run on.

    `on_fatal` is called when no place was left for `EXHAUSTED_SECONDS`, `on_abandoned` when their number has changed, and
    `pump` when there are places again after all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slots: Slots,
        on_fatal: Callable[[FuselineError], None],
        on_abandoned: Callable[[], None],
        pump: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._slots = slots
        self._on_fatal = on_fatal
        self._on_abandoned = on_abandoned
        self._pump = pump
        self._timer: asyncio.TimerHandle | None = None
        self._told = 0

    def look(self) -> None:
        """Begin to wait for a place when there is none."""
        if self._slots.is_exhausted and self._timer is None:
            self._timer = self._loop.call_later(
                EXHAUSTED_SECONDS, self._give_up_if_exhausted, self._slots.freed
            )

    def _give_up_if_exhausted(self, freed: int) -> None:
        self._timer = None
        if self._slots.is_exhausted and self._slots.freed == freed:
            self._on_fatal(FatalError(f"{self._slots.told()}: no place is left"))
        else:
            self._pump()  # and looks again

    def tell(self) -> None:
        """Those that end as soon as they are told to are gone by now."""
        if self._slots.abandoned != self._told:
            self._told = self._slots.abandoned
            log.log(logging.WARNING if self._told else logging.INFO, "%s", self._slots.told())
            self._on_abandoned()

    def cancel(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

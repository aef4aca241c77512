"""Asking the coordinator about assignments that somebody may have had before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fuseline.errors import CallerError, FuselineError
from fuseline.worker.leases import Held, Phase
from fuseline.worker.logs import ids
from fuseline.worker.outgoing import Outgoing

log = logging.getLogger(__name__)

CALL_SECONDS: Final = 10.0
RETRY_SECONDS: Final = (0.5, 10.0)


class Checker:
    """`on_current` or `on_over` gets each checked attempt, unless it left meanwhile.

    A coordinator that does not answer is asked again for as long as it takes: without one nothing would follow from the
    step anyway. One that answers with an error is no reason to hold it up: twice is allowed, lost is not (P1).
    """

    def __init__(
        self, outgoing: Outgoing, on_current: Callable[[Held], None], on_over: Callable[[Held], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._outgoing = outgoing
        self._on_current = on_current
        self._on_over = on_over

    def check(self, held: Held, pause: float = RETRY_SECONDS[0]) -> None:
        """Ask now, and after `pause` seconds if there is no answer."""
        if held.phase is Phase.CHECKING and not held.is_gone:
            self._outgoing.check(held, partial(self._answered, held, pause), CALL_SECONDS)

    def _answered(self, held: Held, pause: float, answer: Any | FuselineError) -> None:
        if held.is_gone or held.phase is not Phase.CHECKING:
            return
        if isinstance(answer, FuselineError) and not isinstance(answer, CallerError):
            log.info("asking the coordinator again about a redelivered step: %s", answer)
            self._loop.call_later(pause, self.check, held, min(pause * 2, RETRY_SECONDS[1]))
        elif isinstance(answer, dict) and answer.get("current") is False:
            log.debug("redelivered, and over already", extra=ids(held.assignment))
            self._on_over(held)
        else:
            if isinstance(answer, FuselineError):
                log.warning("a redelivered step cannot be checked, executing it: %s", answer)
            self._on_current(held)

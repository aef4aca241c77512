"""Asking policies of the user's about a timeout, without waiting for ever: the report must go out (P1)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from fuseline.worker.reports import Sealed

log = logging.getLogger(__name__)

OPINION_SECONDS = 5.0
"""How long a policy may think; then the timeout is reported without its opinion."""


def ask(timed_out: Callable[[], Sealed], then: Callable[[Sealed], None]) -> None:
    """Have `then(timed_out())` called on a thread of its own. What it raises is logged, and nothing is called."""

    def think() -> None:
        try:
            sealed = timed_out()
        except BaseException:  # a thread ends in silence on SystemExit
            log.exception("a policy cannot be asked about a timeout")
        else:
            then(sealed)

    threading.Thread(target=think, name="fuseline timeout", daemon=True).start()


def answer(timed_out: Callable[[], Sealed]) -> Sealed | None:
    """Ask and wait; None when there is no answer in time."""
    answers: SimpleQueue[Sealed] = SimpleQueue()
    ask(timed_out, answers.put)
    try:
        return answers.get(timeout=OPINION_SECONDS)
    except Empty:
        return None

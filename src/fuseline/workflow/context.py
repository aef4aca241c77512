"""What a step may ask about its own execution: `ctx: StepContext`."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import MutableMapping
from typing import Any

from fuseline.clock import Clock, SystemClock
from fuseline.model.messages import StepAssignment

_log = logging.getLogger("fuseline.step")


_SAY_EVERY_SECONDS = 1.0
_CLOCK = SystemClock()
_events = threading.Lock()
"""Held to make the event of a context, or to set it."""


class StepContext:
    """One attempt, as its body sees it. Thread-safe.

    `deadline` is when the attempt's execution timeout ends it, in seconds since the epoch; None without a timeout.
    `logger` adds `workflow_id`, `instance_id`, `step_name` and `attempt` to each record.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_event",
        "_is_cancelled",
        "_logger",
        "_said_at",
        "attempt",
        "deadline",
        "instance_id",
        "step_name",
        "workflow_id",
        "workflow_version",
    )

    def __init__(self, assignment: StepAssignment, *, clock: Clock | None = None) -> None:
        self._clock = clock or _CLOCK
        self._said_at: float | None = None
        self._is_cancelled = False
        # Made for who asks for them: most bodies do not, and every step would pay for them.
        self._event: threading.Event | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None
        self.workflow_id = assignment.workflow_id
        self.workflow_version = assignment.workflow_version
        self.instance_id = assignment.instance_id
        self.step_name = assignment.step_name
        self.attempt = assignment.attempt
        timeout = assignment.timeout_seconds
        self.deadline = None if timeout is None else self._clock.now() + timeout

    @classmethod
    def of(cls, assignment: StepAssignment, clock: Clock | None = None) -> StepContext:
        """The context of an attempt that starts now."""
        return cls(assignment, clock=clock)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that carries the attempt's ids."""
        if self._logger is None:
            self._logger = _StepLogger(_log, self._ids())
        return self._logger

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal digits, the same for all attempts of this step of this run, and for no other step or run.

        Hand it to whatever the step does on the outside, so that doing it twice is doing it once.
        """
        return hashlib.sha256(f"{self.instance_id}/{self.step_name}".encode()).hexdigest()[:32]

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for this attempt any more: the run has ended, its time is over, a worker drains."""
        return self._is_cancelled

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Sleep up to `timeout` seconds, or until the attempt is cancelled; whether it is. Instead of `time.sleep`."""
        with _events:
            if self._event is None:
                self._event = threading.Event()
            if self._is_cancelled:  # by somebody who found no event to set
                self._event.set()
        return self._event.wait(timeout)

    def cancel(self) -> None:
        """Tell the body; for whoever executes it."""
        self._is_cancelled = True
        with _events:
            if self._event is not None:
                self._event.set()

    def heartbeat(self, progress: float | None = None, message: str | None = None) -> None:
        """Say in the log how far the step is, at most once a second. The lease needs no help: its worker keeps it.

        Raises `ValueError` when `progress` is not between 0 and 1.
        """
        if progress is not None and not 0 <= progress <= 1:
            raise ValueError(f"progress goes from 0 to 1, and {progress!r} does not")
        now = self._clock.monotonic()
        if progress != 1 and self._said_at is not None and now - self._said_at < _SAY_EVERY_SECONDS:
            return
        self._said_at = now
        said = [text for text in (None if progress is None else f"{progress:.0%}", message) if text]
        self.logger.info("%s", " ".join(said) or "alive", extra={"progress": progress})

    def _ids(self) -> dict[str, object]:
        return {
            "workflow_id": self.workflow_id,
            "instance_id": self.instance_id,
            "step_name": self.step_name,
            "attempt": self.attempt,
        }


class _StepLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the ids to what a call gives as `extra`; the standard adapter of Python 3.11 replaces it."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs

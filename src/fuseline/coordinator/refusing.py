"""Assignments that can never be sent: their steps fail, and what brought them about is let go when that is recorded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fuseline.amqp.link import Link
from fuseline.coordinator.parking import RETRY_SECONDS
from fuseline.errors import FuselineError, StorageUnavailableError
from fuseline.model.messages import StepAssignment

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Refused:
    assignment: StepAssignment
    error: FuselineError
    on_done: Callable[[], None]
    may_be_recorded: bool = False


class Refusals:
    """Kept in order, and tried again after `RETRY_SECONDS`, as long as storage is away (P4, P7): the first of them alone,
    for each try may take as long as storage's timeouts.

    `on_refused(assignment, error, again)` records it. It raises `StorageUnavailableError` when nobody knows whether it is
    recorded; then it is called once more, with `again`.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[_Refused] = deque()
        self._is_busy = self._is_stopped = False
        self.on_refused: Callable[[StepAssignment, FuselineError, bool], None] = _nothing

    def stop(self) -> None:
        """What is not recorded by now is left to the next coordinator: its cause stays unacknowledged."""
        self._is_stopped = True

    def add(self, assignment: StepAssignment, error: FuselineError, on_done: Callable[[], None]) -> None:
        """`on_done` is called when it is recorded that its step failed."""
        self._waiting.append(_Refused(assignment, error, on_done))
        # A step that fails may make others ready, which are refused as well, or it waits already for storage.
        if not self._is_busy:
            self._record()

    def _record(self) -> None:
        self._is_busy = True
        is_away = False
        try:
            while self._waiting and not self._is_stopped and not is_away:
                is_away = not self._is_recorded(self._waiting[0])
                if not is_away:
                    self._waiting.popleft().on_done()
        finally:
            self._is_busy = is_away
        if is_away:
            self._link.call_later(RETRY_SECONDS, self._record)

    def _is_recorded(self, one: _Refused) -> bool:
        try:
            self.on_refused(one.assignment, one.error, one.may_be_recorded)
        except StorageUnavailableError as away:
            log.warning("that step %s cannot be sent is not recorded yet: %s", one.assignment.step_name, away)
            one.may_be_recorded = True
            return False
        return True


def _nothing(_assignment: StepAssignment, _error: FuselineError, _again: bool) -> None:
    return None

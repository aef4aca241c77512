"""The runs that a worker was told to stop. An assignment of one may still be on its way when the notice comes.

A run that an operator replays goes on, and nobody has to be told: its new assignments count one replay more than the
notice does, whichever of them comes first and whatever gets lost (P1).
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeAlias

from fuseline.amqp.wire import ControlNotice
from fuseline.model.messages import StepAssignment

MAX_REMEMBERED: Final = 10_000
"""And an eighth more, until they are forgotten together."""

_Stop: TypeAlias = tuple[int, frozenset[str]]
"""Replays that were counted, and the steps that are spared."""


class StoppedRuns:
    """The latest of them, and which of their steps are spared (clean-up). Not thread-safe."""

    def __init__(self, remembered: int = MAX_REMEMBERED) -> None:
        self._told: dict[str, _Stop] = {}  # the latest are its last
        self._shared: dict[_Stop, _Stop] = {}
        self._remembered = remembered
        self._most = remembered + remembered // 8

    def add(self, notice: ControlNotice) -> None:
        """Remember a stop notice, if it is about a whole run. The latest one about a run counts, as replays tell."""
        if notice.instance_id is None or notice.attempts is not None:
            return
        told = self._told.pop(notice.instance_id, None)
        stop = (notice.replays, frozenset(notice.spare))
        if told is not None and notice.replays < told[0]:
            stop = told  # the notice was late
        # Runs of a workflow mostly spare the same steps. A set and its strings of each notice take three times what the
        # rest of a run does, and a worker hears of every run that fails.
        self._told[notice.instance_id] = self._shared.setdefault(stop, stop)
        if len(self._told) > self._most:
            self._forget()

    def __contains__(self, assignment: StepAssignment) -> bool:
        """Whether this step is not to be executed any more: it was cancelled."""
        stop = self._told.get(assignment.instance_id)
        if stop is None or assignment.replays > stop[0]:
            return False
        return assignment.step_name not in stop[1]

    def _forget(self) -> None:
        """Many at once: who takes the first key of a dict, again and again, steps over all that were taken before."""
        self._told = dict(islice(self._told.items(), len(self._told) - self._remembered, None))
        self._shared = {stop: stop for stop in self._told.values()}

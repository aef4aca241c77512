"""The runs that a worker was told to stop. An assignment of one may still be on its way when the notice comes.

A run that an operator replays goes on, and nobody has to be told: its new assignments count one replay more than the
notice does, whichever of them comes first and whatever gets lost (P1).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fuseline.amqp.wire import ControlNotice
from fuseline.model.messages import StepAssignment

MAX_REMEMBERED: Final = 10_000

_NONE: Final[frozenset[str]] = frozenset()


class StoppedRuns:
    """The latest of them, and which of their steps are spared (clean-up). Not thread-safe."""

    def __init__(self, remembered: int = MAX_REMEMBERED) -> None:
        self._told: OrderedDict[str, int] = OrderedDict()
        self._spared: dict[str, frozenset[str]] = {}  # of the few runs that have any: there may be many runs
        self._remembered = remembered

    def add(self, notice: ControlNotice) -> None:
        """Remember a stop notice, if it is about a whole run. The latest one about a run counts, as replays tell."""
        if notice.instance_id is None or notice.attempts is not None:
            return
        if notice.replays < self._told.get(notice.instance_id, 0):
            return  # it was late
        self._told[notice.instance_id] = notice.replays
        self._told.move_to_end(notice.instance_id)
        self._spared.pop(notice.instance_id, None)
        if notice.spare:
            self._spared[notice.instance_id] = frozenset(notice.spare)
        if len(self._told) > self._remembered:
            oldest, _ = self._told.popitem(last=False)
            self._spared.pop(oldest, None)

    def __contains__(self, assignment: StepAssignment) -> bool:
        """Whether this step is not to be executed any more: it was cancelled."""
        replays = self._told.get(assignment.instance_id)
        if replays is None or assignment.replays > replays:
            return False
        return assignment.step_name not in self._spared.get(assignment.instance_id, _NONE)

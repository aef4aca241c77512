"""How far the queues of steps have come, as workers' reports tell it: what finds a lost message behind a backlog.

A queue is first in, first out. So a report of an attempt that was queued long after another one says that the other one's
message has left the queue too, or never reached it (its coordinator was killed between the commit and the publish). The
ready messages of a queue cannot tell that as long as there are some.
"""

from __future__ import annotations

from typing import Final

from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepClaimed, StepReported
from fuseline.ledger import Occurrence, Outcome

OVERTAKEN_SECONDS: Final = 30.0
"""By how much: coordinators' clocks differ, what they commit goes out a little later, workers hand some back."""
_KEYS: Final = 10_000


class Overtaking:
    """For each workflow version, the latest time at which an attempt was queued that a worker has since taken."""

    def __init__(self) -> None:
        self._came_out: dict[tuple[str, str], float] = {}

    def saw(self, item: Occurrence, outcome: Outcome) -> None:
        """A worker's word about an attempt was accepted: its message has come out of the queue."""
        event = item.event
        if outcome.queued_at is None or outcome.verdict is not Verdict.ACCEPTED:
            return
        # Without a holder it may be the coordinator's own word, about a message that never was in the queue.
        if not isinstance(event, StepReported | StepClaimed) or event.holder is None:
            return
        key = (outcome.workflow_id, outcome.version)
        known = self._came_out.pop(key, outcome.queued_at)
        self._came_out[key] = max(known, outcome.queued_at)
        if len(self._came_out) > _KEYS:
            del self._came_out[next(iter(self._came_out))]

    def has_overtaken(self, outcome: Outcome) -> bool:
        """Whether what was queued long after the step of `outcome` has come out of the same queue."""
        came_out = self._came_out.get((outcome.workflow_id, outcome.version))
        return (
            came_out is not None
            and outcome.queued_at is not None
            and outcome.queued_at + OVERTAKEN_SECONDS < came_out
        )

"""What waits in memory for a worker: assignments by workflow version, the oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from fuseline.model.messages import StepAssignment

Fence = tuple[str, str, int]
"""(instance_id, step name, attempt): what both messages are fenced by."""


def fence(assignment: StepAssignment) -> Fence:
    """The fencing key of an assignment."""
    return assignment.instance_id, assignment.step_name, assignment.attempt


class ReadyQueue:
    """First in, first out, within a workflow version and across those that one worker executes.

    An attempt is in it once, however often it is offered. Not thread-safe.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], deque[tuple[int, StepAssignment]]] = {}
        self._waiting: set[Fence] = set()
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, attempt: object) -> bool:
        return attempt in self._waiting

    def put(self, assignment: StepAssignment) -> None:
        """Add it at the end, unless it is waiting already."""
        key = fence(assignment)
        if key not in self._waiting:
            self._waiting.add(key)
            self._arrivals += 1
            self._queue_of(assignment).append((self._arrivals, assignment))

    def put_back(self, assignment: StepAssignment) -> None:
        """What was taken and not handed out is the next again."""
        self._waiting.add(fence(assignment))
        self._queue_of(assignment).appendleft((0, assignment))

    def has(self, workflows: Iterable[tuple[str, str]]) -> bool:
        """Whether something of these (workflow_id, version) waits."""
        return any(key in self._queues for key in workflows)

    def waits_since(self, workflows: Iterable[tuple[str, str]]) -> float | None:
        """When what is the next of these became ready (wall time); None when nothing waits."""
        return min(
            (queue[0][1].assigned_at for key in workflows if (queue := self._queues.get(key))), default=None
        )

    def take(self, workflows: Iterable[tuple[str, str]]) -> StepAssignment | None:
        """Remove and return the oldest assignment of these (workflow_id, version); None when there is none."""
        queues = [(key, queue) for key in workflows if (queue := self._queues.get(key))]
        if not queues:
            return None
        key, queue = min(queues, key=lambda item: item[1][0][0])
        _, assignment = queue.popleft()
        if not queue:
            del self._queues[key]
        self._waiting.discard(fence(assignment))
        return assignment

    def _queue_of(self, assignment: StepAssignment) -> deque[tuple[int, StepAssignment]]:
        key = (assignment.workflow_id, assignment.workflow_version)
        return self._queues.setdefault(key, deque())

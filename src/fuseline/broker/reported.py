"""What a broker of ours was told lately, so that who repeats a call because no answer came is answered alike."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from fuseline.broker.ready import Fence
from fuseline.engine.events import StepReported
from fuseline.model.messages import StepReport
from fuseline.model.status import Status

MAX_REMEMBERED: Final = 10_000


class Reported:
    """The latest reports that were accepted, by worker and attempt. Not thread-safe.

    Storage keeps a step's current attempt alone, and cannot tell a failure that comes again after its retry was queued
    from one of an attempt that was lost.
    """

    def __init__(self, remembered: int = MAX_REMEMBERED) -> None:
        self._states: OrderedDict[tuple[str, Fence], Status] = OrderedDict()
        self._remembered = remembered

    def add(self, worker_id: str, report: StepReport) -> None:
        """The worker's report was accepted."""
        self._states[worker_id, attempt_of(report)] = report.state
        if len(self._states) > self._remembered:
            self._states.popitem(last=False)

    def knows(self, worker_id: str, report: StepReport) -> bool:
        """Whether the worker has reported the same before."""
        return self._states.get((worker_id, attempt_of(report))) is report.state


def attempt_of(report: StepReport) -> Fence:
    """The fencing key of a report."""
    return report.instance_id, report.step_name, report.attempt


def as_event(worker_id: str, report: StepReport, result: Any) -> StepReported:
    """What the worker reports, as an event. `result`: the report's own, as JSON has it."""
    return StepReported(
        step=report.step_name,
        attempt=report.attempt,
        status=report.state,
        result=result,
        action=report.action,
        error=report.error,
        decision=report.decision,
        holder=worker_id,
        started_at=report.started_at,
    )

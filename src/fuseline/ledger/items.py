"""What a ledger is given and what it answers: items of a batch, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuseline.engine.effects import Notice, StopHolder, StopSteps, Verdict
from fuseline.engine.events import Event
from fuseline.engine.facts import fact
from fuseline.errors import CallerError
from fuseline.model.messages import StepAssignment
from fuseline.model.status import RunStatus


@fact(frozen=True, slots=True)
class Dispatch:
    """A run to begin. Twice the same `instance_id` is one run (P3)."""

    workflow_id: str
    version: str
    instance_id: str
    inputs: dict[str, Any] = field(default_factory=dict)


@fact(frozen=True, slots=True)
class Occurrence:
    """An event of a run. `workflow_id`, where given, must be the run's own: it is what the sender is trusted for."""

    instance_id: str
    event: Event
    workflow_id: str | None = None


@dataclass(slots=True)
class Outcome:
    """What became of one item of a batch, and what to do now that it is committed."""

    instance_id: str
    verdict: Verdict
    reason: str = ""
    workflow_id: str = ""
    version: str = ""
    at: float = 0.0
    """When it was decided."""
    queued_at: float | None = None
    """Since when the step that this is about was queued, as it was before."""
    assignments: list[StepAssignment] = field(default_factory=list)
    expiry_seconds: dict[str, float] = field(default_factory=dict)
    offered_again: set[str] = field(default_factory=set)
    stop: StopSteps | None = None
    stop_holders: list[StopHolder] = field(default_factory=list)
    finished: RunStatus | None = None
    notices: list[Notice] = field(default_factory=list)
    error: CallerError | None = None


Then = Callable[[list[Outcome]], Sequence[Dispatch | Occurrence]]
"""What follows at once from outcomes that are not committed yet: workers claim what has just become ready."""

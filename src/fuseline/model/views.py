"""What brokers answer about runs, workers and workflows. Times are seconds since the epoch; None: not (yet)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fuseline.model.messages import StepAssignment, StepError
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus, Status


class StepView(BaseModel):
    """One step of a run, as it stands. `attempt` 0: never queued."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Status
    attempt: int = 0
    worker_id: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    due_at: float | None = None
    action: str | None = None
    result: Any = None
    error: StepError | None = None


class RunSummary(BaseModel):
    """One run, without its steps."""

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    workflow_version: str
    instance_id: str
    state: RunStatus
    created_at: float
    finished_at: float | None = None
    failed_step: str | None = None
    error: StepError | None = None


class RunView(RunSummary):
    """One run with its steps by name, in the schema's order. `outputs` are the results of the workflow's outputs."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    steps: dict[str, StepView] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)


class DeadLetterView(BaseModel):
    """A step that failed for good, and what an operator did about it.

    `attempt` was its last one; `next_attempt` is the one that a replay gave it. A step that the replay had decided on anew
    has that one only if it was reached again.
    """

    model_config = ConfigDict(frozen=True)

    letter_id: str
    workflow_id: str
    workflow_version: str
    instance_id: str
    step_name: str
    attempt: int
    reason: DeadLetterReason
    state: DeadLetterState
    error: StepError
    died_at: float
    settled_at: float | None = None
    next_attempt: int | None = None


class DeadLetterDetail(DeadLetterView):
    """With its message: the assignment, its payload made of what the step requires as it is recorded now."""

    message: StepAssignment | None = None


class ReplayView(DeadLetterView):
    """A dead letter after a replay. `took_effect` False: it had been replayed before, and nothing was changed.

    `steps` were handed out because of it: the letter's own, and those that could not be spared.
    """

    took_effect: bool
    steps: list[str] = Field(default_factory=list)


class WorkerView(BaseModel):
    """A worker that registered. `workflows` are (workflow_id, version) pairs."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    workflows: list[tuple[str, str]] = Field(default_factory=list)
    registered_at: float
    last_seen_at: float
    alive: bool = True
    host: str | None = None
    pid: int | None = None


class WorkflowView(BaseModel):
    """A registered workflow version."""

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    version: str
    steps: int
    outputs: list[str] = Field(default_factory=list)
    registered_at: float
    description: str | None = None
    inputs_schema: dict[str, Any] | None = None

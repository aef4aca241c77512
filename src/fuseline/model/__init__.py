"""Frozen pydantic models: the graph, the messages, and the views of runs."""

from fuseline.model.messages import (
    Cause,
    FailureDecision,
    PolicyDecision,
    StepAssignment,
    StepError,
    StepReport,
)
from fuseline.model.schema import DEFAULT_ACTION, PolicySpec, StepSchema, WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus, Status, Trigger
from fuseline.model.views import (
    DeadLetterDetail,
    DeadLetterView,
    ReplayView,
    RunSummary,
    RunView,
    StepView,
    WorkerView,
    WorkflowView,
)

__all__ = [
    "DEFAULT_ACTION",
    "Cause",
    "DeadLetterDetail",
    "DeadLetterReason",
    "DeadLetterState",
    "DeadLetterView",
    "FailureDecision",
    "PolicyDecision",
    "PolicySpec",
    "ReplayView",
    "RunStatus",
    "RunSummary",
    "RunView",
    "Status",
    "StepAssignment",
    "StepError",
    "StepReport",
    "StepSchema",
    "StepView",
    "Trigger",
    "WorkerView",
    "WorkflowSchema",
    "WorkflowView",
]

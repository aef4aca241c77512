"""Writing workflows: steps, what they depend on, policies, and the workflows that they make."""

from fuseline.errors import RunFailed
from fuseline.model.messages import FailureDecision, PolicyDecision
from fuseline.model.schema import PolicySpec, StepSchema, WorkflowSchema
from fuseline.model.status import RunStatus, Status, Trigger
from fuseline.workflow.context import StepContext
from fuseline.workflow.depends import Computed, Condition, Depends
from fuseline.workflow.function import FunctionStep, step
from fuseline.workflow.policies import StepPolicy, WorkflowPolicy, register_policy
from fuseline.workflow.shipped import (
    ExpiryPolicy,
    FusionPolicy,
    RetryPolicy,
    StepTimeoutPolicy,
    TimeoutPolicy,
    TriggerPolicy,
    WorkflowTimeoutPolicy,
)
from fuseline.workflow.step import Branch, Step
from fuseline.workflow.workflow import Workflow, workflow_from_functions

__all__ = [
    "Workflow",
    "workflow_from_functions",
    "Step",
    "step",
    "FunctionStep",
    "Depends",
    "Condition",
    "Computed",
    "Branch",
    "StepContext",
    "StepPolicy",
    "WorkflowPolicy",
    "RetryPolicy",
    "TimeoutPolicy",
    "StepTimeoutPolicy",
    "ExpiryPolicy",
    "FusionPolicy",
    "TriggerPolicy",
    "WorkflowTimeoutPolicy",
    "register_policy",
    "FailureDecision",
    "PolicyDecision",
    "RunFailed",
    "WorkflowSchema",
    "StepSchema",
    "PolicySpec",
    "Status",
    "RunStatus",
    "Trigger",
]

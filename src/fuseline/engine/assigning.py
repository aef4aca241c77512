"""What is put into a step's queue, or what a worker that goes on with a step by itself would have got from there."""

from __future__ import annotations

from typing import Any

from fuseline.engine.plan import Plan, StepPlan
from fuseline.model.messages import StepAssignment


def assign(
    plan: Plan,
    step: StepPlan,
    instance_id: str,
    payload: dict[str, Any],
    now: float,
    *,
    attempt: int = 1,
    replays: int = 0,
) -> StepAssignment:
    """The assignment of an attempt, made at `now` (Unix seconds). Nothing is checked: all of it comes from a plan."""
    return StepAssignment.of_checked(
        {
            "workflow_id": plan.workflow_id,
            "workflow_version": plan.version,
            "instance_id": instance_id,
            "step_name": step.name,
            "attempt": attempt,
            "payload": payload,
            "assigned_at": now,
            "expires_at": now + (step.timeout_seconds or plan.rules.lease_seconds),
            "timeout_seconds": step.timeout_seconds,
            "replays": replays,
        }
    )

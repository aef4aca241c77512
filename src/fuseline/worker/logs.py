"""What the worker's log records carry besides their text."""

from __future__ import annotations

from typing import Any

from fuseline.model.messages import StepAssignment


def ids(assignment: StepAssignment) -> dict[str, Any]:
    """`extra` of a record about an attempt."""
    return {
        "workflow_id": assignment.workflow_id,
        "instance_id": assignment.instance_id,
        "step_name": assignment.step_name,
        "attempt": assignment.attempt,
    }

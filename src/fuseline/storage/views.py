"""Stored rows as the views that users see; steps without a row are filled in from the schema."""

from __future__ import annotations

from fuseline.engine.plan import Plan
from fuseline.engine.state import RunRow, StepRow, implied_status
from fuseline.model.status import Status
from fuseline.model.views import DeadLetterView, RunSummary, RunView, StepView, WorkflowView
from fuseline.storage.base import StoredLetter, StoredRun, StoredSchema


def run_summary(run: RunRow) -> RunSummary:
    """The header as a view."""
    return RunSummary(
        workflow_id=run.workflow_id,
        workflow_version=run.version,
        instance_id=run.instance_id,
        state=run.status,
        created_at=run.created_at,
        finished_at=run.finished_at,
        failed_step=run.failed_step,
        error=run.error,
    )


def run_view(stored: StoredRun, plan: Plan | None) -> RunView:
    """The run with all of its steps, in the plan's order; rows that the plan does not name (indexed steps) come last."""
    steps: dict[str, StepView] = {}
    for name, step in (plan.steps if plan is not None else {}).items():
        row = stored.steps.get(name)
        if row is None or row.is_reset:
            attempt = 0 if row is None else row.attempt
            steps[name] = StepView(name=name, state=implied_status(stored.run, step), attempt=attempt)
        else:
            steps[name] = step_view(row)
    steps |= {name: step_view(row) for name, row in stored.steps.items() if name not in steps}
    outputs = plan.outputs if plan is not None else ()
    done = {name: steps[name].result for name in outputs if steps[name].state is Status.SUCCEEDED}
    return RunView(**run_summary(stored.run).model_dump(), inputs=stored.inputs, steps=steps, outputs=done)


def step_view(row: StepRow) -> StepView:
    """One row as a view."""
    return StepView(
        name=row.name,
        state=row.status,
        attempt=row.attempt,
        worker_id=row.holder,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        due_at=row.due_at,
        action=row.action,
        result=row.result,
        error=row.error,
    )


def letter_view(stored: StoredLetter) -> DeadLetterView:
    """A dead letter as a view."""
    letter = stored.letter
    return DeadLetterView(
        letter_id=letter.letter_id,
        workflow_id=stored.workflow_id,
        workflow_version=stored.version,
        instance_id=stored.instance_id,
        step_name=letter.step,
        attempt=letter.attempt,
        reason=letter.reason,
        state=letter.state,
        error=letter.error,
        died_at=letter.died_at,
        settled_at=letter.settled_at,
        next_attempt=letter.next_attempt,
    )


def workflow_view(stored: StoredSchema) -> WorkflowView:
    """A registered version as a view."""
    schema = stored.schema
    return WorkflowView(
        workflow_id=schema.workflow_id,
        version=schema.version,
        steps=len(schema.steps),
        outputs=schema.outputs,
        registered_at=stored.registered_at,
        description=schema.description,
        inputs_schema=schema.inputs_schema,
    )

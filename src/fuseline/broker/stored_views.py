"""What a broker in this process answers from its storage alone."""

from __future__ import annotations

import copy
from typing import Any

from fuseline.clock import Clock
from fuseline.errors import UnknownRunError, UnknownWorkflowError
from fuseline.ledger import Ledger
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.model.views import RunSummary, RunView, WorkerView, WorkflowView
from fuseline.storage.views import run_summary, run_view, workflow_view


class StoredViews:
    """Used by one thread at a time, as the ledger is."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._storage = ledger.storage
        self._clock = clock

    def get_run(self, instance_id: str) -> RunView:
        """See `Broker`."""
        stored = self._storage.read_run(instance_id)
        if stored is None:
            raise UnknownRunError(f"no run {instance_id!r} is known")
        return _detached(run_view(stored, self._ledger.plan(stored.run.workflow_id, stored.run.version)))

    def list_runs(
        self, *, workflow_id: str | None, state: RunStatus | None, limit: int, before: str | None
    ) -> list[RunSummary]:
        """See `Broker`."""
        rows = self._storage.list_runs(workflow_id=workflow_id, state=state, limit=limit, before=before)
        return [run_summary(row) for row in rows]

    def list_workers(self) -> list[WorkerView]:
        """The workers as stored: seen when somebody last wrote it down."""
        alive_after = self._clock.now() - self._ledger.rules.lease_seconds
        return [
            worker.model_copy(update={"alive": worker.last_seen_at >= alive_after})
            for worker in self._storage.list_workers()
        ]

    def list_workflows(self) -> list[WorkflowView]:
        """See `Broker`."""
        return [workflow_view(stored) for stored in self._storage.list_schemas()]

    def get_workflow(self, workflow_id: str, version: str | None) -> WorkflowSchema:
        """See `Broker`."""
        if version is not None:
            return self._ledger.schema(workflow_id, version)
        found = [s for s in self._storage.list_schemas() if s.schema.workflow_id == workflow_id]
        if not found:
            raise UnknownWorkflowError(f"workflow {workflow_id!r} is not registered")
        return max(found, key=lambda stored: stored.registered_at).schema

    def counts(self) -> dict[str, Any]:
        """How many runs are in each state, and how many workflow versions are registered."""
        runs = self._storage.count_runs()
        return {
            "runs": {state.value: runs.get(state, 0) for state in RunStatus},
            "workflows": len(self._storage.list_schemas()),
        }


def _detached(view: RunView) -> RunView:
    """A copy of what the memory storage keeps, so that who asks cannot change it."""
    steps = {
        name: step.model_copy(update={"result": copy.deepcopy(step.result)})
        if isinstance(step.result, dict | list)
        else step
        for name, step in view.steps.items()
    }
    update = {"inputs": copy.deepcopy(view.inputs), "steps": steps, "outputs": copy.deepcopy(view.outputs)}
    return view.model_copy(update=update)

"""The small methods that a custom broker expects of a storage, on top of the same rows as everything else.

They are for brokers that do their own scheduling. Each is one transaction of its own, so a crash between two of them
leaves what the first one wrote; Fuseline's own brokers go through `Ledger` instead, and the two do not mix on one run.

A step moves PENDING -> QUEUED (`enqueue`) -> RUNNING (`fetch_next`) -> whatever `set_state` says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from fuseline.clock import SystemClock
from fuseline.engine.state import RunRow, StepRow
from fuseline.errors import CallerError, UnknownRunError
from fuseline.model.status import RunStatus, Status
from fuseline.storage.transaction import Changes, Loaded, Transaction, Wanted

_CLOCK = SystemClock()


class StepHold(NamedTuple):
    """Who has a step, and until when (seconds since the epoch; None: for good)."""

    worker_id: str
    expires_at: float | None


class ThinMethods(ABC):
    """All raise `UnknownRunError` for a run that this workflow does not have, and `StorageUnavailableError`."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin; commit at the end of the `with` block, roll back when it raises."""

    @abstractmethod
    def read_rows(self, wanted: Wanted) -> Loaded:
        """The wanted rows that exist, without locking: not for deciding on."""

    # ---- runs

    def create_run(
        self,
        workflow_id: str,
        instance_id: str,
        steps: Iterable[str] = (),
        *,
        version: str = "1",
        inputs: dict[str, Any] | None = None,
    ) -> None:
        """Begin a run, with its steps PENDING. Raises `CallerError` if there is one with this id."""
        names = list(dict.fromkeys(steps))
        run = RunRow(
            instance_id, workflow_id, version, RunStatus.RUNNING, _CLOCK.now(), len(names), is_new=True
        )
        rows = [(instance_id, StepRow(name, Status.PENDING, is_new=True)) for name in names]
        with self.transaction() as tx:
            if tx.load(Wanted(runs={instance_id})).runs:
                raise CallerError(f"run {instance_id!r} exists already")
            tx.save(Changes(runs=[run], steps=rows, inputs={instance_id: {} if inputs is None else inputs}))

    def finalize_run(self, workflow_id: str, instance_id: str, state: RunStatus | None = None) -> RunStatus:
        """End a run: steps that have not ended are CANCELLED. Returns its final state; one that has ended stays as it is.

        Without `state` the steps say it: FAILED if one failed, else CANCELLED if one was cancelled or had not ended, else
        SUCCEEDED. Raises `CallerError` for a state that is no end.
        """
        if state is not None and not state.is_terminal:
            raise CallerError(f"a run cannot end {state}")
        with self.transaction() as tx:
            run = _known_run(tx.load(Wanted(runs={instance_id})), workflow_id, instance_id).copy()
            if run.status.is_terminal:
                return run.status
            rows = tx.load(Wanted(whole={instance_id})).steps.values()
            states = {row.status if row.status.is_terminal else Status.CANCELLED for row in rows}
            run.status = state or _verdict(states)
            run.finished_at, run.due_at, run.open_steps = _CLOCK.now(), None, 0
            open_rows = [row.copy() for row in rows if not row.status.is_terminal]
            for row in open_rows:
                row.status, row.finished_at, row.due_at = Status.CANCELLED, run.finished_at, None
            tx.save(Changes(runs=[run], steps=[(instance_id, row) for row in open_rows]))
        return run.status

    def set_inputs(self, workflow_id: str, instance_id: str, inputs: dict[str, Any]) -> None:
        """Replace the run's inputs."""
        with self.transaction() as tx:
            run = _known_run(tx.load(Wanted(runs={instance_id})), workflow_id, instance_id)
            tx.save(Changes(runs=[run.copy()], inputs={instance_id: inputs}))

    def get_inputs(self, workflow_id: str, instance_id: str) -> dict[str, Any]:
        """The run's inputs."""
        found = self.read_rows(Wanted(runs={instance_id}, inputs={instance_id}))
        _known_run(found, workflow_id, instance_id)
        return found.inputs.get(instance_id, {})

    # ---- the queue

    def enqueue(self, workflow_id: str, instance_id: str, step_name: str) -> None:
        """Queue a step, as its next attempt if it was handed out before. One that waits already waits on."""
        with self._changing(workflow_id, instance_id, step_name) as row:
            if row.status is Status.QUEUED:
                return
            if row.status is not Status.PENDING:
                row.attempt += 1
            row.status, row.queued_at = Status.QUEUED, _CLOCK.now()
            row.holder = row.due_at = row.started_at = row.finished_at = None

    def fetch_next(self, workflow_id: str, instance_id: str | None = None) -> str | None:
        """Take the step that waits longest, of one run, or of the workflow's oldest run that has one; None if none waits.

        It is RUNNING from then on: whoever calls at the same time gets another one. `fetch_next_of_workflow` says which
        run it is of.
        """
        found = self._fetch(workflow_id, instance_id)
        return None if found is None else found[1]

    def fetch_next_of_workflow(self, workflow_id: str) -> tuple[str, str] | None:
        """The same, of any run: (instance_id, step name)."""
        return self._fetch(workflow_id, None)

    def _fetch(self, workflow_id: str, instance_id: str | None) -> tuple[str, str] | None:
        with self.transaction() as tx:
            for i, row in tx.take_queued(workflow_id, instance_id, 1):
                row = row.copy()
                row.status, row.started_at = Status.RUNNING, _CLOCK.now()
                tx.save(Changes(steps=[(i, row)]))
                return i, row.name
        return None

    def assign_step(
        self,
        workflow_id: str,
        instance_id: str,
        step_name: str,
        worker_id: str,
        expires_at: float | None = None,
    ) -> None:
        """Say who has a step, and until when; `next_due` and `Transaction.take_due` find it when that has passed."""
        with self._changing(workflow_id, instance_id, step_name) as row:
            row.status, row.holder, row.due_at = Status.RUNNING, worker_id, expires_at
            row.started_at = row.started_at or _CLOCK.now()

    def clear_assignment(self, workflow_id: str, instance_id: str, step_name: str) -> None:
        """Nobody has the step now. Its state stays: `enqueue` it for somebody else, or `set_state`."""
        with self._changing(workflow_id, instance_id, step_name) as row:
            row.holder = row.due_at = None

    def get_assignment(self, workflow_id: str, instance_id: str, step_name: str) -> StepHold | None:
        """Who has the step; None if nobody."""
        row = self._row(workflow_id, instance_id, step_name)
        if row is None or row.holder is None:
            return None
        return StepHold(row.holder, row.due_at)

    # ---- steps

    def set_state(self, workflow_id: str, instance_id: str, step_name: str, state: Status) -> None:
        """Put a step into a state; one that ends it also ends its assignment's deadline."""
        with self._changing(workflow_id, instance_id, step_name) as row:
            row.status = state
            if state.is_terminal:
                row.finished_at, row.due_at = _CLOCK.now(), None
            if state is Status.QUEUED:
                row.queued_at = _CLOCK.now()

    def get_state(self, workflow_id: str, instance_id: str, step_name: str) -> Status:
        """The step's state; PENDING for one that nothing was said about."""
        row = self._row(workflow_id, instance_id, step_name)
        return Status.PENDING if row is None else row.status

    def set_result(self, workflow_id: str, instance_id: str, step_name: str, result: Any) -> None:
        """Keep a step's result, a JSON value; its state stays."""
        with self._changing(workflow_id, instance_id, step_name) as row:
            row.result = result

    def get_result(self, workflow_id: str, instance_id: str, step_name: str) -> Any:
        """The step's result; None for none."""
        row = self._row(workflow_id, instance_id, step_name)
        return None if row is None else row.result

    # ---- rows

    @contextmanager
    def _changing(self, workflow_id: str, instance_id: str, step_name: str) -> Iterator[StepRow]:
        """The step's row, to be changed; the run's count of open steps follows."""
        key = instance_id, step_name
        with self.transaction() as tx:
            run = _known_run(tx.load(Wanted(runs={instance_id})), workflow_id, instance_id)
            known = tx.load(Wanted(steps={key}, lock_steps=True)).steps.get(key)
            row = StepRow(step_name, Status.PENDING, is_new=True) if known is None else known.copy()
            was_open = known is not None and not known.status.is_terminal
            yield row
            if row == known:
                return
            changes = Changes(steps=[(instance_id, row)])
            if was_open is row.status.is_terminal:
                run = run.copy()
                run.open_steps += -1 if was_open else 1
                changes.runs.append(run)
            tx.save(changes)

    def _row(self, workflow_id: str, instance_id: str, step_name: str) -> StepRow | None:
        key = instance_id, step_name
        found = self.read_rows(Wanted(runs={instance_id}, steps={key}))
        _known_run(found, workflow_id, instance_id)
        return found.steps.get(key)


def _known_run(found: Loaded, workflow_id: str, instance_id: str) -> RunRow:
    run = found.runs.get(instance_id)
    if run is None or run.workflow_id != workflow_id:
        raise UnknownRunError(f"no run {instance_id!r} of workflow {workflow_id!r} is known")
    return run


def _verdict(states: set[Status]) -> RunStatus:
    if Status.FAILED in states:
        return RunStatus.FAILED
    return RunStatus.CANCELLED if Status.CANCELLED in states else RunStatus.SUCCEEDED

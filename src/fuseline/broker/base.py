"""The interface of every broker: five methods that a user's own broker must have, and more that ours offer.

Whoever dispatches, executes or watches runs talks to a `Broker` and cannot tell which one it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from fuseline.errors import UnsupportedError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.model.views import (
    DeadLetterDetail,
    DeadLetterView,
    ReplayView,
    RunSummary,
    RunView,
    WorkerView,
    WorkflowView,
)


class Broker(ABC):
    """Hands steps of runs to workers and takes their reports.

    Subclass it with the five abstract methods and the worker, the HTTP service and `ProcessEngine` work with it. The
    other methods raise `UnsupportedError` until you override them. All of them may raise a `RetryableError` when what
    is behind the broker is away: every call is safe to repeat.
    """

    @abstractmethod
    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        """Make known a worker that executes these workflow versions; returns its worker id.

        Raises `SchemaConflictError` when a version is known with another graph.
        """

    @abstractmethod
    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        """Begin a run and queue its starting steps; returns its instance id. Registers `workflow` if need be.

        When it returns, the run is durable (P4). Raises `InvalidInputsError` naming the field, `SchemaConflictError`.
        """

    @abstractmethod
    def get_step(self, worker_id: str) -> StepAssignment | None:
        """The next step that this worker can execute, now held by it until `expires_at`; None when there is none.

        Raises `UnknownWorkerError`.
        """

    @abstractmethod
    def report_step(self, worker_id: str, report: StepReport) -> None:
        """Record how an attempt ended. When it returns, the report is durable (P4).

        The same report twice is accepted and changes nothing. Storage keeps a step's current attempt alone, so a failure
        that comes again when its retry is queued is recognised only by the broker that took it, among the latest ten
        thousand; after a restart it is stale. Either way the attempt is over.

        Raises `StaleReportError` when the attempt is over or held by somebody else (P5), `UnknownRunError`,
        `UnknownWorkerError`.
        """

    @abstractmethod
    def keep_alive(self, worker_id: str) -> None:
        """Say that the worker lives: carries on the leases of what it holds. Raises `UnknownWorkerError`."""

    # ---- what brokers of ours offer besides

    def dispatch_many(self, workflow: WorkflowSchema, inputs: Sequence[dict[str, Any] | None]) -> list[str]:
        """Begin a run of `workflow` for each of the inputs; returns their instance ids, in the same order.

        Unless overridden, `dispatch_workflow` for one after the other, which raises as that does: the runs before the one
        that is wrong are dispatched then.
        """
        return [self.dispatch_workflow(workflow, one) for one in inputs]

    def get_run(self, instance_id: str) -> RunView:
        """The run with its steps. Raises `UnknownRunError`."""
        raise self._unsupported("get_run")

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunSummary]:
        """Runs, newest first. `before`: an instance id, to page on from."""
        raise self._unsupported("list_runs")

    def cancel_run(self, instance_id: str) -> None:
        """End a run as CANCELLED; on a cancelled run it does nothing.

        Raises `UnknownRunError`, `StaleReportError` when the run has ended otherwise.
        """
        raise self._unsupported("cancel_run")

    def list_dead_letters(
        self,
        *,
        workflow_id: str | None = None,
        instance_id: str | None = None,
        reason: DeadLetterReason | None = None,
        state: DeadLetterState | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[DeadLetterView]:
        """Steps that failed for good, the latest first. `before`: a letter's id, to page on from."""
        raise self._unsupported("list_dead_letters")

    def get_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """A dead letter with its message. Raises `UnknownDeadLetterError`."""
        raise self._unsupported("get_dead_letter")

    def replay_dead_letter(self, letter_id: str) -> ReplayView:
        """Set the failed run going again at the letter's step, which gets a fresh attempt and all of its retries.

        Other steps of the run that failed it too get one along with it. When it returns, that is durable (P4). Twice is
        once, and the answer says so. Raises `UnknownDeadLetterError`, `NotReplayableError` saying why.
        """
        raise self._unsupported("replay_dead_letter")

    def discard_dead_letter(self, letter_id: str) -> DeadLetterView:
        """Leave the step as it failed: the letter cannot be replayed any more. Twice is once.

        Raises `UnknownDeadLetterError`, `NotReplayableError` when it was replayed.
        """
        raise self._unsupported("discard_dead_letter")

    def list_workers(self) -> list[WorkerView]:
        """The workers that registered and were not silent for too long."""
        raise self._unsupported("list_workers")

    def list_workflows(self) -> list[WorkflowView]:
        """The registered workflow versions."""
        raise self._unsupported("list_workflows")

    def get_workflow(self, workflow_id: str, version: str | None = None) -> WorkflowSchema:
        """A registered schema; without `version` the one registered last. Raises `UnknownWorkflowError`."""
        raise self._unsupported("get_workflow")

    def status(self) -> Mapping[str, Any]:
        """How it goes: `{"broker": kind, "runs": {state: count}, "workers": count, ...}`."""
        raise self._unsupported("status")

    def wait(self, instance_id: str, timeout: float | None = None) -> RunView:
        """Block until the run has ended, and return it.

        Raises `DeadlineExceededError` after `timeout` seconds (the run goes on), `UnknownRunError`.
        """
        raise self._unsupported("wait")

    def close(self) -> None:  # noqa: B027 - a broker without resources has nothing to release
        """Release threads and connections. A closed broker takes no more calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _unsupported(self, method: str) -> UnsupportedError:
        return UnsupportedError(f"{type(self).__name__} does not support {method}()")

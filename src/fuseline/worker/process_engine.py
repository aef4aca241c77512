"""The simple loop: one step after the other, and every call to the broker on the caller's own thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fuseline.broker.base import Broker
from fuseline.clock import Clock, SystemClock
from fuseline.errors import RetryableError, UnknownWorkerError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.model.views import RunSummary, RunView, WorkerView, WorkflowView
from fuseline.settings import Settings
from fuseline.worker.catalog import Catalog
from fuseline.worker.executing import Execution
from fuseline.worker.executors import LoopExecutor, ThreadExecutor
from fuseline.worker.pull import IDLE_SECONDS, RETRY_SECONDS, report_to
from fuseline.worker.reports import Sealer
from fuseline.worker.slots import Slots
from fuseline.worker.workflows import WorkflowCatalog, WorkflowLike

log = logging.getLogger(__name__)


class ProcessEngine:
    """Executes steps of `workflows` for any `Broker`, one at a time. `client` is a broker, or a `LocalBrokerClient`.

    While a body runs (on a thread or a loop of its own, so that its timeout holds) the caller's thread says now and then
    that the worker lives.
    """

    def __init__(
        self,
        client: Broker,
        workflows: WorkflowLike | Iterable[WorkflowLike],
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = settings or Settings()
        self._broker = client
        self._clock = clock or SystemClock()
        self._sealer = Sealer(self._clock, settings.max_message_bytes)
        self._catalog: Catalog = WorkflowCatalog.of(workflows, self._sealer)
        self._heartbeat_seconds = settings.heartbeat_seconds
        self._stopping = threading.Event()
        self.worker_id: str | None = None

    def stop(self) -> None:
        """Make `work` return after the step that it is at; from any thread or signal handler."""
        self._stopping.set()

    def work(self, block: bool = True) -> int:
        """Execute steps; returns how many.

        `block=False`: until the broker has none. Otherwise until `stop`, waiting out a broker that is away. Raises
        what the broker raises.
        """
        self._stopping.clear()
        loops = LoopExecutor()
        slots = Slots(1, ThreadExecutor(), loops)
        executed = 0
        pause = IDLE_SECONDS[0]
        try:
            while not self._stopping.is_set():
                try:
                    assignment = self._next()
                except RetryableError as error:
                    if not block:
                        raise
                    log.warning("the broker is away, trying again: %s", error)
                    assignment = None
                if assignment is not None:
                    self._execute(assignment, slots)
                    executed += 1
                    pause = IDLE_SECONDS[0]
                elif not block:
                    break
                else:
                    self._stopping.wait(pause)
                    pause = min(pause * 2, IDLE_SECONDS[1])
        finally:
            self._catalog.end(loops.run)
            slots.close()
        return executed

    def _next(self) -> StepAssignment | None:
        if self.worker_id is None:
            self.worker_id = self._broker.register_worker(self._catalog.schemas)
        try:
            return self._broker.get_step(self.worker_id)
        except UnknownWorkerError:
            log.warning("the broker has forgotten worker %s, registering again", self.worker_id)
            self.worker_id = self._broker.register_worker(self._catalog.schemas)
            return self._broker.get_step(self.worker_id)

    def _execute(self, assignment: StepAssignment, slots: Slots) -> None:
        worker_id = self.worker_id or ""
        sealed = Execution(assignment).run(
            self._catalog,
            slots,
            self._sealer,
            self._clock,
            tick_seconds=self._heartbeat_seconds,
            on_tick=lambda: self._keep_alive(worker_id),
        )
        assert sealed is not None  # nobody abandons it
        report = sealed.plain()
        pause = RETRY_SECONDS[0]
        while True:
            try:
                report_to(self._broker, worker_id, assignment, report, self._sealer)
            except UnknownWorkerError:
                # It was silent too long, and has lost what it held: the report would be stale.
                self.worker_id = None
                return
            except RetryableError as error:
                log.warning("a report is not taken yet: %s", error)
                if self._stopping.wait(pause):
                    raise
                pause = min(pause * 2, RETRY_SECONDS[1])
            else:
                return

    def _keep_alive(self, worker_id: str) -> None:
        try:
            self._broker.keep_alive(worker_id)
        except (RetryableError, UnknownWorkerError) as error:
            log.warning("a keep-alive is lost: %s", error)


class LocalBrokerClient(Broker):
    """A broker of this process as a client: hands every call through to `broker`."""

    def __init__(self, broker: Broker) -> None:
        self.broker: Final = broker

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        return self.broker.register_worker(workflows)

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        return self.broker.dispatch_workflow(workflow, inputs)

    def get_step(self, worker_id: str) -> StepAssignment | None:
        return self.broker.get_step(worker_id)

    def report_step(self, worker_id: str, report: StepReport) -> None:
        self.broker.report_step(worker_id, report)

    def keep_alive(self, worker_id: str) -> None:
        self.broker.keep_alive(worker_id)

    def get_run(self, instance_id: str) -> RunView:
        return self.broker.get_run(instance_id)

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunSummary]:
        return self.broker.list_runs(workflow_id=workflow_id, state=state, limit=limit, before=before)

    def cancel_run(self, instance_id: str) -> None:
        self.broker.cancel_run(instance_id)

    def list_workers(self) -> list[WorkerView]:
        return self.broker.list_workers()

    def list_workflows(self) -> list[WorkflowView]:
        return self.broker.list_workflows()

    def get_workflow(self, workflow_id: str, version: str | None = None) -> WorkflowSchema:
        return self.broker.get_workflow(workflow_id, version)

    def status(self) -> Mapping[str, Any]:
        return self.broker.status()

    def wait(self, instance_id: str, timeout: float | None = None) -> RunView:
        return self.broker.wait(instance_id, timeout)

    def close(self) -> None:
        self.broker.close()

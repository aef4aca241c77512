"""A broker with the five methods and no more, as a user may write one, that a test can make misbehave."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from fuseline.broker.base import Broker
from fuseline.errors import StaleReportError, UnknownWorkerError
from fuseline.model import StepAssignment, StepReport, WorkflowSchema

SECONDS = 20.0


class FiveMethods(Broker):
    """Hands out what `add` put in, keeps what is reported."""

    def __init__(self) -> None:
        self.waiting: deque[StepAssignment] = deque()
        self.reports: queue.Queue[StepReport] = queue.Queue()
        self.polls = 0
        self.beats: queue.Queue[str] = queue.Queue()
        self.registered: list[list[WorkflowSchema]] = []
        self.known: set[str] = set()
        self.over: set[str] = set()
        self.fail: Callable[[str], None] = lambda _method: None
        self.on_report: Callable[[StepReport], None] = lambda _report: None
        self.threads: set[int] = set()

    def add(self, *assignments: StepAssignment) -> None:
        self.waiting.extend(assignments)

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        self._called("register_worker")
        self.registered.append(list(workflows))
        worker_id = f"worker {len(self.registered)}"
        self.known.add(worker_id)
        return worker_id

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        raise AssertionError("a worker dispatches nothing")

    def get_step(self, worker_id: str) -> StepAssignment | None:
        self._called("get_step", worker_id)
        self.polls += 1
        return self.waiting.popleft() if self.waiting else None

    def report_step(self, worker_id: str, report: StepReport) -> None:
        self._called("report_step", worker_id)
        assert report.worker_id == worker_id
        if report.instance_id in self.over:
            raise StaleReportError("over")
        self.on_report(report)
        self.reports.put(report)

    def keep_alive(self, worker_id: str) -> None:
        self._called("keep_alive", worker_id)
        self.beats.put(worker_id)

    def next_report(self) -> StepReport:
        return self.reports.get(timeout=SECONDS)

    def _called(self, method: str, worker_id: str | None = None) -> None:
        self.threads.add(threading.get_ident())
        self.fail(method)
        if worker_id is not None and worker_id not in self.known:
            raise UnknownWorkerError(worker_id)

"""A broker with the five methods and no more, as a user may write one, that a test can make misbehave."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fuseline.broker.base import Broker
from fuseline.broker.lane import Exchanged, Lane, Told
from fuseline.broker.ready import Fence
from fuseline.errors import CallerError, StaleReportError, UnknownWorkerError
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
        self.wakes: list[Callable[[], None]] = []

    def add(self, *assignments: StepAssignment) -> None:
        self.waiting.extend(assignments)
        for wake in self.wakes:
            wake()

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


class ShortWay(Lane):
    """The same broker by way of many reports and many steps in one call."""

    def __init__(self, five: FiveMethods) -> None:
        self._five = five
        self._wakes: dict[str, Callable[[], None]] = {}
        self.exchanges = 0
        self.holds: queue.Queue[list[Fence] | None] = queue.Queue()

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        return self._five.register_worker(workflows)

    def keep_alive(self, worker_id: str, *, holds: Iterable[Fence] | None = None) -> None:
        self._five.keep_alive(worker_id)
        self.holds.put(None if holds is None else list(holds))

    def exchange(self, worker_id: str, reports: Sequence[Told], wanted: int) -> Exchanged:
        self.exchanges += 1
        refusals: list[CallerError | None] = []
        for one in reports:
            try:
                self._five.report_step(worker_id, one.report.model_copy(update={"worker_id": worker_id}))
            except UnknownWorkerError:
                raise
            except CallerError as error:
                refusals.append(error)
            else:
                refusals.append(None)
        steps: list[StepAssignment] = []
        if wanted:
            while len(steps) < wanted and (one_more := self._five.get_step(worker_id)) is not None:
                steps.append(one_more)
        return Exchanged(refusals, steps)

    def on_ready(self, worker_id: str, wake: Callable[[], None] | None) -> None:
        self._wakes.pop(worker_id, None)
        if wake is not None:
            self._wakes[worker_id] = wake
        self._five.wakes = list(self._wakes.values())

"""Bodies for the executors: what steps may do to whoever runs them. Importable, for processes of their own."""

from __future__ import annotations

import asyncio
import os
import queue
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from fuseline.clock import SystemClock
from fuseline.errors import LoadError
from fuseline.model import Status, StepAssignment, StepReport, StepSchema, WorkflowSchema
from fuseline.worker import child
from fuseline.worker.catalog import Catalog
from fuseline.worker.executors import Job
from fuseline.worker.reports import Sealed, Sealer, crashed

MAX_BYTES = 100_000
SCHEMA = WorkflowSchema(workflow_id="flow one", version="2.0", steps={"a": StepSchema(name="a")})


def sealer(worker_id: str | None = "w1") -> Sealer:
    return Sealer(SystemClock(), MAX_BYTES, worker_id)


def assignment(
    step: str, *, value: Any = None, attempt: int = 1, timeout: float | None = None
) -> StepAssignment:
    return StepAssignment(
        workflow_id="w",
        instance_id="i1",
        step_name=step,
        attempt=attempt,
        payload={"workflow_inputs": {"value": value}, "results": {}},
        assigned_at=1.0,
        expires_at=61.0,
        timeout_seconds=timeout,
    )


def report(of: StepAssignment, result: Any) -> StepReport:
    return StepReport(
        workflow_id=of.workflow_id,
        instance_id=of.instance_id,
        step_name=of.step_name,
        attempt=of.attempt,
        state=Status.SUCCEEDED,
        result=result,
    )


def sync_job(of: StepAssignment, body: Callable[[], Any], cancel: Callable[[], None] = lambda: None) -> Job:
    return Job(of, sync=lambda: run(of, body), cancel=cancel)


def async_job(of: StepAssignment, body: Callable[[], Awaitable[Any]]) -> Job:
    async def coroutine() -> Sealed:
        try:
            return sealer().seal(report(of, await body()))
        except (ArithmeticError, ValueError, SystemExit, asyncio.CancelledError) as error:
            return sealer().seal(crashed(of, error))

    return Job(of, coroutine=coroutine)


def run(of: StepAssignment, body: Callable[[], Any]) -> Sealed:
    try:
        return sealer().seal(report(of, body()))
    except (ArithmeticError, ValueError, SystemExit) as error:
        return sealer().seal(crashed(of, error))


def execute(of: StepAssignment) -> Sealed:
    """In the child: the step's name says what to do."""
    return run(of, partial(_BODIES[of.step_name], of.payload["workflow_inputs"]["value"]))


def child_main(pipe: Connection, *_args: Any) -> None:
    child.serve(pipe, lambda: (execute, lambda: None))


def child_main_that_cannot_load(pipe: Connection) -> None:
    child.serve(pipe, _fail)


def child_main_that_dies(_pipe: Connection) -> None:
    os._exit(7)


def _fail() -> tuple[child.Execute, child.End]:
    raise LoadError("nothing to load")


def _sleep_long(path: str) -> None:
    """Says its pid in a file, then sleeps."""
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".part", path)
    time.sleep(600)


def _exit(code: int) -> None:
    os._exit(code)


def _system_exit(code: int) -> None:
    raise SystemExit(code)


def _huge(size: int) -> str:
    return "x" * size


def _pid(_value: Any) -> int:
    return os.getpid()


_BODIES: dict[str, Callable[[Any], Any]] = {
    "sleep": _sleep_long,
    "exit": _exit,
    "system_exit": _system_exit,
    "huge": _huge,
    "pid": _pid,
}


class CallableCatalog(Catalog):
    """A catalog of plain callables by step name, each of which gets an assignment that is its own; counts what ran."""

    def __init__(self, schemas: Sequence[WorkflowSchema] = (SCHEMA,)) -> None:
        self._schemas = schemas
        self.sync: dict[str, Callable[[StepAssignment], Any]] = {"a": lambda _assignment: "done"}
        self.asynchronous: dict[str, Callable[[StepAssignment], Awaitable[Any]]] = {}
        self.started: queue.Queue[StepAssignment] = queue.Queue()
        self.cancelled: queue.Queue[StepAssignment] = queue.Queue()
        self.runs = 0

    @property
    def schemas(self) -> Sequence[WorkflowSchema]:
        return self._schemas

    def knows(self, assignment: StepAssignment) -> bool:
        return (assignment.workflow_id, assignment.workflow_version) in self.keys

    def job(self, assignment: StepAssignment, started_at: float) -> Job:
        step = assignment.step_name
        if step in self.asynchronous:
            return async_job(assignment, lambda: self._await(assignment))
        return sync_job(assignment, lambda: self._call(assignment), lambda: self.cancelled.put(assignment))

    def _call(self, assignment: StepAssignment) -> Any:
        self.runs += 1
        self.started.put(assignment)
        return self.sync[assignment.step_name](assignment.model_copy(deep=True))

    async def _await(self, assignment: StepAssignment) -> Any:
        self.runs += 1
        self.started.put(assignment)
        return await self.asynchronous[assignment.step_name](assignment.model_copy(deep=True))

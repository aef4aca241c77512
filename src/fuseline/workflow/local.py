"""Runs in this process: where their scheduler lives, and what is handed back in the end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from pydantic import ValidationError

from fuseline.clock import Clock, SystemClock
from fuseline.engine.plan import Plan, compile_plan
from fuseline.errors import CallerError, RunFailed
from fuseline.ledger import Ledger, LedgerRun, PrivateRun, RunBook
from fuseline.model.inputs import check_inputs_schema
from fuseline.model.messages import StepError
from fuseline.model.status import RunStatus, Status
from fuseline.model.views import RunView
from fuseline.storage.base import RuntimeStorage, StoredRun
from fuseline.storage.views import run_view
from fuseline.workflow.convert import Converter, fresh, problems_of
from fuseline.workflow.scheduler import Scheduler
from fuseline.workflow.trace import Trace

if TYPE_CHECKING:
    from fuseline.workflow.workflow import Workflow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that may begin: everything about it has been checked."""

    workflow: Workflow
    inputs: dict[str, Any]
    max_workers: int | None
    storage: RuntimeStorage | None
    trace: str | os.PathLike[str] | IO[str] | None
    clock: Clock


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    stored: StoredRun
    plan: Plan

    @cached_property
    def view(self) -> RunView:
        """The run with its steps."""
        return run_view(self.stored, self.plan)

    def raise_failure(self) -> None:
        """Raise `RunFailed` unless the run has succeeded."""
        run = self.stored.run
        if run.status is RunStatus.SUCCEEDED:
            return
        who = f"run {run.instance_id} of workflow {run.workflow_id!r}"
        what = _told(run.failed_step, run.error)
        raise RunFailed(f"{who} {run.status}{what}", step=run.failed_step, error=run.error, run=self.view)

    def value(self, name: str, converter: Converter | None) -> Any:
        """What an output step returned, as its annotation wants it; None if it did not succeed."""
        row = self.stored.steps.get(name)
        if row is None or row.status is not Status.SUCCEEDED:
            return None
        value = fresh(row.result)
        if converter is None:
            return value
        try:
            return converter.from_json(value)
        except ValidationError as error:
            # It was checked before it became JSON, so this type does not come back from there (or a Branch carried it).
            log.debug("output %s is returned as JSON: %s", name, problems_of(error))
            return value


def prepare(
    workflow: Workflow,
    inputs: Mapping[str, Any],
    max_workers: int | None,
    storage: RuntimeStorage | None,
    trace: str | os.PathLike[str] | IO[str] | None,
) -> Prepared:
    """Check the options. Raises `CallerError`."""
    if max_workers is not None and (type(max_workers) is not int or max_workers < 1):
        raise CallerError(f"max_workers is a number from 1, not {max_workers!r}")
    return Prepared(workflow, dict(inputs), max_workers, storage, trace, SystemClock())


def run(prepared: Prepared) -> Finished:
    """Execute on this thread; inside a running event loop on another one, since a body may want a loop of its own."""
    inner = _Run(prepared)
    if not _is_in_loop():
        return inner.execute()
    future = _in_thread(inner)
    try:
        return future.result()
    except KeyboardInterrupt:
        inner.cancel()
        raise


def _is_in_loop() -> bool:
    # Nothing is executed in the handler: an error of a step would get this one as its context.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def run_async(prepared: Prepared) -> Finished:
    """Execute with the scheduler on a thread of its own and `async` bodies on this loop."""
    inner = _Run(prepared, asyncio.get_running_loop())
    future = asyncio.wrap_future(_in_thread(inner))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        inner.cancel()
        with suppress(Exception):  # the run's own end says nothing to somebody who has given it up
            await asyncio.shield(future)
        raise


def _in_thread(inner: _Run) -> Future[Finished]:
    future: Future[Finished] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(inner.execute))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=work, name="fuseline run", daemon=True).start()
    return future


class _Run:
    """One run from its dispatch to its end, with what has to be opened and closed around it."""

    def __init__(self, prepared: Prepared, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._prepared = prepared
        self._instance_id = prepared.clock.new_id()
        self._loop = loop
        self._is_cancelled = False
        self._scheduler: Scheduler | None = None

    def cancel(self) -> None:
        """From another thread: end the run as CANCELLED."""
        self._is_cancelled = True
        if self._scheduler is not None:
            self._scheduler.cancel()

    def execute(self) -> Finished:
        """Run it."""
        prepared, schema = self._prepared, self._prepared.workflow.to_schema()
        for watcher in prepared.workflow.watchers:
            watcher.on_workflow_start(prepared.workflow, prepared.inputs)
        trace = prepared.trace
        with (
            nullcontext()
            if trace is None
            else Trace(
                trace,
                prepared.clock,
                workflow_id=schema.workflow_id,
                workflow_version=schema.version,
                instance_id=self._instance_id,
            )
        ) as tracer:
            plan = _plan_of(prepared.workflow)
            book = self._open(plan)
            self._scheduler = Scheduler(
                prepared.workflow,
                book,
                self._instance_id,
                clock=prepared.clock,
                max_workers=prepared.max_workers,
                loop=self._loop,
                # A body on the scheduler's thread keeps it from everything else: only where nothing can happen meanwhile.
                may_execute_here=self._loop is None,
                is_watched=prepared.storage is not None,
            )
            if self._is_cancelled:  # before there was anybody to tell
                self._scheduler.cancel()
            self._scheduler.execute(prepared.inputs, tracer)
        finished = Finished(book.stored(), plan)
        for watcher in prepared.workflow.watchers:
            watcher.on_workflow_finished(prepared.workflow, finished.view)
        return finished

    def _open(self, plan: Plan) -> RunBook:
        prepared = self._prepared
        if prepared.storage is None:
            return PrivateRun(plan, self._instance_id, prepared.clock)
        ledger = Ledger(prepared.storage, prepared.clock)
        ledger.register([prepared.workflow.to_schema()])
        return LedgerRun(ledger, plan, self._instance_id)


def _plan_of(workflow: Workflow) -> Plan:
    """Compiled once. Raises `InvalidSchemaError`."""
    if workflow.plan is None:
        schema = workflow.to_schema()
        check_inputs_schema(schema)
        workflow.plan = compile_plan(schema)
    return workflow.plan


def _told(step: str | None, error: StepError | None) -> str:
    if error is None:
        return ""
    where = "" if step is None else f"step {step!r}: "
    return f": {where}{error.type}: {error.message}" if error.message else f": {where}{error.type}"

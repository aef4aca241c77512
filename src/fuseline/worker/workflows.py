"""The catalog of `Workflow` objects: where assignments meet the authoring side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from fuseline.errors import CallerError, FuselineError, UnknownWorkflowError
from fuseline.model.messages import Cause, StepAssignment
from fuseline.model.schema import WorkflowSchema
from fuseline.worker.catalog import Catalog, RunCoroutine
from fuseline.worker.executors.base import Job
from fuseline.worker.loader import load
from fuseline.worker.logs import ids
from fuseline.worker.reports import Sealed, Sealer, crashed
from fuseline.worker.sources import targets_of
from fuseline.workflow import StepContext, Workflow
from fuseline.workflow.invoke import Invocation

log = logging.getLogger(__name__)

WorkflowLike: TypeAlias = Workflow | str
"""A workflow, or the `module:attribute` of one or several."""


class WorkflowCatalog(Catalog):
    """Workflows by id and version. `loaded_as` remembers by what name some of them were loaded.

    Raises `CallerError` when two of them have the same id and version, or there is none at all.
    """

    def __init__(
        self, workflows: Iterable[Workflow], sealer: Sealer, loaded_as: Sequence[tuple[Workflow, str]] = ()
    ) -> None:
        self._sealer = sealer
        self._loaded_as = loaded_as
        self._workflows: dict[tuple[str, str], Workflow] = {}
        self._schemas: list[WorkflowSchema] = []
        for workflow in workflows:
            schema = workflow.to_schema()
            known = self._workflows.get(schema.key)
            if known is None:
                self._workflows[schema.key] = workflow
                self._schemas.append(schema)
            elif known is not workflow:
                raise CallerError(
                    f"two workflows are {schema.workflow_id!r} version {schema.version!r}: a worker takes one"
                )
        if not self._schemas:
            raise CallerError("a worker needs at least one workflow")

    @classmethod
    def of(cls, workflows: WorkflowLike | Iterable[WorkflowLike], sealer: Sealer) -> WorkflowCatalog:
        """A catalog of what a user hands over. Raises `LoadError`, `CallerError`."""
        items = [workflows] if isinstance(workflows, Workflow | str) else list(workflows)
        found: list[Workflow] = []
        loaded_as: list[tuple[Workflow, str]] = []
        for item in items:
            if isinstance(item, str):
                loaded = load(item)
                found += loaded
                loaded_as += [(one, item) for one in loaded]
            elif isinstance(item, Workflow):
                found.append(item)
            else:
                raise CallerError(f"{item!r} is neither a Workflow nor module:attribute")
        return cls(found, sealer, loaded_as)

    @property
    def schemas(self) -> Sequence[WorkflowSchema]:
        """To register."""
        return self._schemas

    def targets(self) -> list[str]:
        """How a process of its own loads them. Raises `LoadError` when it cannot."""
        return targets_of(self._workflows.values(), self._loaded_as)

    def knows(self, assignment: StepAssignment) -> bool:
        """Whether the assignment is of one of these."""
        return (assignment.workflow_id, assignment.workflow_version) in self._workflows

    def job(self, assignment: StepAssignment, started_at: float) -> Job:
        """What executes the assignment."""
        context = StepContext.of(assignment, self._sealer.clock)
        try:
            invocation = Invocation(
                self._workflow(assignment),
                assignment,
                context,
                clock=self._sealer.clock,
                max_result_bytes=self._sealer.max_bytes,
            )
        except FuselineError as error:
            log.warning("an assignment cannot be executed: %s", error, extra=ids(assignment))
            sealed = self._sealer.seal(crashed(assignment, error, Cause.INVALID), started_at)
            return Job(assignment, coroutine=partial(_ready, sealed))
        timed_out = partial(self._timed_out, invocation, started_at) if invocation.has_opinion else None
        if invocation.is_async:
            run = partial(self._run_async, invocation, assignment, started_at)
            return Job(assignment, coroutine=run, cancel=context.cancel, timed_out=timed_out)
        return Job(
            assignment,
            sync=partial(self._run_sync, invocation, assignment, started_at),
            cancel=context.cancel,
            timed_out=timed_out,
        )

    def execute(self, assignment: StepAssignment) -> Sealed:
        """Execute here and now, on this thread: for a process that does nothing else."""
        job = self.job(assignment, self._sealer.clock.now())
        if job.coroutine is not None:
            return asyncio.run(_awaited(job.coroutine))
        assert job.sync is not None
        return job.sync()

    def end(self, run: RunCoroutine) -> None:
        """Call the `after_all` hooks of the steps that were executed."""
        for workflow in self._workflows.values():
            workflow.shared.end(run)

    def _workflow(self, assignment: StepAssignment) -> Workflow:
        key = (assignment.workflow_id, assignment.workflow_version)
        if key not in self._workflows:
            raise UnknownWorkflowError(f"workflow {key[0]!r} version {key[1]!r} is not among this worker's")
        return self._workflows[key]

    def _timed_out(self, invocation: Invocation, started_at: float) -> Sealed:
        return self._sealer.seal(invocation.timed_out(), started_at)

    # What no step may do to its worker, SystemExit among it, would end a thread or a loop: nothing gets past these two.

    def _run_sync(self, invocation: Invocation, assignment: StepAssignment, started_at: float) -> Sealed:
        try:
            report = invocation.run_sync()
            return self._sealer.seal(report, started_at, invocation.result_text)
        except BaseException as error:
            log.exception("step %s crashed", assignment.step_name, extra=ids(assignment))
            return self._sealer.seal(crashed(assignment, error), started_at)

    async def _run_async(
        self, invocation: Invocation, assignment: StepAssignment, started_at: float
    ) -> Sealed:
        try:
            report = await invocation.run_async()
            return self._sealer.seal(report, started_at, invocation.result_text)
        except asyncio.CancelledError as error:
            # Whoever asked for it drops the outcome; a body that cancelled itself has failed.
            return self._sealer.seal(crashed(assignment, error), started_at)
        except BaseException as error:
            log.exception("step %s crashed", assignment.step_name, extra=ids(assignment))
            return self._sealer.seal(crashed(assignment, error), started_at)


async def _ready(sealed: Sealed) -> Sealed:
    return sealed


async def _awaited(coroutine: Callable[[], Awaitable[Sealed]]) -> Sealed:
    return await coroutine()

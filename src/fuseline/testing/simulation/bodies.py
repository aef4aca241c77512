"""What executes in the simulated workers: bodies that do what their scripts say, in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial

from fuseline.model.messages import StepAssignment, StepError, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import Status
from fuseline.testing.simulation.workload import SCRIPTED, Script
from fuseline.testing.simulation.world import Call, Killed, Process
from fuseline.worker.catalog import Catalog
from fuseline.worker.executors.base import Done, Executor, Job
from fuseline.worker.reports import Sealed, Sealer

Attempt = tuple[str, str, int]


class Bodies:
    """What every step of every run does; it remembers what was executed, as the outside world would."""

    def __init__(self, scripts: dict[tuple[str, str], Script]) -> None:
        self._scripts = scripts
        self._kills: Counter[tuple[str, str]] = Counter()
        self._failed: dict[tuple[str, str], set[int]] = {}

    def script(self, assignment: StepAssignment) -> Script:
        """What the step does."""
        return self._scripts[assignment.instance_id, assignment.step_name]

    def kills(self, assignment: StepAssignment) -> bool:
        """Whether it takes its worker down, this time."""
        key = assignment.instance_id, assignment.step_name
        if self._kills[key] >= self._scripts[key].kills:
            return False
        self._kills[key] += 1
        return True

    def report(self, assignment: StepAssignment) -> StepReport:
        """How the attempt ends. The same attempt ends the same way, however often it is executed."""
        script = self.script(assignment)
        failed = self._failed.setdefault((assignment.instance_id, assignment.step_name), set())
        fails = assignment.attempt in failed or len(failed) < script.failures
        error = None
        state = Status(script.state)
        if fails or state is Status.FAILED:
            failed.add(assignment.attempt)
            state, error = Status.FAILED, StepError(type=SCRIPTED, message="as the script says")
        done = state is Status.SUCCEEDED
        return StepReport(
            workflow_id=assignment.workflow_id,
            instance_id=assignment.instance_id,
            step_name=assignment.step_name,
            attempt=assignment.attempt,
            state=state,
            result=[assignment.step_name, assignment.attempt] if done else None,
            action=script.action if done else None,
            error=error,
            decision=script.decision if state is Status.FAILED else None,
        )


class SimCatalog(Catalog):
    """The workflow versions of a simulated worker."""

    def __init__(self, schemas: Sequence[WorkflowSchema], bodies: Bodies, sealer: Sealer) -> None:
        self._schemas = schemas
        self._keys = {schema.key for schema in schemas}
        self._bodies = bodies
        self._sealer = sealer

    @property
    def schemas(self) -> Sequence[WorkflowSchema]:
        return self._schemas

    def knows(self, assignment: StepAssignment) -> bool:
        return (assignment.workflow_id, assignment.workflow_version) in self._keys

    def job(self, assignment: StepAssignment, started_at: float) -> Job:
        return Job(assignment, sync=partial(self._run, assignment, started_at))

    def _run(self, assignment: StepAssignment, started_at: float) -> Sealed:
        return self._sealer.seal(self._bodies.report(assignment), started_at)


class _Body:
    """A body that runs. Stopped, it runs on to its end, as a thread does, and its outcome is dropped."""

    def __init__(self, executor: SimExecutor, job: Job, done: Done, key: Attempt) -> None:
        self.executor = executor
        self.job = job
        self.done = done
        self.key = key
        self.is_over = False
        self.is_stopped = False
        self.call: Call | None = None

    def stop(self) -> bool:
        """Abandon it."""
        if self.is_over:
            return False
        if not self.is_stopped:
            self.is_stopped = True
            self.executor.stopped(self)
        return True


class SimExecutor(Executor):
    """Bodies in virtual time."""

    def __init__(self, process: Process, bodies: Bodies, concurrency: int, tick_seconds: float = 0.0) -> None:
        self._process = process
        self._bodies = bodies
        self._abandoned = 0
        self._running = 0
        self._concurrency = concurrency
        self._tick_seconds = tick_seconds

    @property
    def abandoned(self) -> int:
        return self._abandoned

    def start(self, job: Job, done: Done) -> _Body:
        assignment = job.assignment
        key = (assignment.instance_id, assignment.step_name, assignment.attempt)
        process = self._process
        process.effect()
        self._running += 1
        process.world.history.add(
            "start", process.name, key, assignment.payload, self._running, self._concurrency
        )
        body = _Body(self, job, done, key)
        script = self._bodies.script(assignment)
        if self._bodies.kills(assignment):
            body.call = process.loop.call_later(script.seconds / 2, self._kill, body)
        else:
            body.call = process.world.at(self._end_of(script.seconds), self._end, body, process=process)
        return body

    def _end_of(self, seconds: float) -> float:
        end, tick = self._process.world.now + seconds, self._tick_seconds
        return math.ceil(end / tick) * tick if tick else end

    def _kill(self, body: _Body) -> None:
        self._process.world.history.fault(
            "step kills its worker", self._process.name, "/".join(map(str, body.key))
        )
        raise Killed(self._process)

    def _end(self, body: _Body) -> None:
        if body.is_stopped:
            self._abandoned -= 1
            self._running -= 1
            if self.on_freed is not None:
                self.on_freed()
            return
        self._process.effect()
        assert body.job.sync is not None
        sealed = body.job.sync()
        body.is_over = True
        self._running -= 1
        self._process.world.history.add(
            "end", self._process.name, body.key, sealed.report.state, sealed.report.decision is not None
        )
        body.done(sealed)

    def stopped(self, body: _Body) -> None:
        """It is abandoned, and runs on."""
        self._abandoned += 1
        self._process.world.history.add("stopped", self._process.name, body.key)

    def close(self) -> None:
        """Nothing to free."""

"""What may be asked of a coordinator, by name. Each takes arguments by name and returns JSON; errors go to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuseline.clock import Clock
from fuseline.engine.effects import Verdict
from fuseline.engine.events import CancelRequested
from fuseline.errors import (
    CallerError,
    InvalidMessageError,
    StaleReportError,
    UnknownRunError,
    UnknownWorkflowError,
)
from fuseline.ledger import DeadLetters, Dispatch, Ledger, Occurrence, Outcome
from fuseline.model.inputs import validate_inputs
from fuseline.model.recognised import Definition
from fuseline.model.schema import WorkflowSchema, check_id
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus, Status
from fuseline.model.views import WorkerView
from fuseline.storage.base import LetterQuery, RuntimeStorage, Wanted
from fuseline.storage.views import run_summary, run_view, workflow_view

WORKER_COMMANDS = frozenset({"register", "check"})
"""What may be asked through the workers' exchange."""

MAX_RUNS = 1000
"""Runs that one command dispatches at most: they share a transaction."""

Args = TypeVar("Args", bound=BaseModel)
InstanceId = Annotated[str, Field(min_length=1, max_length=200)]


class _Args(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegisterArgs(_Args):
    """`worker_id` is made by the caller, so that a repeated call registers one worker."""

    workflows: list[Definition]
    worker_id: str | None = Field(default=None, min_length=1, max_length=200)
    host: str | None = None
    pid: int | None = None


class DispatchArgs(_Args):
    """`definition` registers the version if need be; without it, it must be registered already.

    With a `digest` it must be registered as the definition with this digest.
    """

    workflow_id: str
    version: str
    instance_id: InstanceId
    inputs: dict[str, Any] = Field(default_factory=dict)
    definition: Definition | None = None
    digest: str | None = None


class DispatchManyArgs(_Args):
    """The same for several runs of one version: each an instance id with its inputs."""

    workflow_id: str
    version: str
    runs: list[tuple[InstanceId, dict[str, Any]]] = Field(min_length=1, max_length=MAX_RUNS)
    definition: Definition | None = None
    digest: str | None = None


class RunArgs(_Args):
    """Which run."""

    instance_id: str


class CheckArgs(_Args):
    """An assignment that was delivered again: is its attempt still to be executed?"""

    instance_id: str
    step_name: str
    attempt: int = 1
    worker_id: str | None = None


class ListRunsArgs(_Args):
    """Which runs, newest first."""

    workflow_id: str | None = None
    state: RunStatus | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    before: str | None = None


class LetterArgs(_Args):
    """Which dead letter."""

    letter_id: str


class ListLettersArgs(_Args):
    """Which dead letters, the latest first."""

    workflow_id: str | None = None
    instance_id: str | None = None
    reason: DeadLetterReason | None = None
    state: DeadLetterState | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    before: str | None = None


class WorkflowArgs(_Args):
    """Which workflow; without a version the one registered last."""

    workflow_id: str
    version: str | None = None


class NoArgs(_Args):
    """No arguments."""


def parse(model: type[Args], args: dict[str, Any]) -> Args:
    """Arguments as their model. Raises `InvalidMessageError` naming the first wrong one."""
    try:
        return model(**args)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise InvalidMessageError(f"{place}: {first['msg']}") from error


class Commands:
    """Everything but `register` and `dispatch`, which also touch RabbitMQ: see `Answering`."""

    def __init__(self, ledger: Ledger, storage: RuntimeStorage, clock: Clock) -> None:
        self._ledger = ledger
        self._storage = storage
        self._clock = clock
        self._letters = DeadLetters(ledger)
        self._reads: dict[str, Callable[[dict[str, Any]], Any]] = {
            "get_run": self._get_run,
            "get_run_state": self._get_run_state,
            "list_runs": self._list_runs,
            "list_dead_letters": self._list_dead_letters,
            "get_dead_letter": self._get_dead_letter,
            "list_workers": self._list_workers,
            "list_workflows": self._list_workflows,
            "get_workflow": self._get_workflow,
            "status": self._status,
            "check": self._check,
        }

    @property
    def names(self) -> frozenset[str]:
        """The commands that `read` answers."""
        return frozenset(self._reads)

    def read(self, name: str, args: dict[str, Any]) -> Any:
        """Answer a command that changes nothing. Raises what the caller is to be told."""
        return self._reads[name](args)

    def register(self, args: dict[str, Any]) -> tuple[str, list[WorkflowSchema]]:
        """Make a worker and its workflow versions known; returns its id and them."""
        wanted = parse(RegisterArgs, args)
        now = self._clock.now()
        worker_id = wanted.worker_id or self._clock.new_id()
        worker = WorkerView(
            worker_id=worker_id,
            workflows=[schema.key for schema in wanted.workflows],
            registered_at=now,
            last_seen_at=now,
            host=wanted.host,
            pid=wanted.pid,
        )
        self._ledger.register(wanted.workflows, worker)
        return worker_id, wanted.workflows

    def dispatch(
        self, args: dict[str, Any], *, redelivered: bool = False
    ) -> tuple[list[Dispatch], WorkflowSchema]:
        """A checked dispatch, not applied yet. Registers the definition that came with it.

        `redelivered`: it may have been applied already. Then what it began is to go out, whatever is right by now (P1).
        """
        wanted = parse(DispatchArgs, args)
        check_id("instance_id", wanted.instance_id)
        dispatches, schema, _ = self._checked(wanted, [(wanted.instance_id, wanted.inputs)], redelivered)
        return dispatches, schema

    def dispatch_many(
        self, args: dict[str, Any], *, redelivered: bool = False
    ) -> tuple[list[Dispatch], WorkflowSchema, CallerError | None]:
        """Several checked dispatches of one version, none applied yet; none at all when one of them is wrong.

        `redelivered`: as in `dispatch`. With an error they are those that have begun, and the others must not.
        """
        wanted = parse(DispatchManyArgs, args)
        for place, (instance_id, _) in enumerate(wanted.runs):
            check_id(f"runs[{place}]: instance_id", instance_id)
        return self._checked(wanted, wanted.runs, redelivered)

    def _checked(
        self,
        wanted: DispatchArgs | DispatchManyArgs,
        runs: Sequence[tuple[str, dict[str, Any]]],
        redelivered: bool,
    ) -> tuple[list[Dispatch], WorkflowSchema, CallerError | None]:
        workflow_id, version = wanted.workflow_id, wanted.version
        refused: CallerError | None = None
        try:
            schema = self._schema(wanted)
            checked = [(i, validate_inputs(schema, inputs)) for i, inputs in runs]
        except CallerError as error:
            checked = self._begun(wanted, runs) if redelivered else []
            if not checked:
                raise
            refused = error if len(checked) < len(runs) else None
            schema = self._ledger.schema(workflow_id, version)
        return [Dispatch(workflow_id, version, i, inputs) for i, inputs in checked], schema, refused

    def _begun(
        self, wanted: DispatchArgs | DispatchManyArgs, runs: Sequence[tuple[str, dict[str, Any]]]
    ) -> list[tuple[str, dict[str, Any]]]:
        known = self._storage.read_rows(Wanted(runs={i for i, _ in runs})).runs
        mine = {
            i
            for i, run in known.items()
            if (run.workflow_id, run.version) == (wanted.workflow_id, wanted.version)
        }
        return [(i, inputs) for i, inputs in runs if i in mine]

    def _schema(self, wanted: DispatchArgs | DispatchManyArgs) -> WorkflowSchema:
        """The definition that is meant, which is registered if it came along."""
        schema = wanted.definition
        if schema is None and wanted.digest is not None:
            return self._ledger.schema_with_digest((wanted.workflow_id, wanted.version), wanted.digest)
        if schema is None:
            return self._ledger.schema(wanted.workflow_id, wanted.version)
        if schema.key != (wanted.workflow_id, wanted.version):
            raise CallerError(
                f"definition: it is of workflow {schema.workflow_id!r} version {schema.version!r}"
            )
        self._ledger.register([schema])
        return schema

    def cancel(self, args: dict[str, Any]) -> Occurrence:
        """A cancellation, not applied yet."""
        return Occurrence(parse(RunArgs, args).instance_id, CancelRequested())

    @staticmethod
    def cancelled(outcome: Outcome) -> dict[str, Any]:
        """The answer to a cancellation. Raises `UnknownRunError`, `StaleReportError`."""
        if outcome.error is not None:
            raise outcome.error
        if outcome.verdict is Verdict.STALE:
            raise StaleReportError(outcome.reason)
        return {
            "instance_id": outcome.instance_id,
            "replays": 0 if outcome.stop is None else outcome.stop.replays,
        }

    def replay(self, args: dict[str, Any], *, redelivered: bool) -> tuple[str, Occurrence]:
        """A dead letter's id, and its replay, not applied yet. Raises `UnknownDeadLetterError`."""
        letter_id = parse(LetterArgs, args).letter_id
        return letter_id, self._letters.replay(letter_id, redelivered=redelivered)

    def replayed(self, letter_id: str, outcome: Outcome) -> dict[str, Any]:
        """The answer to a replay. Raises `NotReplayableError`, `UnknownDeadLetterError`."""
        return self._letters.replayed(letter_id, outcome).model_dump(mode="json")

    def discard(self, args: dict[str, Any]) -> tuple[str, Occurrence]:
        """A dead letter's id, and that it is discarded, not applied yet. Raises `UnknownDeadLetterError`."""
        letter_id = parse(LetterArgs, args).letter_id
        return letter_id, self._letters.discard(letter_id)

    def discarded(self, letter_id: str, outcome: Outcome) -> dict[str, Any]:
        """The answer to that. Raises as `replayed` does."""
        return self._letters.settled(letter_id, outcome).model_dump(mode="json")

    # ---- reads

    def _list_dead_letters(self, args: dict[str, Any]) -> Any:
        wanted = parse(ListLettersArgs, args)
        query = LetterQuery(**wanted.model_dump())
        return [letter.model_dump(mode="json") for letter in self._letters.list(query)]

    def _get_dead_letter(self, args: dict[str, Any]) -> Any:
        return self._letters.get(parse(LetterArgs, args).letter_id).model_dump(mode="json")

    def _get_run(self, args: dict[str, Any]) -> Any:
        instance_id = parse(RunArgs, args).instance_id
        stored = self._storage.read_run(instance_id)
        if stored is None:
            raise UnknownRunError(f"no run {instance_id!r} is known")
        plan = self._ledger.plan(stored.run.workflow_id, stored.run.version)
        return run_view(stored, plan).model_dump(mode="json")

    def _get_run_state(self, args: dict[str, Any]) -> Any:
        instance_id = parse(RunArgs, args).instance_id
        run = self._storage.read_run_row(instance_id)
        if run is None:
            raise UnknownRunError(f"no run {instance_id!r} is known")
        return {"state": run.status.value}

    def _list_runs(self, args: dict[str, Any]) -> Any:
        wanted = parse(ListRunsArgs, args)
        rows = self._storage.list_runs(
            workflow_id=wanted.workflow_id, state=wanted.state, limit=wanted.limit, before=wanted.before
        )
        return [run_summary(row).model_dump(mode="json") for row in rows]

    def _list_workers(self, args: dict[str, Any]) -> Any:
        parse(NoArgs, args)
        now = self._clock.now()
        alive_after = now - self._ledger.rules.lease_seconds
        return [
            worker.model_copy(update={"alive": worker.last_seen_at >= alive_after}).model_dump(mode="json")
            for worker in self._storage.list_workers()
        ]

    def _list_workflows(self, args: dict[str, Any]) -> Any:
        parse(NoArgs, args)
        return [workflow_view(stored).model_dump(mode="json") for stored in self._storage.list_schemas()]

    def _get_workflow(self, args: dict[str, Any]) -> Any:
        wanted = parse(WorkflowArgs, args)
        if wanted.version is not None:
            return self._ledger.schema(wanted.workflow_id, wanted.version).model_dump(mode="json")
        found = [s for s in self._storage.list_schemas() if s.schema.workflow_id == wanted.workflow_id]
        if not found:
            raise UnknownWorkflowError(f"workflow {wanted.workflow_id!r} is not registered")
        return max(found, key=lambda stored: stored.registered_at).schema.model_dump(mode="json")

    def _status(self, args: dict[str, Any]) -> Any:
        parse(NoArgs, args)
        counts = self._storage.count_runs()
        workers = self._list_workers({})
        return {
            "broker": "amqp",
            "runs": {state.value: counts.get(state, 0) for state in RunStatus},
            "workers": sum(worker["alive"] for worker in workers),
            "workflows": len(self._storage.list_schemas()),
            "events": {verdict.value: count for verdict, count in self._ledger.counts.items()},
            "now": self._clock.now(),
        }

    def _check(self, args: dict[str, Any]) -> Any:
        wanted = parse(CheckArgs, args)
        key = (wanted.instance_id, wanted.step_name)
        with self._storage.transaction() as tx:
            row = tx.load(Wanted(steps={key})).steps.get(key)
        known = row is not None or self._storage.read_run_row(wanted.instance_id) is not None
        current = row is not None and row.attempt == wanted.attempt and not row.status.is_terminal
        if current and row is not None and row.status is Status.RUNNING:
            current = wanted.worker_id is not None and row.holder == wanted.worker_id
        return {"current": current, "known": known}

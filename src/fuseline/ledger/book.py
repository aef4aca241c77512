"""The ledger itself: each call is one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Final

from fuseline.clock import Clock
from fuseline.engine import Plan, Rules
from fuseline.engine.effects import Verdict
from fuseline.engine.events import RunDuePassed, StepDuePassed
from fuseline.errors import CallerError, StorageUnavailableError
from fuseline.ledger.batch import Batch
from fuseline.ledger.definitions import Definitions
from fuseline.ledger.items import Dispatch, Occurrence, Outcome, Then
from fuseline.model.messages import StepAssignment
from fuseline.model.schema import WorkflowSchema
from fuseline.model.views import WorkerView
from fuseline.storage.base import Due, NotRemembered, RuntimeStorage, Transaction

MAX_RECALLED: Final = 20
"""Events of one run that are tried on what storage remembers, and steps that one begins with: more are of a wide run, of
which it remembers little, and which it writes in several statements."""

Renewals = Callable[[Due], float | None]
"""Until when heartbeats have carried a lease; None: nobody has heard of its holder."""


def _no_renewals(_due: Due) -> float | None:
    return None


class Begun:
    """Items that are decided on. Their commit may be under way: until `finish`, nothing is decided about their runs."""

    __slots__ = ("_finish", "_outcomes")

    def __init__(
        self, outcomes: list[Outcome], finish: Callable[[Callable[[], bool] | None], None] | None = None
    ) -> None:
        self._outcomes = outcomes
        self._finish = finish

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to wait for."""
        return self._finish is not None

    def finish(self, meanwhile: Callable[[], bool] | None = None) -> list[Outcome]:
        """Wait for the commit, once; an outcome an item, in order. `meanwhile`: see `Transaction`.

        Raises what a commit may raise. But for a `CallerError` nobody knows then whether it was made.
        """
        if self._finish is not None:
            self._finish(meanwhile)
        return self._outcomes


class Ledger:
    """Applies events to a storage. One instance is used by one thread at a time.

    `counts` holds how many events met each verdict: duplicates and stale reports are counted, not hidden.
    `earliest_due` is the earliest deadline that was saved since somebody set it to None: when to look again.
    `doubts`: how many commits were begun, since somebody set it to 0, of which nobody knows whether they were made.
    """

    def __init__(self, storage: RuntimeStorage, clock: Clock, rules: Rules | None = None) -> None:
        self.storage = storage
        self.clock = clock
        self.rules = rules or Rules()
        self.counts: Counter[Verdict] = Counter()
        self.earliest_due: float | None = None
        self.doubts = 0
        self._definitions = Definitions(storage, clock, self.rules)

    def register(self, schemas: Iterable[WorkflowSchema], worker: WorkerView | None = None) -> None:
        """Make workflow versions known, and the worker that executes them, all or nothing.

        Raises `SchemaConflictError` when a version is known with another graph, or given twice and not alike, and
        `InvalidSchemaError` when a policy is misconfigured or `inputs_schema` is no JSON Schema.
        """
        self._definitions.register(schemas, worker)

    def plan(self, workflow_id: str, version: str) -> Plan:
        """The compiled plan of a registered version. Raises `UnknownWorkflowError`."""
        return self._definitions.plan(workflow_id, version)

    def schema(self, workflow_id: str, version: str) -> WorkflowSchema:
        """A registered version, as it was registered last. Raises `UnknownWorkflowError`."""
        return self._definitions.schema(workflow_id, version)

    def schema_with_digest(self, key: tuple[str, str], digest: str) -> WorkflowSchema:
        """A registered version that is the definition with this digest, now. Raises `DefinitionNeededError`."""
        return self._definitions.with_digest(key, digest)

    def apply(
        self,
        items: Sequence[Dispatch | Occurrence],
        then: Then | None = None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> list[Outcome]:
        """Decide on each item in order and commit all of it at once; an outcome an item, in order.

        `then` is called before the commit, once, with the outcomes so far; what it answers is decided on as well, in the
        same transaction, and its outcomes follow. An item that is wrong (unknown run, unknown workflow) gets an outcome
        with its `error` and harms no other. `meanwhile`: see `Transaction`.
        """
        doubts = self.doubts
        try:
            outcomes = self._apply_recalled(items) if then is None else None
            if outcomes is None:
                self.doubts = doubts
                with self.storage.transaction() as tx:
                    outcomes = self._batch(tx).run(items, then)
                    tx.meanwhile = meanwhile
                    self.doubts += 1
        except CallerError:  # it is rolled back
            self.doubts = doubts
            raise
        self.doubts = doubts
        self._count(outcomes)
        return outcomes

    def begin(self, items: Sequence[Dispatch | Occurrence]) -> Begun:
        """As `apply`, but that where storage can be left to commit by itself, that is not waited for.

        Until it is finished the commit counts among the `doubts`. Dispatches alone may be presumed to be new. Where one is
        not, a `StorageUnavailableError` that `is_conflict` says so, here or in `finish`: apply them, then.
        """
        doubts = self.doubts
        try:
            with ExitStack() as leaving:
                tx = leaving.enter_context(self.storage.transaction())
                are_new = tx.tells_conflicts and all(type(item) is Dispatch for item in items)
                outcomes = self._batch(tx).run(items, presume_new=are_new)
                self.doubts += 1
                ending = leaving.pop_all() if tx.begin_commit() else None
        except CallerError:  # it is rolled back
            self.doubts = doubts
            raise
        except StorageUnavailableError as error:
            if error.is_conflict:
                self.doubts = doubts
            raise
        if ending is None:
            self.doubts = doubts
            self._count(outcomes)
            return Begun(outcomes)

        def finish(meanwhile: Callable[[], bool] | None) -> None:
            try:
                with ending:
                    tx.meanwhile = meanwhile
            except CallerError:
                self.doubts -= 1
                raise
            except StorageUnavailableError as error:
                self.doubts -= error.is_conflict
                raise
            self.doubts -= 1
            self._count(outcomes)

        return Begun(outcomes, finish)

    def _apply_recalled(self, items: Sequence[Dispatch | Occurrence]) -> list[Outcome] | None:
        """What happened to one run, decided on what storage remembers of it; or its beginning. None: nothing is done."""
        i = items[0].instance_id if items else None
        if len(items) == 1 and isinstance(items[0], Dispatch):
            return self._begin_alone(items[0])
        if len(items) > MAX_RECALLED or any(
            type(item) is Dispatch or item.instance_id != i for item in items
        ):
            return None
        try:
            with self.storage.recalled() as tx:
                outcomes = self._batch(tx).run(items)
                self.doubts += 1
        except NotRemembered:
            return None
        return outcomes

    def _begin_alone(self, one: Dispatch) -> list[Outcome] | None:
        plan = self._definitions.guess(one.workflow_id)
        if plan is None or len(plan.starts) > MAX_RECALLED:
            return None
        try:
            with self.storage.beginning() as tx:
                outcomes = self._batch(tx).run([one], presume_new=True)
                self.doubts += 1
        except (
            NotRemembered,
            CallerError,
        ):  # where the run is there, what is said of it now is not even looked at
            return None
        return outcomes

    def apply_due(self, limit: int = 500, renewals: Renewals = _no_renewals) -> list[Outcome]:
        """Take up to `limit` timers that have run out and decide on them. An empty list: nothing was due."""
        doubts = self.doubts
        try:
            with self.storage.transaction() as tx:
                items = [
                    Occurrence(
                        due.instance_id,
                        RunDuePassed() if due.step is None else StepDuePassed(due.step, renewals(due)),
                    )
                    for due in tx.take_due(self.clock.now(), limit)
                ]
                outcomes = self._batch(tx).run(items) if items else []
                self.doubts += bool(items)
        except CallerError:  # it is rolled back
            self.doubts = doubts
            raise
        self.doubts = doubts
        self._count(outcomes)
        return outcomes

    def offer_again(self, attempts: Iterable[tuple[str, str, int]]) -> list[Outcome]:
        """The assignments of these (instance_id, step, attempt) that are still QUEUED; no row changes.

        For a broker that kept them in memory and starts anew.
        """
        with self.storage.transaction() as tx:
            return self._batch(tx).offer(attempts)

    def rebuild(self, instance_id: str, step: str, attempt: int) -> StepAssignment | None:
        """The assignment of an attempt, with what its step requires as it is recorded now; None when it is gone.

        Raises `UnknownWorkflowError`.
        """
        with self.storage.transaction() as tx:
            return self._batch(tx).rebuild(instance_id, step, attempt)

    def _batch(self, tx: Transaction) -> Batch:
        return Batch(self._definitions, tx, self.clock.now(), self._note_due)

    def _count(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self.counts[outcome.verdict] += 1

    def _note_due(self, due_at: float) -> None:
        self.earliest_due = due_at if self.earliest_due is None else min(self.earliest_due, due_at)

"""The broker without a server: everything in this process, over any storage.

It goes through the same `Ledger` as the coordinator does. What a database keeps survives the process: the next broker
over it takes the open runs up again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fuseline.broker.base import Broker
from fuseline.broker.endings import Ending, Endings
from fuseline.broker.grouping import Call, Group
from fuseline.broker.lane import Exchanged, Lane, Told
from fuseline.broker.plain import all_checked_inputs, as_json, check_definition, checked_inputs
from fuseline.broker.ready import Fence, ReadyQueue
from fuseline.broker.reported import as_event
from fuseline.broker.roster import Roster
from fuseline.broker.serving import RUNS_AT_ONCE, Begin, Exchange, Serving, all_told
from fuseline.broker.stored_views import StoredViews
from fuseline.broker.timers import BATCH, Timers
from fuseline.clock import Clock, SteadyClock
from fuseline.engine import Rules
from fuseline.engine.effects import Verdict
from fuseline.engine.events import CancelRequested
from fuseline.errors import (
    BrokerUnavailableError,
    CallerError,
    DeadlineExceededError,
    StaleReportError,
    UnknownRunError,
    UnknownWorkerError,
    UnknownWorkflowError,
)
from fuseline.ledger import DeadLetters, Dispatch, Ledger, Occurrence, Outcome
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema, check_id
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
from fuseline.storage.base import Key, LetterQuery, RuntimeStorage
from fuseline.storage.memory import MemoryRuntimeStorage

log = logging.getLogger(__name__)


class MemoryBroker(Broker, Lane):
    """Runs live in `storage` (this process's memory by default); what is ready waits in this process's memory.

    At most one `MemoryBroker` or coordinator works on a storage at a time; SQLite enforces it from the first call that
    may change something. Reads work besides. A storage that was handed in is closed by whoever made it, unless
    `close_storage` says otherwise. Timers (leases, retries, deadlines) run at the start of every call, and on a thread
    of their own where the clock is the system's; with a `ManualClock`, call `tick`.

    A worker holds a step for the step's timeout, else for `rules.lease_seconds`; `keep_alive` carries that on, and of a
    worker that sends keep-alives it is lost one lease time after the last. Thread-safe.
    """

    def __init__(
        self,
        storage: RuntimeStorage | None = None,
        *,
        clock: Clock | None = None,
        rules: Rules | None = None,
        max_message_bytes: int = 8 * 1024 * 1024,
        close_storage: bool = False,
    ) -> None:
        self.storage = MemoryRuntimeStorage() if storage is None else storage
        self._closes_storage = close_storage or storage is None
        self._clock = clock or SteadyClock()
        self._ledger = Ledger(self.storage, self._clock, rules)
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self._ready = ReadyQueue()
        self._roster = Roster(self._clock, self._ledger.rules.lease_seconds)
        self._serving = Serving(self._ledger, self._clock, self._ready, self._roster, self._carry_out)
        self._group = Group(self._lock, self._serve)
        self._wakes: dict[str, Callable[[], None]] = {}
        self._endings = Endings()
        self._letters = DeadLetters(self._ledger)
        self._views = StoredViews(self._ledger, self._clock)
        self._timers = Timers(self._ledger, self._clock, self._roster, self.tick)
        self._started = False
        self._closed = False

    # ---- its life

    def start(self) -> None:
        """Take up what the storage holds open. The first call that may change something does so too.

        Raises `SecondCoordinatorError` when something else works on this SQLite database.
        """
        with self._turn():
            pass

    def tick(self) -> None:
        """Apply the timers that have run out."""
        with self._lock:
            if self._closed:
                return
        self.start()

    def close(self) -> None:
        """End the timers' thread; those who wait for a run get a `BrokerUnavailableError`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._endings.close()
        self._timers.close()
        try:
            if self._started and (seen := self._roster.last_seen()):
                with self.storage.transaction() as tx:
                    tx.touch_workers(seen)
        finally:
            if self._closes_storage:
                self.storage.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call, alone."""
        with self._lock, self._prepared():
            yield

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """Within the lock: over a broker that has started, with no timer outstanding."""
        self._check_open()
        try:
            if not self._started or self._ledger.doubts:
                self._take_up()
            self._timers.apply(self._carry_out)
            self._timers.housekeep()
            yield
        finally:
            self._timers.set_alarm()

    def _serve(self, calls: Sequence[Call]) -> None:
        """Calls that share a commit."""
        try:
            with self._prepared():
                self._serving.serve(calls)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            # Those that are answered already keep their answer: only the next alarm could not be set.
            for call in calls:
                if not call.is_done:
                    call.fail(error)

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailableError("the broker is closed")

    def _take_up(self) -> None:
        if not self._started:
            self.storage.claim_coordinator(f"embedded-{self._clock.new_id()}")
            self._roster.add(self.storage.list_workers())
        after: Key | None = None
        while rows := self.storage.list_queued(after=after, limit=BATCH):
            self._carry_out(self._ledger.offer_again((i, row.name, row.attempt) for i, row in rows))
            after = rows[-1][0], rows[-1][1].name
        self._timers.take_up()
        self._endings.look(self.storage.read_run_row)
        self._ledger.doubts, self._started = 0, True

    def _carry_out(self, outcomes: Iterable[Outcome]) -> None:
        is_offered = False  # also what waits already: who was to take it may have failed to
        for outcome in outcomes:
            for assignment in outcome.assignments:
                self._ready.put(assignment)
                is_offered = True
            if outcome.finished is not None:
                self._endings.ended(outcome.instance_id)
        if is_offered:
            for wake in self._wakes.values():
                wake()

    def _apply(self, item: Dispatch | Occurrence) -> Outcome:
        """Decide on one item. Raises its error."""
        outcome = self._ledger.apply([item])[0]
        self._carry_out([outcome])
        if outcome.error is not None:
            raise outcome.error
        return outcome

    # ---- workers

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        """See `Broker`."""
        schemas = list(workflows)
        for schema in schemas:
            check_definition(schema)
        with self._turn():
            now = self._clock.now()
            worker = WorkerView(
                worker_id=self._clock.new_id(),
                workflows=sorted({schema.key for schema in schemas}),
                registered_at=now,
                last_seen_at=now,
            )
            self._ledger.register(schemas, worker)
            self._roster.add([worker])
        return worker.worker_id

    def get_step(self, worker_id: str) -> StepAssignment | None:
        """See `Broker`."""
        while True:
            call = Exchange(self._serving, worker_id, (), 1)
            self._group.do(call)
            if call.handed:
                return call.handed[0]
            if not call.taken:
                return None

    def report_step(self, worker_id: str, report: StepReport) -> None:
        """See `Broker`. Raises `MessageTooLargeError`, `InvalidMessageError` for a result that is not JSON."""
        result = as_json(report.result, f"the result of step {report.step_name!r}", self._max_message_bytes)
        # The rest of it as well: views of the run, and of all runs, hold its error.
        said = report.model_copy(update={"result": None})
        as_json(said, f"the report of step {report.step_name!r}", self._max_message_bytes)
        item = Occurrence(report.instance_id, as_event(worker_id, report, result), report.workflow_id)
        call = Exchange(self._serving, worker_id, [(report, item)], 0)
        self._group.do(call)
        if (refusal := call.refusals[0]) is not None:
            raise refusal

    def exchange(self, worker_id: str, reports: Sequence[Told], wanted: int) -> Exchanged:
        """See `Lane`."""
        items, refused = all_told(worker_id, reports, self._max_message_bytes)
        call = Exchange(self._serving, worker_id, items, wanted, is_detached=False)
        try:
            self._group.do(call)
        except CallerError as error:
            if isinstance(error, UnknownWorkerError) or not items:
                raise
            if len(items) == 1 and not wanted:
                call.refusals = [error]
            else:  # one of them asks for what cannot be stored
                each = [self.exchange(worker_id, [one], 0) for one in reports]
                more = self.exchange(worker_id, (), wanted)
                return Exchanged([refusal for one in each for refusal in one.refusals], more.assignments)
        found = iter(call.refusals)
        refusals = [refused[number] if number in refused else next(found) for number in range(len(reports))]
        return Exchanged(refusals, call.handed)

    @property
    def is_whole(self) -> bool:
        """See `Lane`."""
        kind = type(self)
        return kind.get_step is MemoryBroker.get_step and kind.report_step is MemoryBroker.report_step

    def on_ready(self, worker_id: str, wake: Callable[[], None] | None) -> None:
        """See `Lane`."""
        with self._lock:
            self._wakes.pop(worker_id, None)
            if wake is not None:
                self._wakes[worker_id] = wake

    def keep_alive(self, worker_id: str, *, holds: Iterable[Fence] | None = None) -> None:
        """See `Broker`. `holds`: carry on only these (instance_id, step, attempt), for a worker that is far away.

        What was handed out and got lost on its way to it would be carried on for ever otherwise (P1).
        """
        with self._turn():
            self._roster.beat(worker_id, holds)

    # ---- runs

    def dispatch_workflow(
        self,
        workflow: WorkflowSchema,
        inputs: dict[str, Any] | None = None,
        *,
        instance_id: str | None = None,
    ) -> str:
        """See `Broker`. With `instance_id` the call can be repeated: twice the same id is one run."""
        ids = None if instance_id is None else [instance_id]
        checked = checked_inputs(workflow, inputs, self._max_message_bytes)
        return self._dispatch(workflow, [checked], ids)[0]

    def dispatch_many(
        self,
        workflow: WorkflowSchema,
        inputs: Sequence[dict[str, Any] | None],
        *,
        instance_ids: Sequence[str] | None = None,
    ) -> list[str]:
        """See `Broker`. All inputs are checked before the first run is dispatched; `RUNS_AT_ONCE` share a commit.

        With `instance_ids`, one for each, the call can be repeated: twice the same id is one run.
        """
        if instance_ids is not None and len(inputs) != len(instance_ids):
            raise CallerError(
                f"{len(inputs)} inputs and {len(instance_ids)} instance ids: a run has one of both"
            )
        checked = all_checked_inputs(workflow, inputs, self._max_message_bytes)
        return self._dispatch(workflow, checked, instance_ids)

    def _dispatch(
        self, workflow: WorkflowSchema, inputs: Sequence[dict[str, Any]], instance_ids: Sequence[str] | None
    ) -> list[str]:
        for one in instance_ids or ():
            check_id("instance_id", one)
        ids = [self._clock.new_id() for _ in inputs] if instance_ids is None else list(instance_ids)
        register = partial(self._register_if_changed, workflow)
        items = [Dispatch(*workflow.key, i, mine) for i, mine in zip(ids, inputs, strict=True)]
        for first in range(0, len(items), RUNS_AT_ONCE):
            self._group.do(Begin(items[first : first + RUNS_AT_ONCE], register))
        return ids

    def _register_if_changed(self, workflow: WorkflowSchema) -> None:
        try:
            known = self._ledger.schema(*workflow.key)
        except UnknownWorkflowError:
            known = None
        if known is not workflow and known != workflow:
            check_definition(workflow)
            self._ledger.register([workflow])

    def cancel_run(self, instance_id: str) -> None:
        """See `Broker`."""
        with self._turn():
            outcome = self._apply(Occurrence(instance_id, CancelRequested()))
            if outcome.verdict is Verdict.STALE:
                raise StaleReportError(outcome.reason)

    def replay_dead_letter(self, letter_id: str) -> ReplayView:
        """See `Broker`."""
        with self._turn():
            return self._letters.replayed(letter_id, self._apply(self._letters.replay(letter_id)))

    def discard_dead_letter(self, letter_id: str) -> DeadLetterView:
        """See `Broker`."""
        with self._turn():
            return self._letters.settled(letter_id, self._apply(self._letters.discard(letter_id)))

    def wait(self, instance_id: str, timeout: float | None = None) -> RunView:
        """See `Broker`."""
        with self._turn():
            ending = self._ending_of(instance_id)
        if ending is not None and not self._await(instance_id, ending, timeout):
            raise DeadlineExceededError(f"run {instance_id} did not end within {timeout:g} s; it goes on")
        return self.get_run(instance_id)

    def _ending_of(self, instance_id: str) -> Ending | None:
        """What is set when the run ends; None when it has. Raises `UnknownRunError`."""
        run = self.storage.read_run_row(instance_id)
        if run is None:
            raise UnknownRunError(f"no run {instance_id!r} is known")
        if run.status.is_terminal:
            return None
        return self._endings.enter(instance_id)

    def _await(self, instance_id: str, ending: Ending, timeout: float | None) -> bool:
        try:
            return ending.wait(timeout)
        finally:
            with self._lock:
                self._endings.leave(instance_id, ending)

    # ---- reads

    @contextmanager
    def _reading(self) -> Iterator[StoredViews]:
        """A read: of what the timers have brought about where this broker works, else of what is stored."""
        if self._started:
            with self._turn():
                yield self._views
        else:
            with self._lock:
                self._check_open()
                yield self._views

    def get_run(self, instance_id: str) -> RunView:
        """See `Broker`."""
        with self._reading() as views:
            return views.get_run(instance_id)

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunSummary]:
        """See `Broker`."""
        with self._reading() as views:
            return views.list_runs(workflow_id=workflow_id, state=state, limit=limit, before=before)

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
        """See `Broker`."""
        with self._reading():
            return self._letters.list(LetterQuery(workflow_id, instance_id, reason, state, limit, before))

    def get_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """See `Broker`."""
        with self._reading():
            return self._letters.get(letter_id).model_copy(deep=True)

    def list_workers(self) -> list[WorkerView]:
        """See `Broker`."""
        with self._reading() as views:
            return self._roster.views() if self._started else views.list_workers()

    def list_workflows(self) -> list[WorkflowView]:
        """See `Broker`."""
        with self._reading() as views:
            return views.list_workflows()

    def get_workflow(self, workflow_id: str, version: str | None = None) -> WorkflowSchema:
        """See `Broker`."""
        with self._reading() as views:
            return views.get_workflow(workflow_id, version)

    def status(self) -> Mapping[str, Any]:
        """See `Broker`. `ready`: steps that wait for a worker; `events`: how many met which verdict."""
        with self._reading() as views:
            workers = self._roster.views() if self._started else views.list_workers()
            return {
                "broker": "memory",
                **views.counts(),
                "workers": sum(worker.alive for worker in workers),
                "ready": len(self._ready),
                "events": {verdict.value: count for verdict, count in self._ledger.counts.items()},
                "now": self._clock.now(),
            }

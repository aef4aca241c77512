"""What MemoryBroker promises beyond the contract of every broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fuseline.broker import MemoryBroker
from fuseline.broker.ready import ReadyQueue
from fuseline.clock import ManualClock
from fuseline.engine import Rules
from fuseline.errors import (
    BrokerUnavailableError,
    InvalidMessageError,
    InvalidSchemaError,
    MessageTooLargeError,
    SecondCoordinatorError,
    StaleReportError,
    StorageUnavailableError,
    UnknownRunError,
    UnknownStepError,
    UnknownWorkerError,
)
from fuseline.model.messages import StepAssignment, StepError, StepReport
from fuseline.model.schema import PolicySpec
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import Transaction
from fuseline.storage.memory import MemoryRuntimeStorage
from fuseline.testing.flows import Player, graph, report_on

CHAIN = graph("chain", {"a": ["b"], "b": ["c"]}, outputs=["c"])
SINGLE = graph("single", {"a": []})


class BrittleStorage(MemoryRuntimeStorage):
    """A database that can go away, before a transaction or after its commit."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.lose_answer = False
        self.claims: list[str] = []

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if self.away:
            raise StorageUnavailableError("the database is away")
        with super().transaction() as unit:
            yield unit
        if self.lose_answer:
            self.lose_answer = False
            raise StorageUnavailableError("the connection broke during the commit")

    def claim_coordinator(self, coordinator_id: str) -> None:
        self.claims.append(coordinator_id)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def storage() -> BrittleStorage:
    return BrittleStorage()


@pytest.fixture
def broker(storage: BrittleStorage, clock: ManualClock) -> Iterator[MemoryBroker]:
    with MemoryBroker(storage, clock=clock) as broker:
        yield broker


# ---- a broker that starts over what another one left


def test_open_runs_are_taken_up_again_with_their_results(storage: BrittleStorage, clock: ManualClock) -> None:
    """P1, P4: what was acknowledged goes on in the next process."""
    with MemoryBroker(storage, clock=clock) as before:
        worker = Player(before, before.register_worker([CHAIN]))
        run = before.dispatch_workflow(CHAIN, {"n": 1})
        other = before.dispatch_workflow(CHAIN, {"n": 2})
        worker.do("a", result="from before")
    with MemoryBroker(storage, clock=clock) as after:
        worker = Player(after, after.register_worker([CHAIN]))
        taken = {one.instance_id: one for one in (worker.take(), worker.take())}
        assert worker.has_nothing()
        assert taken[run].step_name == "b"
        assert taken[run].payload == {"workflow_inputs": {"n": 1}, "results": {"a": "from before"}}
        assert (taken[other].step_name, taken[other].payload["workflow_inputs"]) == ("a", {"n": 2})


def test_a_worker_and_what_it_holds_outlive_a_restart(storage: BrittleStorage, clock: ManualClock) -> None:
    """P5: silence during the restart is not held against it."""
    with MemoryBroker(storage, clock=clock) as before:
        worker = Player(before, before.register_worker([SINGLE]))
        run = before.dispatch_workflow(SINGLE)
        assignment = worker.take()
    clock.advance(300)
    with MemoryBroker(storage, clock=clock) as after:
        assert after.get_run(run).steps["a"].state is Status.RUNNING
        after.keep_alive(worker.worker_id)
        after.report_step(worker.worker_id, report_on(assignment))
        assert after.get_run(run).state is RunStatus.SUCCEEDED


def test_a_holder_that_does_not_come_back_after_a_restart_loses_its_step(
    storage: BrittleStorage, clock: ManualClock
) -> None:
    """P1."""
    with MemoryBroker(storage, clock=clock) as before:
        run = before.dispatch_workflow(SINGLE)
        Player(before, before.register_worker([SINGLE])).take()
    clock.advance(300)
    with MemoryBroker(storage, clock=clock) as after:
        after.start()
        clock.advance(61)
        worker = Player(after, after.register_worker([SINGLE]))
        assert worker.do("a").attempt == 2
        assert after.get_run(run).state is RunStatus.SUCCEEDED


def test_many_queued_steps_are_taken_up_by_pages(storage: BrittleStorage, clock: ManualClock) -> None:
    with MemoryBroker(storage, clock=clock) as before:
        runs = {before.dispatch_workflow(SINGLE) for _ in range(1100)}
    with MemoryBroker(storage, clock=clock) as after:
        worker = Player(after, after.register_worker([SINGLE]))
        assert {worker.take().instance_id for _ in range(1100)} == runs
        assert worker.has_nothing()


def test_the_first_change_claims_the_storage_and_a_read_does_not(
    storage: BrittleStorage, broker: MemoryBroker
) -> None:
    """`runs list` on a SQLite file that somebody else works on is fine; a second scheduler is not."""
    assert broker.list_runs() == []
    assert broker.list_workers() == []
    assert broker.list_workflows() == []
    assert broker.status()["ready"] == 0
    assert storage.claims == []
    broker.dispatch_workflow(SINGLE)
    broker.dispatch_workflow(SINGLE)
    assert len(storage.claims) == 1


def test_a_storage_that_somebody_else_works_on_is_refused() -> None:
    class Taken(MemoryRuntimeStorage):
        def claim_coordinator(self, coordinator_id: str) -> None:
            raise SecondCoordinatorError("another coordinator holds this database")

    with MemoryBroker(Taken()) as broker, pytest.raises(SecondCoordinatorError):
        broker.dispatch_workflow(SINGLE)


def test_a_storage_that_was_handed_in_stays_open(storage: BrittleStorage) -> None:
    MemoryBroker(storage).close()
    assert storage.list_schemas() == []
    MemoryBroker(storage, close_storage=True).close()
    with pytest.raises(StorageUnavailableError):
        storage.list_schemas()


# ---- a storage that goes away


def test_a_step_that_could_not_be_handed_out_comes_next(
    storage: BrittleStorage, broker: MemoryBroker
) -> None:
    worker = Player(broker, broker.register_worker([SINGLE]))
    runs = [broker.dispatch_workflow(SINGLE), broker.dispatch_workflow(SINGLE)]
    storage.away = True
    with pytest.raises(StorageUnavailableError):
        worker.has_nothing()
    storage.away = False
    assert [worker.take().instance_id, worker.take().instance_id] == runs
    assert worker.has_nothing()


def test_a_claim_whose_answer_was_lost_is_handed_out_to_the_same_worker(
    storage: BrittleStorage, broker: MemoryBroker
) -> None:
    """The row says RUNNING, held by this worker; nobody told it. Asked again, it gets the step."""
    worker = Player(broker, broker.register_worker([SINGLE]))
    run = broker.dispatch_workflow(SINGLE)
    storage.lose_answer = True
    with pytest.raises(StorageUnavailableError):
        worker.has_nothing()
    worker.do("a")
    assert broker.get_run(run).state is RunStatus.SUCCEEDED


def test_timers_wait_for_a_storage_that_is_away(
    storage: BrittleStorage, broker: MemoryBroker, clock: ManualClock
) -> None:
    worker = Player(broker, broker.register_worker([SINGLE]))
    broker.dispatch_workflow(SINGLE)
    worker.take()
    clock.advance(61)
    storage.away = True
    with pytest.raises(StorageUnavailableError):
        broker.tick()
    storage.away = False
    assert worker.take().attempt == 2


# ---- what is handed out belongs to whoever gets it


def test_what_a_worker_gets_and_gives_is_its_own(broker: MemoryBroker) -> None:
    """A step that changes its inputs, or its result afterwards, changes nothing that is recorded."""
    worker = Player(broker, broker.register_worker([CHAIN]))
    inputs: dict[str, Any] = {"list": [1]}
    run = broker.dispatch_workflow(CHAIN, inputs)
    inputs["list"].append(2)
    result = {"rows": [1]}
    first = worker.take()
    first.payload["workflow_inputs"]["list"].append(3)
    worker.report(first, result=result)
    result["rows"].append(2)
    second = worker.take()
    assert second.payload == {"workflow_inputs": {"list": [1]}, "results": {"a": {"rows": [1]}}}
    second.payload["results"]["a"]["rows"].clear()
    view = broker.get_run(run)
    assert (view.inputs, view.steps["a"].result) == ({"list": [1]}, {"rows": [1]})
    view.steps["a"].result["rows"].clear()
    assert broker.get_run(run).steps["a"].result == {"rows": [1]}


def test_a_result_comes_out_as_json_has_it(broker: MemoryBroker) -> None:
    """As it would from RabbitMQ or a database: a program does not work here and fail there."""
    worker = Player(broker, broker.register_worker([CHAIN]))
    broker.dispatch_workflow(CHAIN)
    worker.do("a", result=(1, {2: "two"}))
    assert worker.take().payload["results"] == {"a": [1, {"2": "two"}]}


def test_a_result_that_is_not_json_is_refused_and_the_step_still_held(broker: MemoryBroker) -> None:
    """P7."""
    worker = Player(broker, broker.register_worker([SINGLE]))
    run = broker.dispatch_workflow(SINGLE)
    assignment = worker.take()
    with pytest.raises(InvalidMessageError, match=r"result of step 'a': .*rows\[1\]"):
        worker.report(assignment, result={"rows": [0, float("nan")]})
    worker.report(assignment, result={"rows": [0]})
    assert broker.get_run(run).state is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    "said",
    [
        {"action": "a\ud800"},
        {"state": Status.FAILED, "error": StepError(type="E", message="cut in half: \ud83d")},
        {"started_at": float("nan")},
    ],
)
def test_a_report_that_no_view_could_show_is_refused(broker: MemoryBroker, said: dict[str, Any]) -> None:
    """P7: over HTTP one lone surrogate in an error made the list of all runs a failure of the service, for good."""
    worker = Player(broker, broker.register_worker([SINGLE]))
    broker.dispatch_workflow(SINGLE)
    assignment = worker.take()
    with pytest.raises(InvalidMessageError, match=r"report of step 'a'"):
        broker.report_step(worker.worker_id, report_on(assignment).model_copy(update=said))
    worker.report(assignment)


def test_a_definition_that_no_view_could_show_is_refused(broker: MemoryBroker) -> None:
    odd = graph("g", {"a": []}).model_copy(update={"description": "\ud800"})
    with pytest.raises(InvalidSchemaError, match="description"):
        broker.register_worker([odd])
    with pytest.raises(InvalidSchemaError, match="description"):
        broker.dispatch_workflow(odd)
    assert broker.list_workflows() == []


def test_what_is_too_large_is_refused_with_both_figures() -> None:
    """P6, P7."""
    with MemoryBroker(max_message_bytes=1000) as broker:
        with pytest.raises(MessageTooLargeError, match=r"has 20\d\d bytes, over 1000"):
            broker.dispatch_workflow(SINGLE, {"text": "x" * 2000})
        worker = Player(broker, broker.register_worker([SINGLE]))
        broker.dispatch_workflow(SINGLE)
        with pytest.raises(MessageTooLargeError, match="step 'a'"):
            worker.report(worker.take(), result="x" * 2000)


# ---- who may report what


def test_a_step_that_nobody_was_handed_cannot_be_reported(broker: MemoryBroker) -> None:
    """P5: it waits in the queue, so no worker holds it."""
    worker_id = broker.register_worker([SINGLE])
    run = broker.dispatch_workflow(SINGLE)
    guess = StepReport(workflow_id="single", instance_id=run, step_name="a", state=Status.SUCCEEDED)
    with pytest.raises(StaleReportError, match="not handed to worker"):
        broker.report_step(worker_id, guess)
    assert broker.get_run(run).steps["a"].state is Status.QUEUED


def test_a_report_names_a_step_and_a_workflow_that_the_run_has(broker: MemoryBroker) -> None:
    worker_id = broker.register_worker([CHAIN])
    run = broker.dispatch_workflow(CHAIN)
    report = StepReport(workflow_id="chain", instance_id=run, step_name="z", state=Status.SUCCEEDED)
    with pytest.raises(UnknownStepError, match="'z'"):
        broker.report_step(worker_id, report)
    with pytest.raises(StaleReportError, match="never queued"):
        broker.report_step(worker_id, report.model_copy(update={"step_name": "c"}))
    with pytest.raises(UnknownRunError, match="'other'"):
        broker.report_step(worker_id, report.model_copy(update={"workflow_id": "other"}))


def test_only_what_a_far_worker_says_it_holds_is_carried_on(broker: MemoryBroker, clock: ManualClock) -> None:
    """P1: an assignment that got lost on its way to a worker that lives is not held by it for ever."""
    worker = Player(broker, broker.register_worker([SINGLE]))
    run = broker.dispatch_workflow(SINGLE)
    worker.take()
    lost = broker.dispatch_workflow(SINGLE)
    worker.take()
    for _ in range(3):
        clock.advance(25)
        broker.keep_alive(worker.worker_id, holds=[(run, "a", 1)])
    again = worker.take()
    assert (again.instance_id, again.attempt) == (lost, 2)
    assert worker.has_nothing()
    assert broker.get_run(run).steps["a"].attempt == 1


# ---- dispatching


def test_the_same_instance_id_twice_is_one_run(broker: MemoryBroker) -> None:
    """P3: so a dispatch whose answer was lost can be repeated."""
    worker = Player(broker, broker.register_worker([SINGLE]))
    assert broker.dispatch_workflow(SINGLE, instance_id="mine") == "mine"
    assert broker.dispatch_workflow(SINGLE, instance_id="mine") == "mine"
    worker.do("a")
    assert worker.has_nothing()
    assert broker.dispatch_workflow(SINGLE, instance_id="mine") == "mine"
    assert broker.get_run("mine").state is RunStatus.SUCCEEDED


def test_an_instance_id_is_checked(broker: MemoryBroker) -> None:
    with pytest.raises(InvalidSchemaError, match="instance_id"):
        broker.dispatch_workflow(SINGLE, instance_id=" ")


def test_steps_are_handed_out_in_their_order_across_workflows(broker: MemoryBroker) -> None:
    schemas = [graph(f"w{index}", {"a": []}) for index in range(3)]
    worker = Player(broker, broker.register_worker(schemas))
    runs = [broker.dispatch_workflow(schemas[index % 3]) for index in range(9)]
    assert [worker.take().instance_id for _ in range(9)] == runs


def test_parallel_workers_never_get_the_same_attempt() -> None:
    """P5, with real threads."""
    with MemoryBroker() as broker:
        runs = {broker.dispatch_workflow(SINGLE) for _ in range(300)}
        taken: list[str] = []

        def work() -> None:
            worker_id = broker.register_worker([SINGLE])
            while (assignment := broker.get_step(worker_id)) is not None:
                taken.append(assignment.instance_id)
                broker.report_step(worker_id, report_on(assignment))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == sorted(runs)
        assert broker.status()["runs"]["SUCCEEDED"] == 300


# ---- timers


def test_timers_run_by_themselves_on_the_systems_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: nobody calls the broker meanwhile."""
    retry = PolicySpec(name="retry", config={"max_retries": 2, "wait": 0.05})
    schema = graph("again", {"a": []}, policies={"a": [retry]})
    with MemoryBroker() as broker:
        worker = Player(broker, broker.register_worker([schema]))
        run = broker.dispatch_workflow(schema)
        worker.do("a", error="once")
        queued = threading.Event()
        put = ReadyQueue.put

        def noticed(queue: ReadyQueue, assignment: StepAssignment) -> None:
            put(queue, assignment)
            queued.set()

        monkeypatch.setattr(ReadyQueue, "put", noticed)
        assert queued.wait(10)
        assert worker.do("a").attempt == 2
        assert broker.wait(run, 10).state is RunStatus.SUCCEEDED
    assert "fuseline timers" not in {thread.name for thread in threading.enumerate()}


def test_a_worker_that_vanishes_loses_its_step_though_nobody_calls() -> None:
    with MemoryBroker(rules=Rules(lease_seconds=0.1)) as broker:
        worker = Player(broker, broker.register_worker([SINGLE]))
        run = broker.dispatch_workflow(SINGLE)
        worker.take()
        deadline = PolicySpec(name="workflow_timeout", config={"seconds": 0.2})
        short = broker.dispatch_workflow(graph("short", {"a": []}, workflow_policies=[deadline]))
        assert broker.wait(short, 10).state is RunStatus.FAILED
        assert broker.get_run(run).steps["a"].attempt == 2


def test_a_timer_that_cannot_be_applied_is_told_and_harms_no_other(
    broker: MemoryBroker, storage: BrittleStorage, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Player(broker, broker.register_worker([SINGLE]))
    broken, fine = broker.dispatch_workflow(SINGLE), broker.dispatch_workflow(SINGLE)
    worker.take()
    worker.take()
    storage._steps[broken]["zz"] = storage._steps[broken].pop("a")
    storage._steps[broken]["zz"].name = "zz"
    storage._timers.append((storage._steps[broken]["zz"].due_at or 0.0, broken, "zz"))
    clock.advance(61)
    assert worker.take().instance_id == fine
    assert "zz" in caplog.text
    assert len(caplog.records) == 1
    worker.has_nothing()
    assert len(caplog.records) == 1  # not looked at again with every call


# ---- its end


def test_those_who_wait_for_a_run_are_told_that_the_broker_closed() -> None:
    """P7: never a hang."""
    broker = MemoryBroker()
    run = broker.dispatch_workflow(SINGLE)
    errors: list[Exception] = []
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        try:
            broker.wait(run)
        except BrokerUnavailableError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    broker.close()
    thread.join(10)
    assert len(errors) == 1


def test_a_closed_broker_takes_no_calls(broker: MemoryBroker) -> None:
    worker_id = broker.register_worker([SINGLE])
    broker.close()
    broker.close()
    broker.tick()
    for call in (
        lambda: broker.dispatch_workflow(SINGLE),
        lambda: broker.get_step(worker_id),
        broker.list_runs,
    ):
        with pytest.raises(BrokerUnavailableError, match="closed"):
            call()


def test_closing_writes_down_who_was_seen(
    storage: BrittleStorage, broker: MemoryBroker, clock: ManualClock
) -> None:
    worker_id = broker.register_worker([SINGLE])
    seen_at = clock.advance(40)
    broker.keep_alive(worker_id)
    broker.close()
    assert [worker.last_seen_at for worker in storage.list_workers()] == [seen_at]


def test_heartbeats_write_no_rows(storage: BrittleStorage, broker: MemoryBroker, clock: ManualClock) -> None:
    """P8."""
    worker_id = broker.register_worker([SINGLE])
    clock.advance(1)
    storage.away = True
    broker.keep_alive(worker_id)
    assert broker.get_step(worker_id) is None
    storage.away = False


def test_a_forgotten_worker_is_gone_from_the_storage_too(
    storage: BrittleStorage, broker: MemoryBroker, clock: ManualClock
) -> None:
    """P6."""
    gone = broker.register_worker([SINGLE])
    clock.advance(301)
    stays = broker.register_worker([SINGLE])
    assert [worker.worker_id for worker in storage.list_workers()] == [stays]
    with pytest.raises(UnknownWorkerError):
        broker.keep_alive(gone)

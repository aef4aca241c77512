"""Calls that share a commit, and the short way of a worker in the same process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fuseline.amqp.codec import encode
from fuseline.broker import MemoryBroker
from fuseline.broker.lane import Told, lane_of
from fuseline.clock import ManualClock
from fuseline.errors import (
    CallerError,
    MessageTooLargeError,
    StaleReportError,
    StorageUnavailableError,
    UnknownRunError,
    UnknownWorkerError,
)
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import Changes, Transaction
from fuseline.storage.memory import MemoryRuntimeStorage
from fuseline.testing.flows import graph, report_on

CHAIN = graph("chain", {"a": ["b"], "b": ["c"]}, outputs=["c"])
SINGLE = graph("single", {"a": []})
SECONDS = 20.0


class CountingStorage(MemoryRuntimeStorage):
    """Counts transactions; `hold` keeps the next one from its end; `poison` is a run that cannot be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self.away = False
        self.lose_answer = False
        self.hold: threading.Event | None = None
        self.held = threading.Event()
        self.poison: str | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if self.away:
            raise StorageUnavailableError("away")
        with super().transaction() as unit:
            save = unit.save

            def checked(changes: Changes) -> None:
                if any(i == self.poison for i, _ in changes.steps):
                    raise CallerError("what this storage cannot hold")
                save(changes)

            unit.save = checked  # type: ignore[method-assign]
            yield unit
            hold, self.hold = self.hold, None
            if hold is not None:
                self.held.set()
                assert hold.wait(SECONDS)
        self.transactions += 1
        if self.lose_answer:
            self.lose_answer = False
            raise StorageUnavailableError("the connection broke during the commit")


@pytest.fixture
def storage() -> CountingStorage:
    return CountingStorage()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(storage: CountingStorage, clock: ManualClock) -> Iterator[MemoryBroker]:
    with MemoryBroker(storage, clock=clock) as broker:
        yield broker


def told(assignment: StepAssignment, **how: Any) -> Told:
    report = report_on(assignment, **how)
    return Told(report, encode(report))


# ---- calls that share a commit


def test_calls_that_come_during_a_commit_share_the_next_one(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    broker.dispatch_workflow(SINGLE)
    before, release = storage.transactions, threading.Event()
    storage.hold = release
    first = threading.Thread(target=broker.dispatch_workflow, args=(SINGLE,))
    first.start()
    assert storage.held.wait(SECONDS)
    runs: list[str] = []
    more = [threading.Thread(target=lambda: runs.append(broker.dispatch_workflow(SINGLE))) for _ in range(20)]
    for thread in more:
        thread.start()
    while len(broker._group._waiting) < len(more):
        more[0].join(0.001)
    release.set()
    for thread in (first, *more):
        thread.join(SECONDS)
    assert len(set(runs)) == 20
    assert storage.transactions - before == 2
    assert broker.status()["ready"] == 22


def test_what_cannot_be_stored_harms_nobody_who_shares_its_commit(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    broker.dispatch_workflow(SINGLE)
    release = threading.Event()
    storage.hold, storage.poison = release, "bad"
    first = threading.Thread(target=broker.dispatch_workflow, args=(SINGLE,))
    first.start()
    assert storage.held.wait(SECONDS)
    told: dict[str, Exception | None] = {}

    def dispatch(run: str) -> None:
        try:
            broker.dispatch_workflow(SINGLE, instance_id=run)
            told[run] = None
        except CallerError as error:
            told[run] = error

    more = [threading.Thread(target=dispatch, args=(run,)) for run in ("good", "bad", "better")]
    for thread in more:
        thread.start()
    while len(broker._group._waiting) < len(more):
        more[0].join(0.001)
    release.set()
    for thread in (first, *more):
        thread.join(SECONDS)
    assert told["good"] is told["better"] is None
    assert "cannot hold" in str(told["bad"])
    assert broker.get_run("good").state is RunStatus.RUNNING
    with pytest.raises(UnknownRunError):
        broker.get_run("bad")


def test_many_runs_share_a_commit(storage: CountingStorage, broker: MemoryBroker) -> None:
    broker.dispatch_workflow(SINGLE)
    before = storage.transactions
    runs = broker.dispatch_many(SINGLE, [{"n": number} for number in range(500)])
    assert storage.transactions - before == 3
    assert broker.dispatch_many(SINGLE, [None] * 500, instance_ids=runs) == runs
    assert broker.status()["ready"] == 501
    with pytest.raises(CallerError, match="2 inputs and 1 instance ids"):
        broker.dispatch_many(SINGLE, [None, None], instance_ids=["one"])


# ---- the short way


def test_a_chain_takes_one_commit_a_step(storage: CountingStorage, broker: MemoryBroker) -> None:
    """What a report makes ready is claimed in the same transaction, and durable with it."""
    worker = broker.register_worker([CHAIN])
    run = broker.dispatch_workflow(CHAIN)
    before = storage.transactions
    held = broker.exchange(worker, (), 1).assignments
    names = []
    while held:
        names.append(held[0].step_name)
        held = broker.exchange(worker, [told(held[0], result=names[-1])], 1).assignments
        row = storage.read_run(run)
        assert row is not None
        assert [step.status for step in row.steps.values()] == [
            *[Status.SUCCEEDED] * len(names),
            *[Status.RUNNING] * len(held),
        ]
    assert names == ["a", "b", "c"]
    assert storage.transactions - before == 4
    assert broker.get_run(run).state is RunStatus.SUCCEEDED
    assert broker.status()["ready"] == 0


def test_steps_are_handed_out_up_to_the_number_wanted_in_their_order(broker: MemoryBroker) -> None:
    worker = broker.register_worker([SINGLE])
    runs = [broker.dispatch_workflow(SINGLE) for _ in range(5)]
    found = [broker.exchange(worker, (), wanted).assignments for wanted in (2, 0, 4)]
    assert [[one.instance_id for one in some] for some in found] == [runs[:2], [], runs[2:]]


def test_an_exchange_of_nothing_costs_no_transaction(storage: CountingStorage, broker: MemoryBroker) -> None:
    worker = broker.register_worker([SINGLE])
    before = storage.transactions
    assert broker.exchange(worker, (), 5).assignments == []
    assert storage.transactions == before


def test_each_report_is_refused_or_taken_by_itself(broker: MemoryBroker) -> None:
    worker = broker.register_worker([SINGLE])
    runs = [broker.dispatch_workflow(SINGLE) for _ in range(4)]
    held = broker.exchange(worker, (), 3).assignments
    waiting = held[0].model_copy(update={"instance_id": runs[3]})
    unknown = held[0].model_copy(update={"instance_id": "nobody's"})
    reports = [told(held[0]), told(waiting), told(unknown), told(held[1]), told(held[1])]
    refusals = broker.exchange(worker, reports, 0).refusals
    assert [type(one) for one in refusals] == [
        type(None),
        StaleReportError,
        UnknownRunError,
        type(None),
        type(None),
    ]
    states = [broker.get_run(run).state for run in runs]
    assert states == [RunStatus.SUCCEEDED, RunStatus.SUCCEEDED, RunStatus.RUNNING, RunStatus.RUNNING]


def test_a_report_that_is_too_large_is_refused_alone() -> None:
    with MemoryBroker(max_message_bytes=1000) as broker:
        worker = broker.register_worker([SINGLE])
        for _ in range(2):
            broker.dispatch_workflow(SINGLE)
        held = broker.exchange(worker, (), 2).assignments
        refusals = broker.exchange(worker, [told(held[0], result="x" * 1000), told(held[1])], 0).refusals
        assert isinstance(refusals[0], MessageTooLargeError)
        assert refusals[1] is None


def test_a_report_that_cannot_be_stored_is_refused_alone(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    worker = broker.register_worker([SINGLE])
    runs = [broker.dispatch_workflow(SINGLE) for _ in range(3)]
    held = broker.exchange(worker, (), 2).assignments
    storage.poison = runs[0]
    answer = broker.exchange(worker, [told(one) for one in held], 1)
    assert "cannot hold" in str(answer.refusals[0])
    assert answer.refusals[1] is None
    assert [one.instance_id for one in answer.assignments] == [runs[2]]


@pytest.mark.parametrize("lost", ["away", "lose_answer"])
def test_an_exchange_without_an_answer_can_be_repeated(
    storage: CountingStorage, broker: MemoryBroker, lost: str
) -> None:
    """P1, P4: whether it was committed or not, the report counts once and the next step comes to this worker."""
    worker = broker.register_worker([CHAIN])
    run = broker.dispatch_workflow(CHAIN)
    first = broker.exchange(worker, (), 1).assignments[0]
    setattr(storage, lost, True)
    with pytest.raises(StorageUnavailableError):
        broker.exchange(worker, [told(first)], 1)
    storage.away = False
    answer = broker.exchange(worker, [told(first)], 1)
    assert answer.refusals == [None]
    assert [one.step_name for one in answer.assignments] == ["b"]
    last = broker.exchange(worker, [told(answer.assignments[0])], 1).assignments[0]
    broker.exchange(worker, [told(last)], 1)
    assert broker.get_run(run).state is RunStatus.SUCCEEDED
    assert broker.status()["ready"] == 0


def test_what_is_ready_is_told_to_those_who_listen(broker: MemoryBroker) -> None:
    worker = broker.register_worker([SINGLE])
    woken: list[int] = []
    broker.on_ready(worker, lambda: woken.append(1))
    broker.dispatch_workflow(SINGLE)
    assert woken
    broker.on_ready(worker, None)
    woken.clear()
    broker.dispatch_workflow(SINGLE)
    assert not woken


def test_an_unknown_worker_exchanges_nothing(broker: MemoryBroker) -> None:
    with pytest.raises(UnknownWorkerError):
        broker.exchange("nobody", (), 1)


def test_who_overrides_a_method_of_a_broker_sees_each_step() -> None:
    class Watching(MemoryBroker):
        def report_step(self, worker_id: str, report: StepReport) -> None:
            super().report_step(worker_id, report)

    with MemoryBroker() as plain, Watching() as watching:
        assert lane_of(plain) is plain
        assert lane_of(watching) is None


# ---- a commit of which nobody knows


def test_what_a_commit_without_an_answer_made_ready_is_handed_out_at_once(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    """P1: the report comes again and is a duplicate; what it had made ready was put nowhere the first time."""
    worker = broker.register_worker([CHAIN])
    broker.dispatch_workflow(CHAIN)
    first = broker.get_step(worker)
    assert first is not None
    storage.lose_answer = True
    with pytest.raises(StorageUnavailableError):
        broker.report_step(worker, report_on(first))
    broker.report_step(worker, report_on(first))
    second = broker.get_step(worker)
    assert second is not None
    assert second.step_name == "b"


def test_who_waits_for_a_run_hears_of_an_end_whose_commit_had_no_answer(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    """P7: whoever recorded it got an error, and could tell nobody."""
    worker = broker.register_worker([SINGLE])
    run = broker.dispatch_workflow(SINGLE)
    only = broker.get_step(worker)
    assert only is not None
    ends: list[RunStatus] = []
    waiter = threading.Thread(target=lambda: ends.append(broker.wait(run, SECONDS).state))
    waiter.start()
    while not broker._endings._endings:
        waiter.join(0.001)
    storage.lose_answer = True
    with pytest.raises(StorageUnavailableError):
        broker.report_step(worker, report_on(only))
    broker.report_step(worker, report_on(only))
    with broker._lock:
        assert not broker._endings._endings
    waiter.join(SECONDS)
    assert ends == [RunStatus.SUCCEEDED]


def test_what_another_one_failed_to_take_is_told_again_when_it_is_swept(
    storage: CountingStorage, broker: MemoryBroker, clock: ManualClock
) -> None:
    """P1: it waits here all the while, and who could take it sleeps until it is told."""
    leaving, sleeping = broker.register_worker([SINGLE]), broker.register_worker([SINGLE])
    broker.dispatch_workflow(SINGLE)
    woken: list[int] = []
    broker.on_ready(sleeping, lambda: woken.append(1))
    storage.away = True
    with pytest.raises(StorageUnavailableError):
        broker.exchange(leaving, (), 1)
    storage.away = False
    clock.advance(121)
    broker.tick()
    assert woken
    assert broker.exchange(sleeping, (), 1).assignments


def test_who_waits_hears_of_it_though_nobody_calls_again(storage: CountingStorage) -> None:
    """P7: whoever recorded the end has given up."""
    with MemoryBroker(storage) as broker:
        worker = broker.register_worker([SINGLE])
        run = broker.dispatch_workflow(SINGLE)
        only = broker.get_step(worker)
        assert only is not None
        ends: list[RunStatus] = []
        waiter = threading.Thread(target=lambda: ends.append(broker.wait(run, SECONDS).state))
        waiter.start()
        while not broker._endings._endings:
            waiter.join(0.001)
        storage.lose_answer = True
        with pytest.raises(StorageUnavailableError):
            broker.report_step(worker, report_on(only))
        waiter.join(SECONDS)
    assert ends == [RunStatus.SUCCEEDED]


def test_what_was_certainly_not_committed_is_no_reason_to_look(
    storage: CountingStorage, broker: MemoryBroker
) -> None:
    """P6: looking costs as much as what is queued."""
    worker = broker.register_worker([SINGLE])
    storage.poison = broker.dispatch_workflow(SINGLE)
    with pytest.raises(CallerError):
        broker.get_step(worker)
    assert not broker._ledger.doubts
    storage.away = True
    with pytest.raises(StorageUnavailableError):
        broker.dispatch_workflow(SINGLE)
    assert not broker._ledger.doubts
    storage.away = False

"""Cases for every storage: several at once. A storage may let them take turns; nothing may be lost, done twice or stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import pytest

from fuseline.clock import ManualClock, SystemClock
from fuseline.engine import Rules
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepReported
from fuseline.errors import SchemaConflictError, StorageUnavailableError
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model.schema import PolicySpec, WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.transaction import Changes, Wanted
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import StorageCases, keep, run_row, step_row

Value = TypeVar("Value")

THREADS = 6
WAIT_SECONDS = 30.0


def at_once(jobs: Iterable[Callable[[], Value]]) -> list[Value]:
    """What the jobs return; they begin together, each in a thread of its own."""
    calls = list(jobs)
    start = threading.Barrier(len(calls))

    def run(job: Callable[[], Value]) -> Value:
        start.wait(WAIT_SECONDS)
        return job()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(WAIT_SECONDS) for future in [pool.submit(run, job) for job in calls]]


def until_it_is_there(call: Callable[[], Value]) -> Value:
    """As every caller of a storage has to: again while it says that the same call may succeed later."""
    while True:
        try:
            return call()
        except StorageUnavailableError:
            continue


def succeeded(instance_id: str, step: str) -> Occurrence:
    """A report."""
    return Occurrence(instance_id, StepReported(step, 1, Status.SUCCEEDED, result=step))


def fan(width: int) -> WorkflowSchema:
    """`width` starting steps that join."""
    return graph("w", {f"p{n}": ["join"] for n in range(width)}, outputs=["join"])


class ThreadCases(StorageCases):
    """Through `Ledger`, as brokers and coordinators work."""

    def test_many_dispatch_at_once(self, storage: RuntimeStorage) -> None:
        Ledger(storage, SystemClock()).register([fan(2)])

        def dispatch(thread: int) -> None:
            ledger = Ledger(storage, SystemClock())
            for n in range(10):
                ledger.apply([Dispatch("w", "1", f"{thread}-{n}", {"n": n})])

        at_once([partial(dispatch, thread) for thread in range(THREADS)])
        assert len(storage.list_runs(limit=1000)) == THREADS * 10
        assert len(storage.list_queued()) == THREADS * 20

    def test_the_same_run_dispatched_by_many_is_one(self, storage: RuntimeStorage) -> None:
        """P3."""
        Ledger(storage, SystemClock()).register([fan(2)])
        items = [Dispatch("w", "1", f"same-{n}") for n in range(8)]

        def dispatch(mine: list[Dispatch]) -> list[Verdict]:
            ledger = Ledger(storage, SystemClock())
            return until_it_is_there(lambda: [outcome.verdict for outcome in ledger.apply(mine)])

        verdicts = at_once([partial(dispatch, items if n % 2 else items[::-1]) for n in range(THREADS)])
        told = [verdict for one in verdicts for verdict in one]
        assert told.count(Verdict.ACCEPTED) == len(items)
        assert told.count(Verdict.DUPLICATE) == len(items) * (THREADS - 1)
        assert len(storage.list_queued()) == 2 * len(items)

    def test_a_join_counts_right_when_its_parents_are_reported_at_once(self, storage: RuntimeStorage) -> None:
        """P3: it fires once, whoever is last."""
        width = 24
        ledger = Ledger(storage, SystemClock())
        ledger.register([fan(width)])
        ledger.apply([Dispatch("w", "1", "i")])

        def report(thread: int) -> list[Outcome]:
            mine = Ledger(storage, SystemClock())
            return [mine.apply([succeeded("i", f"p{n}")])[0] for n in range(thread, width, THREADS)]

        outcomes = [one for mine in at_once([partial(report, t) for t in range(THREADS)]) for one in mine]
        assert [a.step_name for one in outcomes for a in one.assignments] == ["join"]
        assert ledger.apply([succeeded("i", "join")])[0].finished is RunStatus.SUCCEEDED
        assert storage.next_due() is None

    def test_batches_of_the_same_runs_in_any_order_do_not_wait_for_each_other(
        self, storage: RuntimeStorage
    ) -> None:
        runs = [f"r{n}" for n in range(12)]
        ledger = Ledger(storage, SystemClock())
        ledger.register([fan(8)])
        ledger.apply([Dispatch("w", "1", i) for i in runs])

        def report(thread: int) -> None:
            mine = Ledger(storage, SystemClock())
            ordered = runs if thread % 2 else runs[::-1]
            for n in range(8):
                mine.apply([succeeded(i, f"p{n}") for i in ordered])

        at_once([partial(report, t) for t in range(THREADS)])
        assert {row.name for _, row in storage.list_queued()} == {"join"}

    def test_a_timer_runs_out_once(self, storage: RuntimeStorage) -> None:
        """P3: whoever takes it."""
        clock, rules = ManualClock(), Rules(max_losses=100)
        retries = {"a": [PolicySpec(name="expiry", config={"seconds": 5})]}
        ledger = Ledger(storage, clock, rules)
        ledger.register([graph("w", {"a": []}, policies=retries)])
        ledger.apply([Dispatch("w", "1", f"r{n}") for n in range(60)])
        clock.advance(60)

        def drain() -> list[Outcome]:
            mine, found = Ledger(storage, clock, rules), list[Outcome]()
            while outcomes := mine.apply_due(7):
                found += outcomes
            return found

        outcomes = [one for mine in at_once([drain] * THREADS) for one in mine]
        ended = [one.instance_id for one in outcomes if one.verdict is Verdict.ACCEPTED]
        assert sorted(ended) == sorted(f"r{n}" for n in range(60))
        assert storage.count_runs() == {RunStatus.FAILED: 60}

    def test_the_same_version_registered_by_many(self, storage: RuntimeStorage) -> None:
        schemas = [graph(f"w{n}", {"a": []}) for n in range(4)]

        def register(mine: list[WorkflowSchema]) -> None:
            Ledger(storage, SystemClock()).register(mine)

        at_once([partial(register, schemas if n % 2 else schemas[::-1]) for n in range(THREADS)])
        assert [stored.schema for stored in storage.list_schemas()] == schemas

    def test_policies_of_the_same_versions_changed_by_many(self, storage: RuntimeStorage) -> None:
        """Nobody waits for somebody who waits for him, which a database ends after a second, with an error."""
        schemas = [graph(f"w{n}", {"a": []}) for n in range(3)]
        Ledger(storage, SystemClock()).register(schemas)

        def change(number: int) -> None:
            mine = [schema.model_copy(update={"description": f"of {number}"}) for schema in schemas]
            for _ in range(3):
                Ledger(storage, SystemClock()).register(mine if number % 2 else mine[::-1])

        at_once([partial(change, number) for number in range(THREADS)])
        assert len({stored.schema.description for stored in storage.list_schemas()}) == 1

    def test_of_two_graphs_under_one_version_one_is_refused(self, storage: RuntimeStorage) -> None:
        """Neither may replace the other unseen, however close together they come."""

        def register(schema: WorkflowSchema) -> WorkflowSchema | None:
            ledger = Ledger(storage, SystemClock())
            try:
                until_it_is_there(lambda: ledger.register([schema]))
            except SchemaConflictError:
                return None
            return schema

        for version in range(5):
            graphs = [graph("w", {f"s{n}": []}, version=str(version)) for n in range(THREADS)]
            taken = [one for one in at_once([partial(register, g) for g in graphs]) if one is not None]
            stored = [s.schema for s in storage.list_schemas() if s.schema.version == str(version)]
            assert taken == stored

    def test_nobody_gets_a_step_that_another_one_got(self, storage: RuntimeStorage) -> None:
        """`fetch_next`, of one run and of several."""
        for run in ("i", "k"):
            storage.create_run("w", run, [f"s{n}" for n in range(15)])
            for n in range(15):
                storage.enqueue("w", run, f"s{n}")

        def fetch() -> list[tuple[str, str]]:
            found = []
            while (one := storage.fetch_next_of_workflow("w")) is not None:
                found.append(one)
            return found

        fetched = [one for mine in at_once([fetch] * THREADS) for one in mine]
        assert sorted(fetched) == sorted((run, f"s{n}") for run in ("i", "k") for n in range(15))


class SharedStorageContract(StorageCases):
    """For a storage whose transactions go on side by side, such as those of several coordinators on PostgreSQL."""

    def test_a_transaction_passes_over_the_timers_of_runs_that_another_one_has(
        self, storage: RuntimeStorage
    ) -> None:
        """And over so many of them that they are all that its limit allows: what is behind them is not starved."""
        keep(
            storage,
            *(run_row(f"{n:03}", due_at=50.0 + n) for n in range(60)),
            **{f"{n:03}": [step_row("s", due_at=1.0 + n)] for n in range(60)},
        )
        with storage.transaction() as first:
            mine = first.take_due(1000.0, 20)
            assert {due.instance_id for due in mine} == {f"{n:03}" for n in range(20)}
            with storage.transaction() as second:
                others = second.take_due(1000.0, 20)
                assert {due.instance_id for due in others} == {f"{n:03}" for n in range(20, 40)}
            with storage.transaction() as third:
                assert len(third.take_due(1000.0, 10)) == 10

    def test_a_queued_step_that_another_one_takes_is_passed_over(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), i=[step_row("a", queued_at=1.0), step_row("b", queued_at=2.0)])
        with storage.transaction() as first, storage.transaction() as second:
            taken = [tx.take_queued("w", None)[0][1].name for tx in (first, second)]
            assert taken == ["a", "b"]
            with storage.transaction() as third:
                assert third.take_queued("w", "i") == []

    def test_a_commit_that_is_begun_and_fails_says_so_at_its_end_and_keeps_nobody_waiting(
        self, storage: RuntimeStorage
    ) -> None:
        """P3. Who has begun it takes up the same run next, on the same thread."""
        keep(storage, run_row("old", open_steps=1))
        one = ExitStack()
        tx = one.enter_context(storage.transaction())
        tx.load(Wanted({"old"}))
        tx.save(Changes([run_row("old", open_steps=7, is_new=False), run_row("new")], inputs={"new": {}}))
        keep(storage, run_row("new", workflow_id="another"))  # somebody else is first
        if tx.begin_commit():
            with storage.transaction() as other:
                assert other.load(Wanted({"old"})).runs["old"].open_steps == 1
        with pytest.raises(StorageUnavailableError):
            one.close()
        new = storage.read_run_row("new")
        assert new is not None
        assert new.workflow_id == "another"

    def test_a_run_that_another_one_has_is_waited_for(self, storage: RuntimeStorage) -> None:
        """P3: what a decision is made on cannot change until it is saved."""
        keep(storage, run_row("i"), run_row("k"))
        held, waiting = threading.Event(), threading.Event()
        seen: list[int] = []

        def second() -> None:
            assert held.wait(WAIT_SECONDS)
            with storage.transaction() as tx:
                tx.load(Wanted({"k"}))  # of another run, and at once
                waiting.set()
                seen.append(tx.load(Wanted({"i"})).runs["i"].open_steps)

        thread = threading.Thread(target=second)
        thread.start()
        with storage.transaction() as tx:
            tx.load(Wanted({"i"}))
            held.set()
            assert waiting.wait(WAIT_SECONDS)
            tx.save(Changes([run_row("i", open_steps=7, is_new=False)]))
        thread.join(WAIT_SECONDS)
        assert seen == [7]

    def test_a_version_does_not_change_under_those_who_decide_by_it(self, storage: RuntimeStorage) -> None:
        schema = graph("w", {"a": []})
        Ledger(storage, SystemClock()).register([schema])
        reading, done = threading.Event(), list[Any]()

        def change() -> None:
            assert reading.wait(WAIT_SECONDS)
            Ledger(storage, SystemClock()).register([schema.model_copy(update={"description": "new"})])
            done.append(True)

        thread = threading.Thread(target=change)
        thread.start()
        with storage.transaction() as first, storage.transaction() as second:
            for tx in (first, second):  # readers do not exclude each other
                assert tx.load_schemas([schema.key])[schema.key].schema == schema
            reading.set()
            thread.join(0.2)
            assert not done
        thread.join(WAIT_SECONDS)
        assert done
        assert storage.list_schemas()[0].schema.description == "new"

    def test_a_run_that_is_being_decided_on_is_not_purged(self, storage: RuntimeStorage) -> None:
        keep(storage, *(run_row(i, RunStatus.SUCCEEDED, finished_at=1.0) for i in "ab"))
        with storage.transaction() as tx:
            tx.load(Wanted({"a"}))
            assert storage.purge_runs(5.0, 10) == 1
            assert storage.read_run_row("a") is not None
        assert storage.purge_runs(5.0, 10) == 1

    def test_two_that_wait_for_each_other_are_told_to_try_again(self, storage: RuntimeStorage) -> None:
        """Fuseline's own transactions lock in one order; should others do it otherwise, none hangs."""
        keep(storage, run_row("a"), run_row("b"))
        both = threading.Barrier(2)

        def lock(first: str, second: str) -> bool:
            try:
                with storage.transaction() as tx:
                    tx.load(Wanted({first}))
                    both.wait(WAIT_SECONDS)
                    tx.load(Wanted({second}))
            except StorageUnavailableError:
                return False
            return True

        assert sorted(at_once([partial(lock, "a", "b"), partial(lock, "b", "a")])) == [False, True]

    def test_a_dispatch_that_comes_second_by_a_hair_is_told_to_try_again(
        self, storage: RuntimeStorage
    ) -> None:
        """And finds then that the run is there."""

        def dispatch() -> None:
            with storage.transaction() as tx:
                assert not tx.load(Wanted({"i"})).runs
                keep(storage, run_row("i"))
                tx.save(Changes([run_row("i")]))

        with pytest.raises(StorageUnavailableError) as told:
            dispatch()
        assert storage.read_run_row("i") is not None
        with storage.transaction() as tx:
            assert told.value.is_conflict == tx.tells_conflicts

"""Cases for every storage: rows, timers, views."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from fuseline.engine.state import GroupCount, JoinRow, RunRow, StepRow
from fuseline.errors import CallerError, StorageUnavailableError
from fuseline.model.messages import Cause, StepError
from fuseline.model.status import RunStatus, Status
from fuseline.model.views import WorkerView
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.transaction import Changes, Due, Transaction, Wanted
from fuseline.testing.flows import graph


class StorageCases:
    """What the cases share. `writes_json`: False for a storage that keeps values as they are."""

    writes_json: bool = True

    @pytest.fixture
    def storage(self) -> RuntimeStorage:
        """The storage under test, empty."""
        raise NotImplementedError("give the contract a `storage` fixture")


def run_row(instance_id: str, status: RunStatus = RunStatus.RUNNING, **fields: Any) -> RunRow:
    """A new header."""
    ended = {} if status is RunStatus.RUNNING else {"finished_at": 200.0}
    given = {"workflow_id": "w", "version": "1", "created_at": 100.0, "is_new": True, **ended, **fields}
    return RunRow(instance_id=instance_id, status=status, **given)


def step_row(name: str, status: Status = Status.QUEUED, **fields: Any) -> StepRow:
    """A new step."""
    return StepRow(name, status, **{"is_new": True, **fields})


def keep(storage: RuntimeStorage, *runs: RunRow, **steps: list[StepRow]) -> None:
    """Save headers, and steps by instance id."""
    rows = [(instance_id, step) for instance_id, mine in steps.items() for step in mine]
    with storage.transaction() as tx:
        tx.save(Changes(runs=list(runs), steps=rows, inputs={run.instance_id: {} for run in runs}))


def break_off(storage: RuntimeStorage, work: Callable[[Transaction], None]) -> None:
    """Do something in a transaction that then fails."""

    def attempt() -> None:
        with storage.transaction() as tx:
            work(tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attempt()


_VALUES: dict[str, Any] = {
    "null": None,
    "false": False,
    "empty text": "",
    "NUL": "a\0b",
    "lone surrogate": "\ud800",
    "key with NUL": {"\0": [{"": "\udfff"}]},
    "beyond the BMP": "\U0001f680 ü",
    "what looks like an escape": "\\u0000 \\ud800 %s :x",
    "smallest number": 5e-324,
    "largest number": 1.7976931348623157e308,
    "a third": 1 / 3,
    "integer float": 2.0,
    "big integer": 2**200 + 1,
    "negative": -(2**63) - 1,
    "nested": [[[[{"a": [{"b": []}]}]]]],
    "a megabyte": "x" * 1_000_000,
}


class RowCases(StorageCases):
    """Loading and saving."""

    def test_every_field_comes_back_as_it_was(self, storage: RuntimeStorage) -> None:
        error = StepError(
            type="E", message="a\0b", traceback="t", cause=Cause.TIMEOUT, types=["E", "Exception"]
        )
        run = run_row("i", open_steps=3, failed_step="s", error=error, due_at=1.25, finished_at=2.5)
        step = step_row(
            "s",
            Status.RUNNING,
            attempt=4,
            failures=2,
            losses=1,
            holder="worker",
            queued_at=1.0,
            started_at=2.0,
            finished_at=3.0,
            due_at=4.0,
            action="reject",
            result={"a": 1},
            error=error,
        )
        join = JoinRow("j", 3, 1, 1, True, {"p": GroupCount(2, 1, "winner"), "q": GroupCount(1)}, is_new=True)
        with storage.transaction() as tx:
            tx.save(Changes([run], [("i", step)], [("i", join)], {"i": {"url": "x"}}))
        with storage.transaction() as tx:
            found = tx.load(Wanted({"i"}, {("i", "s")}, {("i", "j")}, inputs={"i"}))
        assert found.runs == {"i": run}
        assert found.steps == {("i", "s"): step}
        assert found.joins == {("i", "j"): join}
        assert found.inputs == {"i": {"url": "x"}}

    @pytest.mark.parametrize("value", _VALUES.values(), ids=_VALUES)
    def test_every_json_value_comes_back_as_it_was(self, storage: RuntimeStorage, value: Any) -> None:
        with storage.transaction() as tx:
            tx.save(Changes([run_row("i")], [("i", step_row("s", result=value))], inputs={"i": {"x": value}}))
        stored = storage.read_run("i")
        assert stored is not None
        for found in (stored.steps["s"].result, stored.inputs["x"]):
            assert found == value
            assert type(found) is type(value)

    def test_what_does_not_exist_is_missing(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), i=[step_row("s")])
        with storage.transaction() as tx:
            found = tx.load(
                Wanted({"i", "k"}, {("i", "s"), ("i", "t"), ("k", "s")}, {("i", "s")}, {"k"}, {"k"})
            )
        assert set(found.runs) == {"i"}
        assert set(found.steps) == {("i", "s")}
        assert not found.joins
        assert not found.inputs

    def test_pairs_are_not_mixed_up(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), run_row("k"), i=[step_row("a"), step_row("b")], k=[step_row("a")])
        with storage.transaction() as tx:
            assert set(tx.load(Wanted(steps={("i", "b"), ("k", "a")})).steps) == {("i", "b"), ("k", "a")}

    def test_whole_runs_come_with_all_their_rows(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), run_row("k"), i=[step_row("a"), step_row("b[1]")], k=[step_row("a")])
        with storage.transaction() as tx:
            tx.save(Changes(joins=[("i", JoinRow("j", 2, is_new=True))]))
        with storage.transaction() as tx:
            found = tx.load(Wanted(whole={"i"}))
        assert set(found.steps) == {("i", "a"), ("i", "b[1]")}
        assert set(found.joins) == {("i", "j")}

    def test_a_row_is_replaced_whole(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i", due_at=5.0), i=[step_row("s", result=1, due_at=7.0, holder="w")])
        run = run_row("i", RunStatus.SUCCEEDED, is_new=False)
        step = step_row("s", Status.SUCCEEDED, attempt=2, is_new=False)
        with storage.transaction() as tx:
            tx.load(Wanted({"i"}))
            tx.save(Changes([run], [("i", step)]))
        stored = storage.read_run("i")
        assert stored is not None
        assert stored.run == run
        assert stored.steps == {"s": step}

    def test_many_rows_at_once(self, storage: RuntimeStorage) -> None:
        keep(
            storage,
            *(run_row(f"{n:04}") for n in range(3000)),
            **{f"{n:04}": [step_row("s", attempt=n + 1)] for n in range(3000)},
        )
        with storage.transaction() as tx:
            found = tx.load(Wanted({f"{n:04}" for n in range(3000)}, {(f"{n:04}", "s") for n in range(3000)}))
        assert len(found.runs) == 3000
        assert {i: row.attempt for (i, _), row in found.steps.items()} == {
            f"{n:04}": n + 1 for n in range(3000)
        }

    def test_a_run_that_exists_cannot_be_new(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i", created_at=1.0))
        with pytest.raises(StorageUnavailableError), storage.transaction() as tx:
            tx.save(Changes([run_row("h"), run_row("i", created_at=2.0)], [("i", step_row("s"))]))
        assert storage.read_run("h") is None
        stored = storage.read_run("i")
        assert stored is not None
        assert stored.run.created_at == 1.0
        assert not stored.steps

    def test_while_one_is_committed_another_one_may_begin_where_storage_says_so(
        self, storage: RuntimeStorage
    ) -> None:
        """About other runs, and in either order of their ends."""
        for first_ends_first in (True, False):
            first, second = (f"{name}{first_ends_first}" for name in "ab")
            one = ExitStack()
            tx = one.enter_context(storage.transaction())
            assert not tx.load(Wanted({first})).runs
            tx.save(Changes([run_row(first)], [(first, step_row("s"))], inputs={first: {}}))
            if not tx.begin_commit():
                one.close()  # it is made at the end, and nothing may be between
            with storage.transaction() as other:
                assert not other.load(Wanted({second})).runs
                other.save(Changes([run_row(second)], [(second, step_row("s"))], inputs={second: {}}))
                if first_ends_first:
                    one.close()
            one.close()
            for i in (first, second):
                stored = storage.read_run(i)
                assert stored is not None
                assert list(stored.steps) == ["s"]

    def test_an_exception_undoes_everything(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), i=[step_row("s")])
        worker = WorkerView(worker_id="new", registered_at=1.0, last_seen_at=1.0)
        with storage.transaction() as tx:
            tx.save_worker(worker.model_copy(update={"worker_id": "old"}))

        def write_everything(tx: Transaction) -> None:
            tx.load(Wanted({"i"}))
            tx.save(
                Changes(
                    [run_row("i", RunStatus.FAILED, is_new=False), run_row("k")],
                    [("i", step_row("s", Status.FAILED, is_new=False)), ("i", step_row("t"))],
                    [("i", JoinRow("j", 1, is_new=True))],
                    {"k": {}},
                )
            )
            tx.save_schema(graph("w", {"a": []}), 1.0)
            tx.save_worker(worker)
            tx.delete_workers(["old"])

        break_off(storage, write_everything)
        stored = storage.read_run("i")
        assert stored is not None
        assert stored.run == run_row("i")
        assert stored.steps == {"s": step_row("s")}
        assert storage.read_run("k") is None
        assert storage.list_schemas() == []
        assert [one.worker_id for one in storage.list_workers()] == ["old"]
        assert not storage.read_rows(Wanted(joins={("i", "j")})).joins

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, {1, 2}, object(), b"bytes"],
        ids=["nan", "infinity", "set", "object", "bytes"],
    )
    def test_what_is_not_json_is_refused(self, storage: RuntimeStorage, value: Any) -> None:
        self._refuse(storage, value)

    def test_what_nests_too_deep_to_be_read_again_is_refused(self, storage: RuntimeStorage) -> None:
        for depth in (600, 5000):
            value: Any = "]["
            for _ in range(depth):
                value = [value]
            self._refuse(storage, value)

    def _refuse(self, storage: RuntimeStorage, value: Any) -> None:
        if not self.writes_json:
            pytest.skip("keeps values as they are")
        for changes in (
            Changes([run_row("i")], [("i", step_row("s", result=value))]),
            Changes([run_row("i")], inputs={"i": {"x": value}}),
        ):
            with pytest.raises(CallerError), storage.transaction() as tx:
                tx.save(changes)
            assert storage.read_run("i") is None


class TimerCases(StorageCases):
    """What is due."""

    def test_nothing_is_due_where_nothing_waits(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), i=[step_row("s", Status.SUCCEEDED)])
        assert storage.next_due() is None
        with storage.transaction() as tx:
            assert tx.take_due(1e12, 10) == []

    def test_the_next_time_is_the_earliest_of_steps_and_runs(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i", due_at=50.0), i=[step_row("a", due_at=60.0)])
        assert storage.next_due() == 50.0
        keep(storage, run_row("k"), k=[step_row("a", due_at=40.0), step_row("b", due_at=45.0)])
        assert storage.next_due() == 40.0

    def test_timers_come_oldest_first_up_to_the_limit(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i", due_at=2.0), i=[step_row("b", due_at=3.0), step_row("late", due_at=9.5)])
        keep(storage, run_row("k"), k=[step_row("a", attempt=3, holder="w", due_at=1.0)])
        keep(storage, run_row("m"), m=[step_row("a", due_at=9.0)])
        expected = [Due("k", "a", 3, "w"), Due("i"), Due("i", "b", 1), Due("m", "a", 1)]
        with storage.transaction() as tx:
            assert tx.take_due(9.0, 10) == expected
        with storage.transaction() as tx:
            assert tx.take_due(9.0, 2) == expected[:2]
        with storage.transaction() as tx:
            assert tx.take_due(0.9, 10) == []

    def test_a_timer_stands_until_it_is_moved(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), i=[step_row("s", due_at=1.0)])

        def move(tx: Transaction) -> None:
            assert len(tx.take_due(5.0, 10)) == 1
            tx.save(Changes(steps=[("i", step_row("s", due_at=10.0, is_new=False))]))

        break_off(storage, move)
        with storage.transaction() as tx:
            move(tx)
        with storage.transaction() as tx:
            assert tx.take_due(5.0, 10) == []
        assert storage.next_due() == 10.0


class ViewCases(StorageCases):
    """Reading without locking."""

    def test_a_run_is_read_with_its_steps(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("i"), run_row("k"), i=[step_row("a"), step_row("b")], k=[step_row("c")])
        stored = storage.read_run("i")
        assert stored is not None
        assert set(stored.steps) == {"a", "b"}
        assert storage.read_run_row("i") == stored.run
        assert storage.read_run("nobody") is None
        assert storage.read_run_row("nobody") is None

    def test_what_is_not_committed_is_not_read(self, storage: RuntimeStorage) -> None:
        with storage.transaction() as tx:
            tx.save(Changes([run_row("i")]))
            assert storage.read_run_row("i") is None
        assert storage.read_run_row("i") is not None

    def test_runs_are_listed_newest_first(self, storage: RuntimeStorage) -> None:
        states = [RunStatus.RUNNING, RunStatus.SUCCEEDED, RunStatus.FAILED]
        keep(
            storage,
            *(run_row(f"{n:02}", states[n % 3], workflow_id=f"w{n % 2}") for n in range(12)),
        )
        assert [run.instance_id for run in storage.list_runs(limit=3)] == ["11", "10", "09"]
        assert [run.instance_id for run in storage.list_runs(limit=3, before="09")] == ["08", "07", "06"]
        assert [run.instance_id for run in storage.list_runs(workflow_id="w0", limit=2)] == ["10", "08"]
        failed = storage.list_runs(state=RunStatus.FAILED, workflow_id="w1", before="11")
        assert [run.instance_id for run in failed] == ["05"]
        assert storage.list_runs(workflow_id="none") == []

    def test_queued_steps_are_listed_page_by_page(self, storage: RuntimeStorage) -> None:
        keep(
            storage,
            run_row("i"),
            run_row("k"),
            i=[step_row("b"), step_row("a"), step_row("c", Status.RUNNING), step_row("d", Status.PENDING)],
            k=[step_row("a"), step_row("x", Status.SUCCEEDED)],
        )
        first = storage.list_queued(limit=2)
        assert [(i, row.name) for i, row in first] == [("i", "a"), ("i", "b")]
        rest = storage.list_queued(after=("i", "b"), limit=2)
        assert [(i, row.name) for i, row in rest] == [("k", "a")]
        assert storage.list_queued(after=("k", "a")) == []

    def test_runs_are_counted_by_state(self, storage: RuntimeStorage) -> None:
        keep(storage, run_row("a"), run_row("b"), run_row("c", RunStatus.CANCELLED))
        counts = {state: count for state, count in storage.count_runs().items() if count}
        assert counts == {RunStatus.RUNNING: 2, RunStatus.CANCELLED: 1}

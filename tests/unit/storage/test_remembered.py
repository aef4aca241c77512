"""What SQLite's writer remembers of its own commits, and when it must not believe it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fuseline.engine.state import RunRow, StepRow
from fuseline.errors import CallerError
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import Changes, Loaded, RuntimeStorage, Wanted
from fuseline.storage.sql import remembered
from fuseline.storage.sql.sqlite import SqliteRuntimeStorage


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fuseline.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteRuntimeStorage]:
    storage = SqliteRuntimeStorage(file)
    yield storage
    storage.close()


def run_row(
    i: str, *, is_new: bool = False, status: RunStatus = RunStatus.RUNNING, open_steps: int = 1
) -> RunRow:
    return RunRow(i, "w", "1", status, 1.0, open_steps=open_steps, is_new=is_new)


def step_row(name: str, status: Status = Status.QUEUED, *, is_new: bool = False) -> StepRow:
    return StepRow(name, status, queued_at=2.0, due_at=3.0, is_new=is_new)


def begin(storage: RuntimeStorage, i: str, inputs: object = None) -> None:
    run, step = run_row(i, is_new=True), step_row("a", is_new=True)
    with storage.transaction() as tx:
        tx.save(Changes(runs=[run], steps=[(i, step)], inputs={i: {"value": inputs}}))


def save(storage: RuntimeStorage, changes: Changes) -> None:
    with storage.transaction() as tx:
        tx.load(Wanted(runs={row.instance_id for row in changes.runs}))
        tx.save(changes)


def load(storage: RuntimeStorage, i: str) -> Loaded:
    with storage.transaction() as tx:
        return tx.load(Wanted(runs={i}, steps={(i, "a")}, inputs={i}))


def statements(storage: SqliteRuntimeStorage, i: str) -> int:
    before = storage.statements
    load(storage, i)
    return storage.statements - before


def test_what_was_just_written_is_not_read_again(storage: SqliteRuntimeStorage) -> None:
    begin(storage, "i1", "text")
    assert statements(storage, "i1") == 0
    found = load(storage, "i1")
    assert found.runs == {"i1": run_row("i1")}
    assert found.steps == {("i1", "a"): step_row("a")}
    assert found.inputs == {"i1": {"value": "text"}}
    assert not found.runs["i1"].is_new
    assert not found.steps["i1", "a"].is_new


def test_what_another_connection_has_written_since_is_read(storage: SqliteRuntimeStorage, file: Path) -> None:
    """Two on one file stay right, though only one may be its coordinator."""
    other = SqliteRuntimeStorage(file)
    begin(storage, "i1")
    for number in range(2, 5):
        for one in (other, storage):
            seen = load(one, "i1").runs["i1"]
            with one.transaction() as tx:
                tx.load(Wanted(runs={"i1"}))
                changed = run_row("i1", open_steps=seen.open_steps + 1)
                tx.save(Changes(runs=[changed], steps=[("i1", step_row("a", Status.RUNNING))]))
        assert load(storage, "i1").runs["i1"].open_steps == 1 + 2 * (number - 1)
    other.close()


def save_in_vain(storage: RuntimeStorage, changes: Changes) -> None:
    with storage.transaction() as tx:
        tx.load(Wanted(runs={row.instance_id for row in changes.runs}))
        tx.save(changes)
        raise ZeroDivisionError


def test_what_was_rolled_back_is_not_remembered(storage: SqliteRuntimeStorage) -> None:
    begin(storage, "i1")
    bad = step_row("a", Status.SUCCEEDED)
    bad.result = object()
    for step in (bad, step_row("a", Status.RUNNING)):
        with pytest.raises((CallerError, ZeroDivisionError)):
            save_in_vain(storage, Changes(runs=[run_row("i1", open_steps=7)], steps=[("i1", step)]))
    found = load(storage, "i1")
    assert found.runs["i1"].open_steps == 1
    assert found.steps["i1", "a"].status is Status.QUEUED


def test_a_purge_is_seen(storage: SqliteRuntimeStorage) -> None:
    begin(storage, "i1")
    ended = run_row("i1", status=RunStatus.SUCCEEDED)
    ended.finished_at = 5.0
    save(storage, Changes(runs=[ended]))
    assert storage.purge_runs(10.0) == 1
    assert load(storage, "i1").runs == {}


def test_what_has_ended_is_forgotten_and_the_rest_is_bounded(
    storage: SqliteRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: no results, no long inputs, so many runs, so many steps of each."""
    monkeypatch.setattr(remembered, "MAX_RUNS", 3)
    monkeypatch.setattr(remembered, "MAX_STEPS", 2)
    for number in range(5):
        begin(storage, f"i{number}")
    assert [statements(storage, f"i{number}") for number in (2, 3, 4)] == [0, 0, 0]
    assert list(storage._remembered._runs) == ["i2", "i3", "i4"]
    done = step_row("a", Status.SUCCEEDED)
    done.result = "large"
    more = [("i4", step_row(name, is_new=True)) for name in ("b", "c", "d")]
    with storage.transaction() as tx:
        tx.load(Wanted(runs={"i4"}))
        tx.save(Changes(steps=[("i4", done), *more]))
    assert sorted(storage._remembered._runs["i4"].steps) == ["b", "c"]
    assert load(storage, "i4").steps["i4", "a"].result == "large"
    save(storage, Changes(runs=[run_row("i4", status=RunStatus.FAILED)]))
    assert "i4" not in storage._remembered._runs
    begin(storage, "long", "x" * 5000)
    assert load(storage, "long").inputs == {"long": {"value": "x" * 5000}}
    assert storage._remembered._runs["long"].inputs is None


def test_after_an_error_of_the_database_all_is_read_again(storage: SqliteRuntimeStorage, file: Path) -> None:
    begin(storage, "i1")
    load(storage, "i1")
    storage._close_writer()
    assert statements(storage, "i1") == 3


def test_a_commit_that_nobody_has_written_down_is_read(
    storage: SqliteRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody was interrupted (Ctrl-C) right after it."""
    begin(storage, "i1")

    def interrupt(_transaction: object) -> None:
        raise KeyboardInterrupt

    changes = Changes(runs=[run_row("i1", open_steps=2)])
    with monkeypatch.context() as patched:
        patched.setattr(remembered.RememberingTransaction, "committed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(storage, changes)
    assert load(storage, "i1").runs["i1"].open_steps == 2


class _Interrupted:
    """A connection on whose `statement` somebody presses Ctrl-C: the interpreter raises as soon as the call is back."""

    def __init__(self, connection: Any, statement: str) -> None:
        self._connection = connection
        self._statement = statement

    def execute(self, text: str, *values: Any) -> Any:
        done = self._connection.execute(text, *values)
        if text == self._statement:
            raise KeyboardInterrupt
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_who_is_interrupted_while_the_file_is_waited_for_leaves_it_to_others(
    storage: SqliteRuntimeStorage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: the lock came together with Ctrl-C, and would be held by nobody for as long as the process lives."""
    on = SqliteRuntimeStorage._on

    def interrupted(self: SqliteRuntimeStorage, driver: Any, begin: str) -> Any:
        return on(self, _Interrupted(driver, begin), begin)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteRuntimeStorage, "_on", interrupted)
        for call in (
            lambda: begin(storage, "i1"),
            lambda: storage.purge_runs(1.0),
            lambda: storage.read_run("i1"),
        ):
            with pytest.raises(KeyboardInterrupt):
                call()
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    begin(storage, "i1")
    assert storage.read_run("i1") is not None

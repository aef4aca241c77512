"""SQLite: what is wrong with a file is told, and its own threads and processes do not trip over each other."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from fuseline.errors import CallerError, FatalError, SecondCoordinatorError, StorageUnavailableError
from fuseline.model.status import RunStatus
from fuseline.storage import SqliteRuntimeStorage
from fuseline.storage.sql import check, open_storage, sqlite
from fuseline.storage.sql.statements import Statement
from fuseline.storage.transaction import Changes
from fuseline.testing.storage_cases import keep, run_row, step_row


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteRuntimeStorage]:
    storage = SqliteRuntimeStorage(file)
    yield storage
    storage.close()


def limit_pages(storage: SqliteRuntimeStorage, pages: int) -> None:
    """As if the disk had room for no more; for the connections made from now on."""

    def set_limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(storage.engine, "connect", set_limit)
    storage._close_writer()
    storage.engine.dispose()


@pytest.mark.parametrize("form", ["path", "text", "url"])
def test_a_path_and_a_url_open_the_same_file(file: Path, form: str) -> None:
    names: dict[str, Any] = {"path": file, "text": str(file), "url": f"sqlite:///{file}"}
    SqliteRuntimeStorage(names[form]).close()
    check(f"sqlite:///{file}")


@pytest.mark.parametrize("name", [":memory:", "sqlite://", "sqlite:///:memory:"])
def test_without_a_file_each_storage_is_its_own(name: str) -> None:
    first, second = SqliteRuntimeStorage(name), SqliteRuntimeStorage(name)
    keep(first, run_row("i"))
    assert first.read_run_row("i") is not None
    assert second.read_run_row("i") is None
    first.claim_coordinator("a")
    second.claim_coordinator("b")
    first.close()
    second.close()


def test_a_commit_is_on_disk_when_it_returns(storage: SqliteRuntimeStorage) -> None:
    """P4."""
    connection: Any = storage.engine.raw_connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_connections_are_kept(storage: SqliteRuntimeStorage) -> None:
    made: list[object] = []
    event.listen(storage.engine, "connect", lambda *_: made.append(1))
    for _ in range(20):
        keep(storage, run_row(os.urandom(4).hex()))
        storage.list_runs()
    assert len(made) <= 1


def test_a_folder_that_is_missing_is_the_callers_matter(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="mkdir -p"):
        SqliteRuntimeStorage(tmp_path / "no" / "runs.db")
    with pytest.raises(CallerError, match="is a folder"):
        open_storage(f"sqlite:///{tmp_path}")


def test_what_is_no_database_is_not_overwritten(file: Path) -> None:
    file.write_text("precious " * 1000)
    with pytest.raises(FatalError, match=r"runs\.db is damaged, or none of SQLite's"):
        SqliteRuntimeStorage(file)
    assert file.read_text().startswith("precious")


def test_a_full_disk_is_told_and_nothing_is_half_written(storage: SqliteRuntimeStorage) -> None:
    """P7."""
    keep(storage, run_row("before"))
    limit_pages(storage, 40)
    with pytest.raises(StorageUnavailableError, match=r"full.*make room"):
        keep(storage, run_row("i"), i=[step_row(f"s{n}", result="x" * 10_000) for n in range(200)])
    assert storage.read_run("i") is None
    assert storage.read_run("before") is not None
    keep(storage, run_row("small"))
    assert storage.read_run("small") is not None


def test_a_file_that_may_only_be_read_is_told(file: Path) -> None:
    SqliteRuntimeStorage(file).close()
    storage = SqliteRuntimeStorage(file)

    def only_read(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(storage.engine, "connect", only_read)
    storage.engine.dispose()
    with pytest.raises(StorageUnavailableError, match=r"readonly.*owner or mode"):
        keep(storage, run_row("i"))
    assert storage.list_runs() == []
    storage.close()


def test_a_process_that_writes_for_too_long_is_told(storage: SqliteRuntimeStorage, file: Path) -> None:
    def no_patience(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=20")

    event.listen(storage.engine, "connect", no_patience)
    storage.engine.dispose()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailableError, match=r"locked.*another process"):
        keep(storage, run_row("i"))
    assert storage.list_runs() == []  # readers go on
    other.execute("ROLLBACK")
    other.close()
    keep(storage, run_row("i"))


def test_a_thread_that_writes_for_too_long_is_told(
    storage: SqliteRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    told: list[StorageUnavailableError] = []

    def write() -> None:
        try:
            keep(storage, run_row("i"))
        except StorageUnavailableError as error:
            told.append(error)

    with storage.transaction():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(10)
    assert "another thread" in str(told[0])


@pytest.mark.parametrize("name", ["a\ud800", "\udfff"])
def test_a_name_that_is_no_text_is_refused(storage: SqliteRuntimeStorage, name: str) -> None:
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row("i"), i=[step_row("s", action=name)])
    with pytest.raises(CallerError, match="cannot hold"):
        storage.list_runs(workflow_id=name)
    assert storage.read_run("i") is None


def test_a_number_that_is_too_large_is_refused(storage: SqliteRuntimeStorage) -> None:
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row("i", open_steps=2**70))
    with pytest.raises(CallerError, match="cannot hold"):
        storage.list_runs(limit=2**70)


def test_a_second_coordinator_is_refused_until_the_first_is_gone(file: Path) -> None:
    first, second = SqliteRuntimeStorage(file), SqliteRuntimeStorage(file)
    first.claim_coordinator("one")
    first.claim_coordinator("one")
    with pytest.raises(SecondCoordinatorError, match=f"one, pid {os.getpid()}"):
        second.claim_coordinator("two")
    first.close()
    second.claim_coordinator("two")
    second.close()


def test_a_lock_that_cannot_be_written_is_told(file: Path) -> None:
    storage = SqliteRuntimeStorage(file)
    Path(f"{file}.coordinator").mkdir()
    with pytest.raises(StorageUnavailableError, match="coordinator cannot be written"):
        storage.claim_coordinator("one")
    storage.close()


def test_a_large_run_is_purged_in_bounded_transactions(
    storage: SqliteRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header goes last, so that a purge that was broken off is found again."""
    monkeypatch.setattr("fuseline.storage.sql.storage.PURGED_ROWS", 10)
    keep(
        storage,
        *(run_row(i, RunStatus.SUCCEEDED, finished_at=1.0) for i in "ab"),
        a=[step_row(f"s{n}") for n in range(25)],
    )
    before = storage.commits
    assert storage.purge_runs(5.0, 10) == 2
    assert storage.commits - before == 3
    assert storage.list_queued() == []


def test_saving_nothing_is_fine(storage: SqliteRuntimeStorage) -> None:
    with storage.transaction() as tx:
        tx.save(Changes())
    assert storage.list_runs() == []


def test_all_connections_in_use_are_told(
    storage: SqliteRuntimeStorage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "POOL_SIZE", 1)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    small = SqliteRuntimeStorage(file)
    with small.transaction(), pytest.raises(StorageUnavailableError, match="in use"):
        small.list_runs()
    small.close()


def test_a_text_that_is_too_large_is_refused(storage: SqliteRuntimeStorage) -> None:
    connection: Any = storage.engine.raw_connection()
    connection.driver_connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    connection.close()
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row("i"), i=[step_row("s", result="x" * 20_000)])
    assert storage.read_run("i") is None


def test_every_statement_goes_by_an_index(storage: SqliteRuntimeStorage) -> None:
    """P6: none reads a table whole, but for the lists that are asked for whole, and counting goes along an index."""
    whole = {"list_schemas", "list_workers", "count_runs", "now"}
    connection: Any = storage.engine.raw_connection()
    for name, statement in vars(storage._sql).items():
        if isinstance(statement, Statement) and name not in whole:
            for one in filter(None, (statement, statement.for_one)):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {one.text}", [1] * len(one.names)).fetchall()
                steps = [row[3] for row in plan]
                scans = [step for step in steps if re.match(r"SCAN fuseline_\w+(?! USING INDEX)$", step)]
                assert scans == [], (name, steps)
    connection.close()

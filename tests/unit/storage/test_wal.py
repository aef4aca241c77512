"""Room in SQLite's log: for a coordinator that goes on, and nothing that is committed is lost by it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseline.storage import SqliteRuntimeStorage
from fuseline.storage.sql import wal
from fuseline.testing.storage_cases import keep, run_row


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def storage(file: Path) -> Iterator[SqliteRuntimeStorage]:
    storage = SqliteRuntimeStorage(file)
    yield storage
    storage.close()


def log_of(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def write(storage: SqliteRuntimeStorage, first: int, last: int) -> None:
    for number in range(first, last):
        keep(storage, run_row(f"run-{number:04}"))


def test_a_coordinator_that_goes_on_has_room_in_the_log(storage: SqliteRuntimeStorage, file: Path) -> None:
    storage.claim_coordinator("me")
    write(storage, 0, wal.ROOM_AFTER_COMMITS - 1)
    assert log_of(file).stat().st_size < wal.ROOM_BYTES
    write(storage, wal.ROOM_AFTER_COMMITS, wal.ROOM_AFTER_COMMITS + 5)
    assert log_of(file).stat().st_size == wal.ROOM_BYTES
    write(storage, 1000, 1100)
    assert log_of(file).stat().st_size == wal.ROOM_BYTES


def test_who_is_no_coordinator_leaves_the_log_alone(storage: SqliteRuntimeStorage, file: Path) -> None:
    write(storage, 0, wal.ROOM_AFTER_COMMITS + 5)
    assert log_of(file).stat().st_size < wal.ROOM_BYTES


@pytest.mark.parametrize("runs", [wal.ROOM_AFTER_COMMITS + 5, 700])
def test_what_a_killed_process_committed_is_found_in_the_log(
    storage: SqliteRuntimeStorage, file: Path, tmp_path: Path, runs: int
) -> None:
    """`runs`: before and after the log was begun anew."""
    storage.claim_coordinator("me")
    write(storage, 0, runs)
    copy = tmp_path / "copy.db"
    shutil.copy(log_of(file), log_of(copy))  # what is on disk; the index of the log is gone with its process
    shutil.copy(file, copy)
    with sqlite3.connect(copy) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found.execute("SELECT count(*) FROM fuseline_runs").fetchone() == (runs,)
    found.close()


def test_another_process_reads_and_writes_over_the_room(storage: SqliteRuntimeStorage, file: Path) -> None:
    storage.claim_coordinator("me")
    write(storage, 0, wal.ROOM_AFTER_COMMITS + 1)
    other = SqliteRuntimeStorage(file)
    write(other, 500, 600)
    write(storage, 600, 700)
    assert len(other.list_runs(limit=1000)) == len(storage.list_runs(limit=1000)) == 233
    other.close()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_is_full_keeps_its_room_for_commits(
    storage: SqliteRuntimeStorage, file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(descriptor: int, *rest: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    storage.claim_coordinator("me")
    write(storage, 0, wal.ROOM_AFTER_COMMITS + 5)
    assert log_of(file).stat().st_size < wal.ROOM_BYTES
    assert len(storage.list_runs(limit=1000)) == wal.ROOM_AFTER_COMMITS + 5


def test_a_link_to_the_file_finds_its_log(file: Path, tmp_path: Path) -> None:
    SqliteRuntimeStorage(file).close()
    link = tmp_path / "link.db"
    link.symlink_to(file)
    storage = SqliteRuntimeStorage(link)
    storage.claim_coordinator("me")
    write(storage, 0, wal.ROOM_AFTER_COMMITS + 5)
    assert log_of(file).stat().st_size == wal.ROOM_BYTES
    storage.close()


def test_without_a_log_nothing_is_made(tmp_path: Path) -> None:
    wal.make_room(str(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []

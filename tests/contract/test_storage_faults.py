"""P4, P7: what a killed process, or a database that goes and comes back, leaves behind: all of a transaction or nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuseline.errors import SecondCoordinatorError, StorageUnavailableError
from fuseline.storage import PostgresRuntimeStorage, SqliteRuntimeStorage
from fuseline.storage.sql import open_storage, upgrade
from fuseline.storage.transaction import Wanted
from fuseline.testing.servers import PrivatePostgres
from fuseline.testing.storage_cases import keep, run_row, step_row

pytestmark = pytest.mark.fault

PATIENCE_SECONDS = 60.0

# Writes a run in three statements and stops before the last, or before the commit, or after it, to be killed there.
VICTIM = """
import sys, time
from fuseline.storage.sql import open_storage
from fuseline.storage.transaction import Changes
from fuseline.testing.storage_cases import run_row, step_row

url, where = sys.argv[1:]
storage = open_storage(url)
storage.claim_coordinator("victim")

def stop(place):
    if place == where:
        print(place, flush=True)
        time.sleep(600)

with storage.transaction() as tx:
    tx.save(Changes([run_row("i")], inputs={"i": {}}))
    stop("between")
    tx.save(Changes(steps=[("i", step_row(f"s{n}", result="x" * 5000)) for n in range(100)]))
    stop("before the commit")
stop("after the commit")
"""


@contextmanager
def victim(url: str, where: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come to that place."""
    process = subprocess.Popen([sys.executable, "-c", VICTIM, url, where], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == where
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    found: str = request.getfixturevalue("fresh_postgres_url")
    upgrade(found)
    return found


@pytest.mark.parametrize("where", ["between", "before the commit", "after the commit"])
def test_of_a_killed_process_all_is_there_or_nothing(url: str, where: str) -> None:
    with victim(url, where) as process:
        process.kill()
        process.wait(PATIENCE_SECONDS)
    storage = open_storage(url)
    stored = storage.read_run("i")
    if where == "after the commit":
        assert stored is not None
        assert len(stored.steps) == 100
    else:
        assert stored is None
        assert storage.list_queued() == []
        keep(storage, run_row("i"), i=[step_row("s0")])  # and nothing is locked
    storage.close()


def test_a_second_coordinator_on_sqlite_has_to_wait_for_the_death_of_the_first(tmp_path: Path) -> None:
    storage = SqliteRuntimeStorage(tmp_path / "runs.db")
    with victim(f"sqlite:///{tmp_path}/runs.db", "between") as process:
        with pytest.raises(SecondCoordinatorError, match=f"victim, pid {process.pid}"):
            storage.claim_coordinator("heir")
        assert storage.list_runs() == []  # looking is allowed
        process.kill()
        process.wait(PATIENCE_SECONDS)
        storage.claim_coordinator("heir")
    keep(storage, run_row("i"))
    storage.close()


def when_it_answers(storage: PostgresRuntimeStorage) -> None:
    """Until a call succeeds; those before may fail, and only in the one way that says: later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            storage.next_due()
            return
        except StorageUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_database_that_goes_in_a_transaction_and_comes_back(
    postgres_server: PrivatePostgres, how: str
) -> None:
    name = f"goes_{how}"
    url = postgres_server.create_database(name)
    storage = PostgresRuntimeStorage(url, upgrade=True)
    keep(storage, run_row("before"))
    idle = storage.transaction()  # a second connection in the pool, which breaks unused
    with idle:
        storage.next_due()

    def write() -> None:
        with storage.transaction() as tx:
            tx.load(Wanted({"before"}))
            if how == "kill":
                postgres_server.kill()
            else:
                postgres_server.stop()
            tx.load(Wanted(inputs={"before"}))

    with pytest.raises(StorageUnavailableError):
        write()
    with pytest.raises(StorageUnavailableError):
        storage.next_due()  # it is away, and this says so at once
    postgres_server.start()
    when_it_answers(storage)
    assert storage.read_run("before") is not None
    keep(storage, run_row("after"))
    storage.close()

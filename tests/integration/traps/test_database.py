"""Known traps of the database: two coordinators on one file, a full disk, tables of another version (P4, P7)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.errors import DeadlineExceededError, MigrationError, StorageUnavailableError
from fuseline.model import RunStatus
from fuseline.storage import SqliteRuntimeStorage
from fuseline.storage.sql import upgrade
from fuseline.storage.sql.tables import VERSION_TABLE
from fuseline.testing.flows import graph
from tests.integration.cli.harness import Fuseline
from tests.integration.traps.parties import success, take
from tests.integration.traps.processes import SECONDS, coordinator_process

FLOW = graph("ingest", {"a": ["b"]})


@contextmanager
def client(program: Fuseline, call_seconds: float = SECONDS) -> Iterator[AmqpBroker]:
    url, prefix = program.environment["FUSELINE_AMQP_URL"], program.environment["FUSELINE_PREFIX"]
    with AmqpBroker(url, topology=Topology(prefix), call_seconds=call_seconds) as broker:
        yield broker


# ---- two coordinators on one SQLite file


def test_a_second_sqlite_coordinator_refuses_and_takes_over_at_once_after_kill_9(
    on_rabbitmq: Fuseline,
) -> None:
    """P5: the lock is the operating system's and goes with its process, so nobody has to remove a file."""
    with coordinator_process(on_rabbitmq) as first, client(on_rabbitmq) as broker:
        run = broker.dispatch_workflow(FLOW)
        second = on_rabbitmq.process("coordinator")
        assert second.returncode == 5
        assert "second_coordinator: " in second.stderr
        assert f"pid {first.pid}" in second.stderr
        assert "PostgreSQL" in second.stderr  # what to do for several
        assert broker.get_run(run).state is RunStatus.RUNNING  # the first one never noticed
        first.kill()
        with coordinator_process(on_rabbitmq):
            assert broker.get_run(run).state is RunStatus.RUNNING


# ---- a full disk


def test_a_full_disk_makes_the_coordinator_wait_and_loses_nothing_that_was_acknowledged(
    on_rabbitmq: Fuseline,
) -> None:
    """P4, P7: no file of the coordinator's process may grow, as on a full disk; then there is room again."""
    with coordinator_process(on_rabbitmq) as daemon, client(on_rabbitmq) as broker:
        worker = broker.register_worker([FLOW])
        runs = [broker.dispatch_workflow(FLOW) for _ in range(3)]
        steps = [take(broker, worker) for _ in runs]
        _, most = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, most))

        for step in steps:
            broker.report_step(worker, success(step))  # acknowledged: RabbitMQ has it
        for _ in range(4):
            said = daemon.wait_for("storage is away")
            assert "fuseline.db" in said
        # A read succeeds all the while, and is no sign of recovery: it waits longer each time, and says so once a time.
        assert not any("storage is back" in line for line in daemon.lines)
        with (
            client(on_rabbitmq, call_seconds=1.0) as hurried,
            pytest.raises((StorageUnavailableError, DeadlineExceededError)),
        ):
            hurried.dispatch_workflow(FLOW)  # not acknowledged
        assert daemon.process.poll() is None

        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (most, most))
        for _ in runs:
            broker.report_step(worker, success(take(broker, worker)))
        for run in runs:
            view = broker.wait(run, SECONDS)
            assert view.state is RunStatus.SUCCEEDED
            assert [step.attempt for step in view.steps.values()] == [1, 1]
        assert any("storage is back" in line for line in daemon.lines) or daemon.wait_for("storage is back")


# ---- tables of another version


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/runs.db"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    upgrade(url)
    return url


def at_revision(url: str, revision: str) -> dict[str, list[tuple[object, ...]]]:
    """Call the tables' revision so; everything in the database."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))
    engine.dispose()
    return everything(url)


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found = {
            table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            for table in inspect(connection).get_table_names()
        }
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("revision", "advice"), [("9999", "upgrade Fuseline"), ("0000", "fuseline db upgrade|right database")]
)
def test_a_database_ahead_of_the_code_or_behind_it_is_told_and_not_touched(
    fuseline: Fuseline, database_url: str, revision: str, advice: str
) -> None:
    """P7: whatever opens it says what to do about it, before anything is half done."""
    before = at_revision(database_url, revision)
    for command in (["coordinator"], ["serve", "--embedded", "--port", "0"], ["db", "check"]):
        result = fuseline(*command, "--database-url", database_url)
        told = result.stdout + result.stderr
        assert result.returncode == (1 if command[0] == "db" else 5), told
        assert any(one in told for one in advice.split("|")), told
        assert revision in told
        assert "Traceback" not in told
    doctor = fuseline("doctor", "--json", FUSELINE_DATABASE_URL=database_url)
    assert any(one in doctor.stdout for one in advice.split("|"))
    assert everything(database_url) == before


def test_tables_are_not_migrated_under_a_coordinator_that_works_with_them(tmp_path: Path) -> None:
    """A newer program that opens a SQLite file migrates it; not while one of before has it."""
    url = f"sqlite:///{tmp_path}/runs.db"
    at_work = SqliteRuntimeStorage(url)
    at_work.claim_coordinator("older")
    before = at_revision(url, "0000")
    for act in (upgrade, SqliteRuntimeStorage):
        with pytest.raises(MigrationError, match=r"older, pid .*: stop it, then fuseline db upgrade"):
            act(url)
    assert everything(url) == before
    at_work.close()
    with pytest.raises(MigrationError, match="right database"):  # the lock is free; no version ever had 0000
        upgrade(url)

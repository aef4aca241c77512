"""Known trap: a database one migration behind the code (P4, P7): told, migrated as one, and its runs go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import MetaData, create_engine, select

from fuseline.clock import SystemClock
from fuseline.engine.events import StepReported
from fuseline.errors import MigrationError
from fuseline.ledger import Dispatch, Ledger, Occurrence
from fuseline.model import RunStatus, Status, StepReport
from fuseline.storage import SqliteRuntimeStorage
from fuseline.storage.migrations import running
from fuseline.storage.sql import check, current, open_storage
from fuseline.storage.sql.tables import REVISION, metadata
from fuseline.testing.flows import graph
from tests.integration.cli.harness import Fuseline
from tests.integration.traps.parties import success, take
from tests.integration.traps.processes import SECONDS, coordinator_process
from tests.integration.traps.test_database import client, everything

BEFORE = "0001"
FLOW = graph("ingest", {"a": ["b"]})
RUN = "begun before"


@pytest.fixture(params=["sqlite", "postgresql"])
def older_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Tables as the first migration alone makes them, with a run in them whose second step is queued."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/older.db"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    now = f"sqlite:///{tmp_path}/now.db"
    storage = SqliteRuntimeStorage(now)
    ledger = Ledger(storage, SystemClock())
    ledger.register([FLOW])
    ledger.apply([Dispatch(FLOW.workflow_id, FLOW.version, RUN)])
    ledger.apply([Occurrence(RUN, StepReported("a", 1, Status.SUCCEEDED, result="done before"))])
    storage.close()
    source, older = create_engine(now), create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with source.connect() as reading, older.begin() as writing:
        command.upgrade(running.config(writing), BEFORE)
        tables = MetaData()
        tables.reflect(writing)
        for name, of_now in metadata.tables.items():
            rows = [dict(row) for row in reading.execute(select(of_now)).mappings()]
            if rows:
                known = tables.tables[name]
                kept = [{key: row[key] for key in row if key in known.columns} for row in rows]
                writing.execute(known.insert(), kept)
    source.dispose()
    older.dispose()
    return url


def test_tables_one_migration_behind_are_told_and_not_touched(fuseline: Fuseline, older_url: str) -> None:
    """Looking changes nothing, and a PostgreSQL database is migrated by nobody who only wants to use it."""
    before = everything(older_url)
    advice = f"revision {BEFORE}, this version needs {REVISION}: fuseline db upgrade"
    with pytest.raises(MigrationError, match=advice):
        check(older_url)
    told = fuseline("db", "check", "--database-url", older_url)
    assert (told.returncode, advice in told.stderr) == (1, True), told.stderr
    if not older_url.startswith("sqlite"):
        with pytest.raises(MigrationError, match=advice):
            open_storage(older_url)
        for refused in (["coordinator"], ["serve", "--embedded", "--port", "0"]):
            result = fuseline(*refused, "--database-url", older_url)
            assert (result.returncode, advice in result.stderr) == (5, True), result.stderr
    assert everything(older_url) == before


def test_a_run_from_before_a_migration_goes_on_after_it(on_rabbitmq: Fuseline, older_url: str) -> None:
    """A coordinator migrates a SQLite file by itself; and what the migration brought is there for new runs."""
    on_rabbitmq.environment["FUSELINE_DATABASE_URL"] = older_url
    if not older_url.startswith("sqlite"):
        assert on_rabbitmq("db", "upgrade").returncode == 0
    with coordinator_process(on_rabbitmq), client(on_rabbitmq) as broker:
        worker = broker.register_worker([FLOW])
        second = StepReport(
            workflow_id=FLOW.workflow_id,
            instance_id=RUN,
            step_name="b",
            state=Status.SUCCEEDED,
            result="done",
        )
        broker.report_step(worker, second)
        view = broker.wait(RUN, SECONDS)
        assert view.state is RunStatus.SUCCEEDED
        assert {name: step.result for name, step in view.steps.items()} == {"a": "done before", "b": "done"}
        failing = broker.dispatch_workflow(FLOW)
        step = take(broker, worker)
        assert step.instance_id == failing
        broker.report_step(worker, success(step).model_copy(update={"state": Status.FAILED, "result": None}))
        assert broker.wait(failing, SECONDS).state is RunStatus.FAILED
        assert [letter.instance_id for letter in broker.list_dead_letters()] == [failing]
    assert current(older_url) == REVISION

"""A batch takes as many statements as a lone report, whatever the number of runs and steps in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fuseline.clock import ManualClock
from fuseline.engine.events import StepClaimed, StepReported
from fuseline.ledger import Dispatch, Ledger, Occurrence
from fuseline.model.status import Status
from fuseline.storage import PostgresRuntimeStorage, SqliteRuntimeStorage
from fuseline.storage.sql import SqlRuntimeStorage
from fuseline.storage.sql.tables import metadata
from fuseline.testing.flows import graph

CHAIN = graph("chain", {"a": ["b"], "b": ["c"]})
JOIN = graph("join", {"a": ["c"], "b": ["c"], "c": ["d"]})


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlRuntimeStorage]:
    made: SqlRuntimeStorage
    if request.param == "sqlite":
        made = SqliteRuntimeStorage(tmp_path / "runs.db")
    else:
        url = request.getfixturevalue("postgres_url")
        made = PostgresRuntimeStorage(url, upgrade=True)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {', '.join(metadata.tables)}")
    yield made
    made.close()


def cost(storage: SqlRuntimeStorage, ledger: Ledger, items: list[Dispatch | Occurrence]) -> tuple[int, int]:
    """(statements, commits) that applying them takes."""
    before = storage.statements, storage.commits
    outcomes = ledger.apply(items)
    assert all(outcome.error is None for outcome in outcomes)
    return storage.statements - before[0], storage.commits - before[1]


def test_a_batch_costs_what_a_lone_report_costs_or_a_few_statements(storage: SqlRuntimeStorage) -> None:
    ledger = Ledger(storage, ManualClock())
    ledger.register([CHAIN, JOIN])
    ledger.apply([Dispatch("chain", "1", "first")])  # of a workflow that is in use
    # The row: how many statements; more than these are a step backwards in speed (P6).
    expected = {"dispatch": 4, "claim": 3, "chain": 4, "join": 6, "last": 7}
    lone = {"dispatch": 1, "claim": 1, "chain": 1} if isinstance(storage, PostgresRuntimeStorage) else {}
    found: dict[int, dict[str, int]] = {}
    for size in (1, 20, 200):
        chains = [f"chain-{size}-{n}" for n in range(size)]
        joins = [f"join-{size}-{n}" for n in range(size)]
        batches: dict[str, list[Dispatch | Occurrence]] = {
            "dispatch": [Dispatch("chain", "1", i, {"x": 1}) for i in chains],
            "claim": [Occurrence(i, StepClaimed("a", 1, "worker")) for i in chains],
            "chain": [Occurrence(i, StepReported("a", 1, Status.SUCCEEDED)) for i in chains],
        }
        ledger.apply([Dispatch("join", "1", i) for i in joins])
        batches["join"] = [Occurrence(i, StepReported("a", 1, Status.SUCCEEDED)) for i in joins]
        batches["last"] = [Occurrence(i, StepReported("b", 1, Status.SUCCEEDED)) for i in joins]
        found[size] = {}
        for name, items in batches.items():
            statements, commits = cost(storage, ledger, items)
            found[size][name] = statements
            assert commits == 1
    assert found[20] == found[200]
    assert found[1] == found[200] | lone
    assert all(found[200][name] <= limit for name, limit in expected.items()), found[200]


def test_timers_cost_the_same_however_many_run_out(storage: SqlRuntimeStorage) -> None:
    clock = ManualClock()
    ledger = Ledger(storage, clock)
    ledger.register([CHAIN])
    found = []
    for size in (1, 200):
        ledger.apply([Dispatch("chain", "1", f"{size}-{n}") for n in range(size)])
        clock.advance(10_000)
        before = storage.statements
        assert len(ledger.apply_due(500)) >= size
        found.append(storage.statements - before)
    assert found[0] == found[1]


def test_registering_costs_the_same_however_many_versions(storage: SqlRuntimeStorage) -> None:
    before = storage.statements
    with storage.transaction() as tx:
        tx.load_schemas([(f"w{n}", "1") for n in range(100)])
    assert storage.statements - before == 1

"""The statements that a step costs go by an index, and touch no more the more runs there are (P6).

`make bench` checks the same at a million runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.sql.postgres import _statements
from tests.unit.storage.filling import fill, plan_nodes
from tests.unit.storage.hot import HOT, OF_KEYS, complaints, explain, generic_plan, reads_whole

RUNS = 20_000


def test_the_hot_statements_go_by_an_index(fresh_postgres_url: str) -> None:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    fill(fresh_postgres_url, RUNS)
    found = {name: complaints(explain(storage, name)) for name in HOT}
    storage.close()
    assert {name: told for name, told in found.items() if told} == {}


@contextmanager
def counted(url: str, runs: int) -> Iterator[psycopg.Connection[Any]]:
    """A connection of a storage's to a database with so many runs, in which PostgreSQL has just counted."""
    storage = PostgresRuntimeStorage(url, upgrade=True)
    if runs:
        fill(url, runs)
    with closing(storage), closing(storage.engine.raw_connection()) as connection:
        driver = cast("psycopg.Connection[Any]", connection.driver_connection)
        driver.autocommit = True
        driver.execute("VACUUM ANALYZE")
        yield driver


@pytest.mark.parametrize("runs", [0, 1, 5, 50])
def test_a_plan_made_while_the_tables_were_counted_and_found_small_is_one_for_large_ones(
    fresh_postgres_url: str, runs: int
) -> None:
    """P6, P8: it is kept while they grow. Who joins then reads each of a million rows for each of a hundred keys."""
    with counted(fresh_postgres_url, runs) as driver:
        for name in OF_KEYS:
            nodes = generic_plan(driver, getattr(_statements(), name))
            assert [node for node in nodes if reads_whole(node)] == [], name


def test_a_join_with_a_small_table_would_read_it_whole(fresh_postgres_url: str) -> None:
    """The check can fail: that is what a plain join comes to."""
    joined = replace(
        _statements().load_steps,
        text="SELECT s.* FROM unnest(%(firsts)s::VARCHAR[], %(seconds)s::VARCHAR[]) AS k(i, n) "
        "JOIN fuseline_steps s ON s.instance_id = k.i AND s.name = k.n",
    )
    with counted(fresh_postgres_url, 0) as driver:
        assert any(reads_whole(node) for node in generic_plan(driver, joined))


def test_a_table_that_is_read_whole_is_seen(fresh_postgres_url: str) -> None:
    """The check can fail: without the setting and the index that the statements count on, it does."""
    storage = PostgresRuntimeStorage(f"{fresh_postgres_url}?options=-c%20enable_seqscan%3Don", upgrade=True)
    fill(fresh_postgres_url, RUNS)
    assert not complaints(explain(storage, "list_queued"))
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("DROP INDEX fuseline_steps_queued")
        connection.exec_driver_sql("ALTER TABLE fuseline_steps DROP CONSTRAINT fuseline_steps_pkey")
        connection.commit()
    found = explain(storage, "list_queued")
    storage.close()
    assert any(node["Node Type"] == "Seq Scan" for node in plan_nodes(found["Plan"]))
    assert complaints(found)

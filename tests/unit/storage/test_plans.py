"""The statements that a step costs go by an index, and touch no more the more runs there are (P6).

`make bench` checks the same at a million runs.
"""

from __future__ import annotations

from fuseline.storage import PostgresRuntimeStorage
from tests.unit.storage.filling import fill, plan_nodes
from tests.unit.storage.hot import HOT, complaints, explain

RUNS = 20_000


def test_the_hot_statements_go_by_an_index(fresh_postgres_url: str) -> None:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    fill(fresh_postgres_url, RUNS)
    found = {name: complaints(explain(storage, name)) for name in HOT}
    storage.close()
    assert {name: told for name, told in found.items() if told} == {}


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

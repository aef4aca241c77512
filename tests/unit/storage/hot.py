"""How PostgreSQL executes the statements that a step costs, on a database that has many runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Table

from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.sql.pipelining import _numbered
from fuseline.storage.sql.statements import Statement
from fuseline.storage.sql.tables import joins, runs, steps
from tests.unit.storage.filling import OPEN_OF, TABLES, plan_nodes

OPEN = [f"run-{number * OPEN_OF:09}" for number in range(1, 6)]
_KEYS = {"firsts": OPEN, "seconds": ["s3"] * len(OPEN)}
_ONE_RUN = {"instance_id": OPEN[0], "status": "running", "open_steps": 1, "replays": 0}
_NEVER_CHANGED = {"workflow_id": "w", "version": "1", "created_at": 1.0}
_STEP = {
    "instance_id": OPEN[0],
    "name": "s3",
    "status": "succeeded",
    "attempt": 1,
    "failures": 0,
    "losses": 0,
}
_SWAP = {
    **{f"run_{name}": value for name, value in _ONE_RUN.items()},
    **dict.fromkeys(
        ("run_created_at", "run_due_at", "step_holder", "step_queued_at", "step_started_at", "step_due_at")
    ),
    **{f"step_{name}": value for name, value in _STEP.items()},
    **{
        f"{prefix}_{column.name}": None
        for prefix, table in (("set", steps), ("header", runs))
        for column in table.columns
    },
    "rows": json.dumps([_STEP | {"name": "s4"}]),
}
_BEGIN = {
    **{f"run_{column.name}": None for column in runs.columns},
    **{f"run_{name}": value for name, value in (_ONE_RUN | _NEVER_CHANGED).items()},
    "input_instance_id": OPEN[0],
    "input_body": "{}",
    "rows": json.dumps([_STEP]),
}
_JOIN = {"name": "s2", "unresolved": 0, "met": 2, "failed": 0, "fired": True, "groups": "{}"}


def _row(table: Table, row: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {column.name: [row.get(column.name)] for column in table.columns}


HOT: Mapping[str, Mapping[str, Any]] = {
    "load_runs_locked": {"ids": OPEN},
    "load_runs": {"ids": OPEN},
    "load_inputs": {"ids": OPEN},
    "load_steps": _KEYS,
    "load_steps_locked": _KEYS,
    "load_joins": {**_KEYS, "seconds": ["s2"] * len(OPEN)},
    "load_all_steps": {"ids": OPEN},
    "load_all_joins": {"ids": OPEN},
    "put_runs": _row(runs, _ONE_RUN | _NEVER_CHANGED),
    "put_steps": _row(steps, _STEP),
    "put_joins": _row(joins, {"instance_id": OPEN[0], **_JOIN}),
    "swap_steps": _SWAP,
    "swap_all": _SWAP,
    "begin_run": _BEGIN,
    "next_due": {},
    "lock_due_runs": {"now": 1.0, "limit": 500},
    "lock_due_steps": {"now": 1.0, "limit": 500},
    "due_steps": {"now": 1.0, "limit": 500, "ids": OPEN},
    "due_runs": {"now": 1.0, "limit": 500, "ids": OPEN},
    "list_queued": {"after_id": "", "after_name": "", "limit": 500},
    "lock_old_runs": {"before": 0.0, "limit": 100},
}
"""By the statement's name: what it is executed with, in the way of a batch of a few reports."""

MAX_BLOCKS = 100
"""Blocks of 8 KiB that one of them may touch, however many runs there are, beside one for each row that it returns: rows of
old runs lie far apart, and where a million runs are recorded a thousand are open."""


def explain(storage: PostgresRuntimeStorage, name: str) -> dict[str, Any]:
    """The statement is executed, and rolled back; what EXPLAIN (ANALYZE, BUFFERS) says of it."""
    statement: Statement = getattr(storage._sql, name)
    connection = storage.engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}", {**HOT[name], **statement.fixed}
        )
        row = cursor.fetchone()
        connection.rollback()
    finally:
        connection.close()
    assert row is not None
    found: dict[str, Any] = row[0][0]
    return found


OF_KEYS = (
    *("load_runs_locked", "load_runs", "load_inputs", "load_steps", "load_steps_locked", "load_joins"),
    *("load_all_steps", "load_all_joins", "put_runs", "put_steps", "put_joins", "swap_steps", "swap_all"),
)
"""Those that read and write rows by their keys, and have no reason to look at any other."""


def generic_plan(connection: psycopg.Connection[Any], statement: Statement) -> list[dict[str, Any]]:
    """The nodes of the plan that is kept for the statement, whatever it is executed with."""
    query, names = _numbered(statement.text)
    connection.execute(b"PREPARE one AS " + query)
    given = sql.SQL(", ").join(
        sql.Literal("{}" if name in ("ids", "firsts", "seconds") else None) for name in names
    )
    row = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE one ({})").format(given)).fetchone()
    connection.execute("DEALLOCATE one")
    assert row is not None
    return list(plan_nodes(row[0][0]["Plan"]))


def reads_whole(node: Mapping[str, Any]) -> bool:
    """Whether it reads all of a table, or of an index."""
    reads = node["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan")
    return reads and "Index Cond" not in node


def complaints(found: dict[str, Any]) -> list[str]:
    """What is wrong with a plan: a table that is read whole, or too many blocks."""
    told = []
    for node in plan_nodes(found["Plan"]):
        kind = node["Node Type"]
        if (kind == "Seq Scan" and node["Relation Name"] in TABLES) or kind in ("Hash Join", "Merge Join"):
            told.append(f"{kind} {node.get('Relation Name', '')}".strip())
    touched = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
    if touched > MAX_BLOCKS + found["Plan"]["Actual Rows"]:
        told.append(f"{touched} blocks")
    return told


def seconds_of(storage: PostgresRuntimeStorage, name: str, times: int = 20) -> float:
    """The fastest of some executions."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        explain(storage, name)
        taken.append(time.perf_counter() - began)
    return min(taken)

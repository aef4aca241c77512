"""A database with many runs in it, as PostgreSQL itself makes them: fast enough for a million."""

from __future__ import annotations

from typing import Any

import psycopg

OPEN_OF = 1000
"""One run of so many is open; the others ended some time ago."""
STEPS_A_RUN = 3

_RUNS = """
    INSERT INTO fuseline_runs
        (instance_id, workflow_id, version, status, created_at, open_steps, due_at, finished_at)
    SELECT 'run-' || lpad(n::text, 9, '0'), 'w' || n % 50, '1',
           CASE WHEN n % %(open)s = 0 THEN 'RUNNING' ELSE 'SUCCEEDED' END, n,
           CASE WHEN n % %(open)s = 0 THEN 1 ELSE 0 END,
           CASE WHEN n % %(open)s = 0 THEN extract(epoch FROM now()) + 1e6 + n END,
           CASE WHEN n % %(open)s = 0 THEN NULL ELSE n + 10 END
    FROM generate_series(1, %(runs)s) AS n
"""
_STEPS = """
    INSERT INTO fuseline_steps
        (instance_id, name, status, attempt, failures, losses, queued_at, finished_at, due_at, result)
    SELECT 'run-' || lpad(n::text, 9, '0'), 's' || s,
           CASE WHEN n % %(open)s = 0 AND s = %(steps)s THEN 'QUEUED' ELSE 'SUCCEEDED' END, 1, 0, 0, n,
           CASE WHEN n % %(open)s = 0 AND s = %(steps)s THEN NULL ELSE n + s END,
           CASE WHEN n % %(open)s = 0 AND s = %(steps)s THEN extract(epoch FROM now()) + 1e6 + n END, '{"a": "result"}'
    FROM generate_series(1, %(runs)s) AS n, generate_series(1, %(steps)s) AS s
"""
_JOINS = """
    INSERT INTO fuseline_joins (instance_id, name, unresolved, met, failed, fired, groups)
    SELECT 'run-' || lpad(n::text, 9, '0'), 's2', 1, 1, 0, n % %(open)s <> 0, '{}'
    FROM generate_series(1, %(runs)s) AS n
"""
_INPUTS = """
    INSERT INTO fuseline_inputs (instance_id, body)
    SELECT 'run-' || lpad(n::text, 9, '0'), '{"x": 1}' FROM generate_series(1, %(runs)s) AS n
"""
TABLES = ("fuseline_runs", "fuseline_steps", "fuseline_joins", "fuseline_inputs")


def fill(url: str, runs: int) -> None:
    """Runs `run-000000001` and so on in an upgraded, empty database, with three steps and a join each."""
    numbers = {"open": OPEN_OF, "runs": runs, "steps": STEPS_A_RUN}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement in (_RUNS, _STEPS, _JOINS, _INPUTS):
            connection.execute(statement.replace("% %(", "%% %(").replace("% 50", "%% 50"), numbers)
        for table in TABLES:
            connection.execute(f"VACUUM ANALYZE {table}")


def plan_nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A node of EXPLAIN's JSON and all below it."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in plan_nodes(child))]

"""Waiting for PostgreSQL to be where a test wants it."""

from __future__ import annotations

import psycopg


def until_it_waits(url: str) -> None:
    """Until a statement of somebody waits for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1_000_000):
            found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            if found is not None and found[0]:
                return
    raise AssertionError("nobody waits")

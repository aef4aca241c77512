"""Faults of PostgreSQL: killed, restarted, sessions ended, rows locked."""

from __future__ import annotations

import time

import psycopg

from tests.fault.adversary.base import STORAGE_AWAY, Evidence, Fault, Stage


def _kill(stage: Stage) -> Evidence:
    stage.world.postgres.kill()
    stage.hold(0.0, 3.0)
    stage.world.postgres.start()
    return stage.logged(STORAGE_AWAY)


def _restart(stage: Stage) -> Evidence:
    stage.world.postgres.stop()
    stage.hold(0.0, 2.0)
    stage.world.postgres.start()
    return stage.logged(STORAGE_AWAY)


def _terminate(stage: Stage) -> Evidence:
    with psycopg.connect(stage.world.database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert ended is not None
    count = ended[0]
    logged = stage.logged(STORAGE_AWAY)
    return lambda: logged() or (f"{count} sessions ended" if count else None)


def _lock(stage: Stage) -> Evidence:
    """Longer, now and then, than the coordinators' lock timeout."""
    seconds = stage.random.uniform(2.0, 8.0)
    waiting = 0
    with psycopg.connect(stage.world.database_url) as connection:
        connection.execute(
            "SELECT 1 FROM fuseline_runs WHERE status = 'RUNNING' ORDER BY random() LIMIT 25 FOR UPDATE"
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stage.is_over(0.5):
            found = stage.world.progress.ask(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            waiting = max(waiting, 0 if found is None else found[0])
        connection.rollback()
    logged = stage.logged(STORAGE_AWAY)
    return lambda: logged() or (f"{waiting} sessions waited for the lock" if waiting else None)


FAULTS = [
    Fault("kill -9 and restart of PostgreSQL", _kill, 2),
    Fault("restart of PostgreSQL", _restart, 2),
    Fault("pg_terminate_backend of all sessions", _terminate, 3),
    Fault("rows of runs locked", _lock, 3),
]

"""The database's own history: a trigger writes down every row of runs, steps, joins and dead letters that is ever committed.

It knows nothing of Fuseline but four tables' names, and it cannot miss a change: it is part of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg

TABLES: Final = ("fuseline_runs", "fuseline_steps", "fuseline_joins", "fuseline_dead_letters")

_SETUP: Final = """
CREATE TABLE fault_audit (
  seq bigserial PRIMARY KEY, at double precision NOT NULL, tx bigint NOT NULL,
  what text NOT NULL, op text NOT NULL, instance_id text NOT NULL, name text, body jsonb NOT NULL);
CREATE INDEX ON fault_audit (instance_id, name);
CREATE FUNCTION fault_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE seen jsonb;
BEGIN
  IF TG_OP = 'DELETE' THEN seen := to_jsonb(OLD); ELSE seen := to_jsonb(NEW); END IF;
  INSERT INTO fault_audit (at, tx, what, op, instance_id, name, body) VALUES (
    extract(epoch from clock_timestamp()), txid_current(), TG_TABLE_NAME, TG_OP,
    seen->>'instance_id', seen->>'name', seen);
  RETURN NULL;
END $$;
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One row as one transaction left it. `table` is `runs`, `steps`, `joins` or `dead_letters`; `body` its columns."""

    seq: int
    at: float
    tx: int
    table: str
    op: str
    run: str
    name: str | None
    body: dict[str, Any]


def install(url: str) -> None:
    """Begin to write down, in a database that has its tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_SETUP.encode())
        for table in TABLES:
            connection.execute(
                f"CREATE TRIGGER fault AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION fault_note()".encode()
            )


def read_changes(url: str) -> Iterator[Change]:
    """All of it. Of one run it is in the order of the commits, for its row is locked by whoever changes it."""
    with psycopg.connect(url) as connection, connection.cursor(name="changes") as cursor:
        cursor.execute("SELECT seq, at, tx, what, op, instance_id, name, body FROM fault_audit ORDER BY seq")
        for seq, at, tx, what, op, run, name, body in cursor:
            yield Change(seq, at, tx, what.removeprefix("fuseline_"), op, run, name, body)


def read_tables(url: str) -> dict[str, list[dict[str, Any]]]:
    """The rows as they stand, by table, in one snapshot."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return {
            table.removeprefix("fuseline_"): [
                row for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM {table} t".encode())
            ]
            for table in TABLES
        }


class Progress:
    """What the database has got done, for who waits for it; reconnects by itself."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def ask(self, query: str, *arguments: Any) -> tuple[Any, ...] | None:
        """The one row that `query` gives; None while the database is away."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=3)
            return self._connection.execute(query.encode(), arguments).fetchone()
        except psycopg.Error:
            self.close()
            return None

    def last(self) -> int:
        """The number of the newest change; 0 without any, or while the database is away."""
        found = self.ask("SELECT coalesce(max(seq), 0) FROM fault_audit")
        return 0 if found is None else int(found[0])

    def ended_since(self, seq: int, at: float) -> tuple[float | None, float | None]:
        """When the first step and the first run ended after change `seq` and time `at`."""
        found = self.ask(
            "SELECT min(at) FILTER (WHERE what = 'fuseline_steps'), min(at) FILTER (WHERE what = 'fuseline_runs')"
            " FROM fault_audit WHERE seq > %s AND at > %s AND what <> 'fuseline_joins'"
            " AND body->>'status' NOT IN ('PENDING', 'QUEUED', 'RUNNING')",
            seq,
            at,
        )
        return (None, None) if found is None else (found[0], found[1])

    def runs(self) -> dict[str, int]:
        """How many runs there are of each status; empty while the database is away."""
        found = self.ask(
            "SELECT json_object_agg(status, n) FROM (SELECT status, count(*) n FROM fuseline_runs GROUP BY status) t"
        )
        return {} if found is None or found[0] is None else dict(found[0])

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

"""The floor's one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

_CREATE = """
    CREATE TABLE {table} (
        run integer, step integer, state text NOT NULL, result text, PRIMARY KEY (run, step)
    ) WITH (fillfactor = 70)
"""
_DONE = "UPDATE {table} SET state = 'done', result = %s WHERE run = %s AND step = %s AND state = 'open'"


class Table:
    """Steps of runs: written when a run is dispatched, changed when a step is done. Every call is one commit."""

    def __init__(self, url: str, name: str) -> None:
        self._connection = psycopg.connect(url)
        self._table = sql.Identifier(name)
        self._done = sql.SQL(_DONE).format(table=self._table).as_string(self._connection)
        self.statements = self.commits = 0

    def create(self) -> None:
        """An empty one."""
        self.drop()
        self._connection.execute(sql.SQL(_CREATE).format(table=self._table))
        self._connection.commit()

    def drop(self) -> None:
        """Remove it, if it is there."""
        self._connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table))
        self._connection.commit()

    def insert(self, steps: Iterable[tuple[int, int]]) -> None:
        """Rows of new runs: (run, step) each."""
        copy = sql.SQL("COPY {} (run, step, state) FROM STDIN").format(self._table)
        with self._connection.cursor() as cursor, cursor.copy(copy) as rows:
            for run, step in steps:
                rows.write_row((run, step, "open"))
        self._connection.commit()
        self.statements += 1
        self.commits += 1

    def done(self, results: Sequence[tuple[str, int, int]]) -> None:
        """Keep results: (JSON text, run, step) each."""
        with self._connection.cursor() as cursor:
            cursor.executemany(self._done, results)
        self._connection.commit()
        self.statements += len(results)
        self.commits += 1

    def count_done(self) -> int:
        """How many steps are done: to see that the work was done."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE state = 'done'").format(self._table)
        row = self._connection.execute(query).fetchone()
        self._connection.commit()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

"""What SQLite and PostgreSQL have in common: the reads, and a transaction over a session."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Engine

from fuseline.engine.state import RunRow, StepRow
from fuseline.errors import StorageUnavailableError
from fuseline.model.status import RunStatus
from fuseline.model.views import WorkerView
from fuseline.storage.base import LetterQuery, RuntimeStorage, StoredLetter, StoredRun
from fuseline.storage.sql import rows
from fuseline.storage.sql.session import Row, Session
from fuseline.storage.sql.statements import Statements
from fuseline.storage.sql.transaction import SqlTransaction, load_rows, to_schema
from fuseline.storage.transaction import Key, Loaded, StoredSchema, Transaction, Wanted

PURGED_ROWS = 10_000
"""Steps, and joins, that one transaction of a purge deletes at most."""


class SqlRuntimeStorage(RuntimeStorage):
    """A storage on a database. `statements` and `commits` count what it executed, roughly where threads share it."""

    def __init__(self, engine: Engine, statements: Statements) -> None:
        self.engine = engine
        self.statements = 0
        self.commits = 0
        self._sql = statements
        self._is_closed = False

    # ---- for SQLite and PostgreSQL

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Session]:
        """A session for reads alone."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Session]:
        """A session whose statements are committed at the end, or rolled back."""

    def _check_open(self) -> None:
        if self._is_closed:
            raise StorageUnavailableError("the storage is closed")

    # ---- the interface

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._writing() as session:
            yield SqlTransaction(session, self._sql)

    def read_rows(self, wanted: Wanted) -> Loaded:
        with self._reading() as session:
            return load_rows(session, self._sql, wanted, lock=False)

    def next_due(self) -> float | None:
        with self._reading() as session:
            due: float | None = session.all(self._sql.next_due)[0][0]
        return due

    def read_run(self, instance_id: str) -> StoredRun | None:
        with self._reading() as session:
            # The header first: one that says that the run has ended never comes with steps that have not.
            found = load_rows(
                session, self._sql, Wanted(runs={instance_id}, inputs={instance_id}), lock=False
            )
            run = found.runs.get(instance_id)
            if run is None:
                return None
            steps = [
                rows.to_step(row[1:]) for row in session.all(self._sql.load_all_steps, ids=[instance_id])
            ]
        return StoredRun(run, found.inputs.get(instance_id, {}), {step.name: step for step in steps})

    def read_run_row(self, instance_id: str) -> RunRow | None:
        return self.read_rows(Wanted(runs={instance_id})).runs.get(instance_id)

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRow]:
        given = {
            "workflow_id": workflow_id,
            "state": None if state is None else state.value,
            "before": before,
        }
        statement = self._sql.list_runs(*(value is not None for value in given.values()))
        asked = {name: value for name, value in given.items() if value is not None}
        with self._reading() as session:
            return [rows.to_run(row) for row in session.all(statement, limit=limit, **asked)]

    def list_dead_letters(self, query: LetterQuery) -> list[StoredLetter]:
        given = {
            "workflow_id": query.workflow_id,
            "instance_id": query.instance_id,
            "reason": query.reason,
            "state": query.state,
            "before": query.before,
        }
        asked = {name: str(value) for name, value in given.items() if value is not None}
        with self._reading() as session:
            found = session.all(self._sql.list_letters(*asked), limit=query.limit, **asked)
        return [_to_letter(row) for row in found]

    def read_dead_letter(self, letter_id: str) -> StoredLetter | None:
        with self._reading() as session:
            found = session.all(self._sql.read_letter, letter_id=letter_id)
        return _to_letter(found[0]) if found else None

    def list_queued(self, *, after: Key | None = None, limit: int = 1000) -> list[tuple[str, StepRow]]:
        after_id, after_name = after or ("", "")
        with self._reading() as session:
            found = session.all(self._sql.list_queued, after_id=after_id, after_name=after_name, limit=limit)
        return [(row[0], rows.to_step(row[1:])) for row in found]

    def list_schemas(self) -> list[StoredSchema]:
        with self._reading() as session:
            return [to_schema(row) for row in session.all(self._sql.list_schemas)]

    def list_workers(self) -> list[WorkerView]:
        with self._reading() as session:
            found = session.all(self._sql.list_workers)
        return [
            WorkerView.model_validate(rows.loads(body)).model_copy(update={"last_seen_at": seen})
            for _, seen, body in found
        ]

    def count_runs(self) -> dict[RunStatus, int]:
        with self._reading() as session:
            return {RunStatus(status): count for status, count in session.all(self._sql.count_runs)}

    def purge_runs(self, finished_before: float, limit: int = 100) -> int:
        while True:
            with self._writing() as session:
                found = session.all(self._sql.lock_old_runs, before=finished_before, limit=limit)
                ids = [row[0] for row in found]
                if not ids:
                    return 0
                # Steps and joins first, and the header with the last of them: what a crash leaves is found again.
                if self._delete_some(session, ids) < PURGED_ROWS:
                    session.run(self._sql.purge_inputs, ids=ids)
                    return session.run(self._sql.purge_runs, ids=ids)

    def _delete_some(self, session: Session, ids: list[str]) -> int:
        # Dead letters before all else: who replayed one now would set half a run going.
        if (letters := session.run(self._sql.purge_letters, ids=ids, limit=PURGED_ROWS)) == PURGED_ROWS:
            return letters
        both = (self._sql.purge_steps, self._sql.purge_joins)
        return max(session.run(statement, ids=ids, limit=PURGED_ROWS) for statement in both)

    def close(self) -> None:
        self._is_closed = True
        self.engine.dispose()


def _to_letter(row: Row) -> StoredLetter:
    return StoredLetter(row[0], row[4], row[5], rows.to_letter(row[1:]))

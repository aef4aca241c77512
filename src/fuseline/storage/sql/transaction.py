"""One transaction on a database: the rows of a batch, read and written with as many statements as for one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fuseline.engine.state import RunRow, StepRow
from fuseline.errors import StorageUnavailableError
from fuseline.model.recognised import recognised_text
from fuseline.model.schema import WorkflowSchema
from fuseline.model.views import WorkerView
from fuseline.storage.sql import rows
from fuseline.storage.sql.session import Row, Session
from fuseline.storage.sql.statements import Statements
from fuseline.storage.transaction import Changes, Due, Key, Loaded, StoredSchema, Transaction, Wanted


def load_rows(session: Session, statements: Statements, wanted: Wanted, *, lock: bool) -> Loaded:
    """The wanted rows that exist."""
    found = Loaded()
    # All are asked for before the first answer is read, the runs first: rows of a run are only read once it is locked.
    runs = steps = joins = inputs = _nothing
    if wanted.runs:
        load_runs = statements.load_runs_locked if lock else statements.load_runs
        runs = session.ask(load_runs, ids=sorted(wanted.runs))
    if wanted.steps:
        load_steps = statements.load_steps_locked if lock and wanted.lock_steps else statements.load_steps
        steps = session.ask_keys(load_steps, wanted.steps)
    if wanted.joins:
        joins = session.ask_keys(statements.load_joins, wanted.joins)
    if wanted.inputs:
        inputs = session.ask(statements.load_inputs, ids=sorted(wanted.inputs))
    for row in runs():
        found.runs[row[0]] = rows.to_run(row)
    _put_steps(found, steps())
    _put_joins(found, joins())
    for i, body in inputs():
        found.inputs[i] = rows.loads(body)
    if wanted.whole:
        whole = sorted(wanted.whole)
        _put_steps(found, session.all(statements.load_all_steps, ids=whole))
        _put_joins(found, session.all(statements.load_all_joins, ids=whole))
    if wanted.letters:
        for row in session.all(statements.load_letters, ids=sorted(wanted.letters)):
            letter = rows.to_letter(row[1:])
            found.letters.setdefault(row[0], {})[letter.key] = letter
    return found


def _nothing() -> list[Row]:
    return []


def _put_steps(found: Loaded, read: Iterable[Row]) -> None:
    for row in read:
        found.steps[row[0], row[1]] = rows.to_step(row[1:])


def _put_joins(found: Loaded, read: Iterable[Row]) -> None:
    for row in read:
        found.joins[row[0], row[1]] = rows.to_join(row[1:])


def to_schema(row: Row) -> StoredSchema:
    """A row of the registered versions."""
    _, _, registered_at, body = row
    return StoredSchema(recognised_text(body), registered_at)


class SqlTransaction(Transaction):
    """See `Transaction`."""

    def __init__(self, session: Session, statements: Statements) -> None:
        self._session = session
        self._statements = statements
        self._unregistered: set[tuple[str, str]] = set()
        self._headers: dict[str, RunRow] = {}

    def begin_commit(self) -> bool:
        return self._session.begin_commit()

    def load(self, wanted: Wanted) -> Loaded:
        found = load_rows(self._session, self._statements, wanted, lock=True)
        self._headers.update(found.runs)
        return found

    def save(self, changes: Changes) -> None:
        write, s = self._session.write, self._statements
        # In the order of their ids, whatever order they come in: two that insert the same runs must not wait for each other.
        runs = sorted(changes.runs, key=lambda run: run.instance_id)
        if fresh := [rows.run_values(run) for run in runs if run.is_new]:
            write(s.insert_runs, fresh)
        # Along a chain a header goes from one open step to one open step: nothing to write.
        known = [run for run in runs if not run.is_new and run != self._headers.get(run.instance_id)]
        if known:
            write(s.put_runs, [rows.run_values(run) for run in known])
        if changes.inputs:
            write(s.put_inputs, [(i, rows.dumps(value)) for i, value in changes.inputs.items()])
        if changes.steps:
            write(s.put_steps, [rows.step_values(i, step) for i, step in changes.steps])
        if changes.joins:
            write(s.put_joins, [rows.join_values(i, join) for i, join in changes.joins])
        if changes.letters:
            headers = self._headers | {run.instance_id: run for run in runs}
            of = [(headers[i], letter) for i, letter in changes.letters]
            write(
                s.put_letters,
                [rows.letter_values(run.instance_id, run.workflow_id, run.version, one) for run, one in of],
            )

    def take_due(self, now: float, limit: int) -> list[Due]:
        # First the runs, of which those locked elsewhere do not count towards the limit; then, as their rows may have
        # changed until the lock was ours, what is due of them.
        ids = {row[0] for row in self._session.all(self._statements.lock_due_runs, now=now, limit=limit)}
        ids |= {row[0] for row in self._session.all(self._statements.lock_due_steps, now=now, limit=limit)}
        if not ids:
            return []
        of = {"now": now, "limit": limit, "ids": sorted(ids)}
        found = [(row[-1], Due(row[0])) for row in self._session.all(self._statements.due_runs, **of)]
        found += [
            (due_at, Due(i, name, attempt, holder))
            for i, name, attempt, holder, due_at in self._session.all(self._statements.due_steps, **of)
        ]
        return [due for _, due in sorted(found, key=lambda one: one[0])][:limit]

    def take_queued(
        self, workflow_id: str, instance_id: str | None, limit: int = 1
    ) -> list[tuple[str, StepRow]]:
        s = self._statements
        statement = s.take_queued if instance_id is None else s.take_queued_of_run
        of_run = {} if instance_id is None else {"instance_id": instance_id}
        found = self._session.all(statement, workflow_id=workflow_id, limit=limit, **of_run)
        return [(row[0], rows.to_step(row[1:])) for row in found]

    def load_schemas(self, keys: Iterable[Key], *, to_change: bool = False) -> dict[Key, StoredSchema]:
        wanted = sorted(keys)
        s = self._statements
        statement = s.load_schemas_to_change if to_change else s.load_schemas
        found = {(row[0], row[1]): to_schema(row) for row in self._session.of_keys(statement, wanted)}
        self._unregistered.update(key for key in wanted if key not in found)
        return found

    def save_schema(self, schema: WorkflowSchema, now: float) -> None:
        s = self._statements
        row = (*schema.key, now, rows.dumps(schema.model_dump(mode="json")))
        # There was nothing to lock: if somebody else has registered the same meanwhile it is well, another graph is not.
        was_new = schema.key in self._unregistered
        written = self._session.write_one(s.put_same_schema if was_new else s.put_schema, row)
        if was_new and not written:
            raise StorageUnavailableError(
                f"workflow {schema.workflow_id!r} version {schema.version!r} was registered by another process just now"
            )
        self._unregistered.discard(schema.key)

    def save_worker(self, worker: WorkerView) -> None:
        body = rows.dumps(worker.model_dump(mode="json"))
        self._session.write(self._statements.put_workers, [(worker.worker_id, worker.last_seen_at, body)])

    def touch_workers(self, seen: Mapping[str, float]) -> None:
        if seen:
            self._session.write(self._statements.touch_workers, sorted(seen.items()))

    def delete_workers(self, worker_ids: Sequence[str]) -> None:
        if worker_ids:
            self._session.run(self._statements.delete_workers, ids=sorted(worker_ids))

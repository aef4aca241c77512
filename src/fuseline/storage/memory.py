"""A storage in this process's memory: for tests, demos and in-process runs. Nothing survives the process."""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from fuseline.engine.state import DeadLetter, JoinRow, LetterKey, RunRow, StepRow
from fuseline.errors import StorageUnavailableError
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.model.views import WorkerView
from fuseline.storage.base import LetterQuery, RuntimeStorage, StoredLetter, StoredRun
from fuseline.storage.transaction import Changes, Due, Key, Loaded, StoredSchema, Transaction, Wanted


class MemoryRuntimeStorage(RuntimeStorage):
    """Dictionaries under one lock. Rows are handed out as they are: whoever gets one copies it before changing it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._runs: dict[str, RunRow] = {}
        self._inputs: dict[str, dict[str, Any]] = {}
        self._steps: defaultdict[str, dict[str, StepRow]] = defaultdict(dict)
        self._joins: defaultdict[str, dict[str, JoinRow]] = defaultdict(dict)
        self._letters: defaultdict[str, dict[LetterKey, DeadLetter]] = defaultdict(dict)
        self._letter_keys: dict[str, tuple[str, LetterKey]] = {}  # by id
        self._schemas: dict[tuple[str, str], StoredSchema] = {}
        self._workers: dict[str, WorkerView] = {}
        self._timers: list[
            tuple[float, str, str]
        ] = []  # (due_at, instance_id, step or ""), some of them out of date

    def transaction(self) -> AbstractContextManager[Transaction]:
        return _MemoryTransaction(self)

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StorageUnavailableError("the storage is closed")
            yield

    def read_rows(self, wanted: Wanted) -> Loaded:
        with self._open():
            return _MemoryTransaction(self).load(wanted)

    def next_due(self) -> float | None:
        with self._open():
            while self._timers and not self._is_current(*self._timers[0]):
                heapq.heappop(self._timers)
            return self._timers[0][0] if self._timers else None

    def read_run(self, instance_id: str) -> StoredRun | None:
        with self._open():
            run = self._runs.get(instance_id)
            if run is None:
                return None
            return StoredRun(run, self._inputs.get(instance_id, {}), dict(self._steps.get(instance_id, {})))

    def read_run_row(self, instance_id: str) -> RunRow | None:
        with self._open():
            return self._runs.get(instance_id)

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRow]:
        with self._open():
            found = [
                run
                for run in self._runs.values()
                if (workflow_id is None or run.workflow_id == workflow_id)
                and (state is None or run.status is state)
                and (before is None or run.instance_id < before)
            ]
        return heapq.nlargest(limit, found, key=lambda run: run.instance_id)

    def list_dead_letters(self, query: LetterQuery) -> list[StoredLetter]:
        with self._open():
            ids = list(self._letters) if query.instance_id is None else [query.instance_id]
            found = [
                self._stored(i, letter)
                for i in ids
                if i in self._runs and query.workflow_id in (None, self._runs[i].workflow_id)
                for letter in self._letters.get(i, {}).values()
                if query.reason in (None, letter.reason)
                and query.state in (None, letter.state)
                and (query.before is None or letter.letter_id < query.before)
            ]
        return heapq.nlargest(query.limit, found, key=lambda one: one.letter.letter_id)

    def read_dead_letter(self, letter_id: str) -> StoredLetter | None:
        with self._open():
            if letter_id not in self._letter_keys:
                return None
            instance_id, key = self._letter_keys[letter_id]
            return self._stored(instance_id, self._letters[instance_id][key])

    def _stored(self, instance_id: str, letter: DeadLetter) -> StoredLetter:
        run = self._runs[instance_id]
        return StoredLetter(instance_id, run.workflow_id, run.version, letter)

    def list_queued(self, *, after: Key | None = None, limit: int = 1000) -> list[tuple[str, StepRow]]:
        with self._open():
            found = [
                (instance_id, row)
                for instance_id, rows in self._steps.items()
                for row in rows.values()
                if row.status is Status.QUEUED and (after is None or (instance_id, row.name) > after)
            ]
        return heapq.nsmallest(limit, found, key=lambda item: (item[0], item[1].name))

    def list_schemas(self) -> list[StoredSchema]:
        with self._open():
            return [self._schemas[key] for key in sorted(self._schemas)]

    def list_workers(self) -> list[WorkerView]:
        with self._open():
            return list(self._workers.values())

    def count_runs(self) -> dict[RunStatus, int]:
        with self._open():
            counts: dict[RunStatus, int] = {}
            for run in self._runs.values():
                counts[run.status] = counts.get(run.status, 0) + 1
            return counts

    def purge_runs(self, finished_before: float, limit: int = 100) -> int:
        with self._open():
            old = [
                run
                for run in self._runs.values()
                if run.status.is_terminal
                and run.finished_at is not None
                and run.finished_at < finished_before
            ]
            gone = heapq.nsmallest(limit, old, key=lambda run: run.finished_at or 0.0)
            for run in gone:
                for letter in self._letters.get(run.instance_id, {}).values():
                    self._letter_keys.pop(letter.letter_id, None)
                for rows in (self._runs, self._inputs, self._steps, self._joins, self._letters):
                    rows.pop(run.instance_id, None)
            return len(gone)

    def close(self) -> None:
        with self._lock:
            self._closed = True

    # ---- for the transaction

    def _is_current(self, due_at: float, instance_id: str, step: str) -> bool:
        row: StepRow | RunRow | None = self._runs.get(instance_id)
        if step:
            row = self._steps.get(instance_id, {}).get(step)
        return row is not None and row.due_at == due_at

    def _write(self, changes: Changes) -> None:
        for run in changes.runs:
            self._set_timer(self._runs.get(run.instance_id), run, run.instance_id, "")
            run.is_new = False
            self._runs[run.instance_id] = run
        self._inputs.update(changes.inputs)
        for instance_id, step in changes.steps:
            rows = self._steps[instance_id]
            self._set_timer(rows.get(step.name), step, instance_id, step.name)
            step.is_new = False
            rows[step.name] = step
        for instance_id, join in changes.joins:
            join.is_new = False
            self._joins[instance_id][join.name] = join
        for instance_id, letter in changes.letters:
            self._letters[instance_id][letter.key] = letter
            self._letter_keys[letter.letter_id] = instance_id, letter.key

    def _set_timer(
        self, old: RunRow | StepRow | None, new: RunRow | StepRow, instance_id: str, step: str
    ) -> None:
        if new.due_at is not None and (old is None or old.due_at != new.due_at):
            heapq.heappush(self._timers, (new.due_at, instance_id, step))


class _MemoryTransaction(Transaction):
    """Holds the storage's lock; writes come out at the commit, so that a failure before it leaves nothing behind."""

    def __init__(self, storage: MemoryRuntimeStorage) -> None:
        self._storage = storage
        self._changes: list[Changes] = []
        self._schemas: dict[tuple[str, str], StoredSchema] = {}
        self._workers: dict[str, WorkerView | None] = {}

    # Written out, as every event pays for it: a generator of `contextmanager` takes several times as long.
    def __enter__(self) -> Transaction:
        self._storage._lock.acquire()
        if self._storage._closed:
            self._storage._lock.release()
            raise StorageUnavailableError("the storage is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._storage._lock.release()

    def _commit(self) -> None:
        for changes in self._changes:
            self._storage._write(changes)
        self._storage._schemas.update(self._schemas)
        for worker_id, worker in self._workers.items():
            if worker is None:
                self._storage._workers.pop(worker_id, None)
            else:
                self._storage._workers[worker_id] = worker

    def load(self, wanted: Wanted) -> Loaded:
        s, found = self._storage, Loaded()
        for i in wanted.runs:
            if (run := s._runs.get(i)) is not None:
                found.runs[i] = run
        for key in wanted.steps:
            if (steps := s._steps.get(key[0])) is not None and (step := steps.get(key[1])) is not None:
                found.steps[key] = step
        for key in wanted.joins:
            if (joins := s._joins.get(key[0])) is not None and (join := joins.get(key[1])) is not None:
                found.joins[key] = join
        for i in wanted.whole:
            found.steps.update(((i, name), row) for name, row in s._steps.get(i, {}).items())
            found.joins.update(((i, name), row) for name, row in s._joins.get(i, {}).items())
        for i in wanted.inputs:
            if (inputs := s._inputs.get(i)) is not None:
                found.inputs[i] = inputs
        for i in wanted.letters:
            if i in s._letters:
                found.letters[i] = dict(s._letters[i])
        return found

    def save(self, changes: Changes) -> None:
        for run in changes.runs:
            if run.is_new and run.instance_id in self._storage._runs:
                raise StorageUnavailableError(f"run {run.instance_id} exists already", is_conflict=True)
        self._changes.append(changes)

    def take_due(self, now: float, limit: int) -> list[Due]:
        s = self._storage
        found: list[Due] = []
        kept = []
        seen: set[tuple[str, str]] = set()
        while s._timers and s._timers[0][0] <= now and len(found) < limit:
            timer = heapq.heappop(s._timers)
            _, instance_id, step = timer
            if not s._is_current(*timer) or (instance_id, step) in seen:
                continue
            seen.add((instance_id, step))
            kept.append(timer)  # until the decision moves it, the timer stands: the transaction may fail
            if step:
                row = s._steps[instance_id][step]
                found.append(Due(instance_id, step, row.attempt, row.holder))
            else:
                found.append(Due(instance_id))
        for timer in kept:
            heapq.heappush(s._timers, timer)
        return found

    def take_queued(
        self, workflow_id: str, instance_id: str | None, limit: int = 1
    ) -> list[tuple[str, StepRow]]:
        s = self._storage
        ids = s._runs if instance_id is None else [instance_id]
        found = [
            (i, row)
            for i in ids
            if i in s._runs and s._runs[i].workflow_id == workflow_id
            for row in s._steps.get(i, {}).values()
            if row.status is Status.QUEUED
        ]
        return heapq.nsmallest(limit, found, key=lambda one: (one[0], one[1].queued_at or 0.0, one[1].name))

    def load_schemas(
        self, keys: Iterable[tuple[str, str]], *, to_change: bool = False
    ) -> dict[tuple[str, str], StoredSchema]:
        known = self._storage._schemas | self._schemas
        return {key: known[key] for key in keys if key in known}

    def save_schema(self, schema: WorkflowSchema, now: float) -> None:
        old = self.load_schemas([schema.key]).get(schema.key)
        self._schemas[schema.key] = StoredSchema(schema, now if old is None else old.registered_at)

    def save_worker(self, worker: WorkerView) -> None:
        self._workers[worker.worker_id] = worker

    def touch_workers(self, seen: Mapping[str, float]) -> None:
        for worker_id, last_seen_at in seen.items():
            worker = self._workers.get(worker_id) or self._storage._workers.get(worker_id)
            if worker is not None:
                self._workers[worker_id] = worker.model_copy(update={"last_seen_at": last_seen_at})

    def delete_workers(self, worker_ids: Sequence[str]) -> None:
        self._workers.update(dict.fromkeys(worker_ids))

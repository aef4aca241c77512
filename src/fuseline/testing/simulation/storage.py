"""One database that all coordinators share, and each one's way to it, on which calls fail and answers get lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from fuseline.errors import StorageUnavailableError
from fuseline.storage.base import Changes, NotRemembered, Transaction, Wanted
from fuseline.storage.memory import MemoryRuntimeStorage
from fuseline.storage.recollection import RecalledTransaction, Recollection
from fuseline.testing.simulation.world import Process


class Database:
    """What survives every process.

    `is_up` False: every call fails. `failing`: the share of commits that fail. `lost_answers`: to how many of the next
    commits that change runs.
    """

    def __init__(self) -> None:
        self.rows = MemoryRuntimeStorage()
        self.is_up = True
        self.failing = 0.0
        self.lost_answers = 0


class Session(MemoryRuntimeStorage):
    """A coordinator's storage. All sessions have the same rows; the process may be killed before and after each commit.

    Each remembers what it wrote, as the one on PostgreSQL does, and is never shy to try it: the others write the same runs.
    """

    # What is the session's own lies in slots, everything else in the dictionary that all of them share.
    __slots__ = ("_database", "_process", "_recollection")

    def __init__(self, database: Database, process: Process) -> None:
        self.__dict__ = database.rows.__dict__
        self._database = database
        self._process = process
        self._recollection = Recollection()

    @contextmanager
    def beginning(self) -> Iterator[Transaction]:
        unit = RecalledTransaction(self._recollection)
        yield unit
        one = unit.beginning()
        i = one.run.instance_id
        with self.transaction() as tx:
            is_new = i not in tx.load(Wanted({i})).runs
            if is_new:
                tx.save(one.changes)
        history = self._process.world.history
        if not is_new:
            history.bit("a run that was to begin was there")
            raise NotRemembered
        history.bit("a run began without being looked for")

    @contextmanager
    def recalled(self) -> Iterator[Transaction]:
        unit = RecalledTransaction(self._recollection)
        yield unit
        swap = unit.swap()
        i, name = swap.seen_run.instance_id, swap.seen_step.name
        with self._transaction(remembers=False) as tx:
            found = tx.load(Wanted({i}, steps={(i, name)}))
            is_as_seen = swap.holds(found.runs.get(i), found.steps.get((i, name)))
            if is_as_seen:
                tx.save(swap.changes)
        history = self._process.world.history
        if not is_as_seen:
            history.bit("a run was not as it was remembered")
            self._recollection.missed(i)
            raise NotRemembered
        history.bit("a run was as it was remembered")
        self._recollection.swapped(swap, len(json.dumps(swap.step.result)))

    def catch_up(self) -> None:
        """As the one on PostgreSQL has it."""
        self._recollection.catch_up()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._transaction(remembers=True) as tx:
            yield tx

    @contextmanager
    def _transaction(self, *, remembers: bool) -> Iterator[Transaction]:
        process, database, history = self._process, self._database, self._process.world.history
        fails = database.failing and process.world.random.random() < database.failing
        answer_lost = fails and process.world.random.random() < 0.5
        changes: list[Changes] = []
        is_begun = False
        with super().transaction() as unit:
            held = cast(Any, unit)

            def commit() -> None:
                nonlocal answer_lost
                writes = bool(held._changes or held._schemas or held._workers)
                changes.extend(held._changes)
                if writes:
                    process.effect()
                if fails and not answer_lost:
                    return
                held._commit()
                if changes:
                    history.add("commit", process.name, *changes)
                    if database.lost_answers:
                        database.lost_answers -= 1
                        answer_lost = True
                held._changes, held._schemas, held._workers = [], {}, {}  # the end has nothing left to commit
                if writes:
                    process.effect()

            def begin_commit() -> bool:
                nonlocal is_begun
                is_begun = True
                commit()
                history.bit("a commit was left to the database")
                return True

            held.begin_commit = begin_commit
            held.tells_conflicts = True
            yield unit
            if unit.meanwhile is not None and unit.meanwhile():
                history.bit("messages were read ahead of their turn")
                while unit.meanwhile():
                    pass
            if not is_begun:
                commit()
            if fails and not answer_lost:
                history.fault("commit fails", process.name)
                raise StorageUnavailableError("simulated: the connection was lost before the commit")
        if answer_lost:
            history.fault("commit answer lost", process.name)
            raise StorageUnavailableError("simulated: the connection was lost after the commit")
        for one in changes if remembers else ():
            self._remember(one)

    def _remember(self, changes: Changes) -> None:
        ids = {run.instance_id for run in changes.runs} | {i for i, _ in changes.steps}
        self._recollection.wrote(changes, self.read_rows(Wanted(ids, inputs=ids)))

    @contextmanager
    def _open(self) -> Iterator[None]:
        if not self._process.is_alive or not self._database.is_up:
            raise StorageUnavailableError("simulated: the database is away")
        with super()._open():
            yield

    def close(self) -> None:
        """The rows stay."""

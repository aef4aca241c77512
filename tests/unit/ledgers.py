"""A ledger over a storage that counts what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fuseline.clock import ManualClock
from fuseline.engine import Rules
from fuseline.engine.events import Event, StepReported
from fuseline.errors import CallerError, StorageUnavailableError
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import Status, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from fuseline.storage.base import Changes, Loaded, Transaction, Wanted

RULES = Rules(lease_seconds=60.0, sweep_seconds=120.0)
DISPATCH = Dispatch("g", "1", "i", {"x": 1})


class Watched(MemoryRuntimeStorage):
    """Counts what is asked of a storage, and fails a save when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self.loads: list[Wanted] = []
        self.saves: list[Changes] = []
        self.is_full = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.transactions += 1
        with super().transaction() as tx:
            load, save = tx.load, tx.save

            def watched_load(wanted: Wanted) -> Loaded:
                self.loads.append(wanted)
                return load(wanted)

            def watched_save(changes: Changes) -> None:
                if self.is_full:
                    raise StorageUnavailableError("the disk is full")
                self.saves.append(changes)
                save(changes)

            tx.load, tx.save = watched_load, watched_save  # type: ignore[method-assign]
            yield tx

    def forget(self) -> None:
        self.transactions, self.loads, self.saves = 0, [], []


W = TypeVar("W", bound=Watched)


class Leaving(Watched):
    """One that can be left to commit. `at_end`: what the next commits fail with, None for one that is made; a
    `CallerError` means that it is rolled back, anything else that it is made and the answer is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_end: list[Exception | None] = []
        self.tells_conflicts = False
        self.conflict_at_end = False  # and not as it is saved
        self.ended: list[list[str]] = []
        """The runs of each transaction, in the order in which they ended."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        saved = len(self.saves)
        with super().transaction() as tx:
            tx.begin_commit = lambda: True  # type: ignore[method-assign]
            tx.tells_conflicts = self.tells_conflicts
            save, conflict = tx.save, None

            def save_or_wait(changes: Changes) -> None:
                nonlocal conflict
                try:
                    save(changes)
                except StorageUnavailableError as error:
                    if not self.conflict_at_end:
                        raise
                    conflict = error

            tx.save = save_or_wait  # type: ignore[method-assign]
            yield tx
            if conflict is not None:
                raise conflict
            mine = self.saves[saved : saved + 1]  # the others that are under way have saved before, or later
            error = self.at_end.pop(0) if self.at_end else None
            if isinstance(error, CallerError):
                raise error
        self.ended.append([i for changes in mine for i, _ in changes.steps])
        if error is not None:
            raise error


def ledger_with(*schemas: WorkflowSchema) -> tuple[Ledger, Watched, ManualClock]:
    return ledger_over(Watched(), *schemas)


def ledger_over(storage: W, *schemas: WorkflowSchema) -> tuple[Ledger, W, ManualClock]:
    """The same over this storage."""
    clock = ManualClock()
    ledger = Ledger(storage, clock, RULES)
    ledger.register(schemas)
    storage.forget()
    return ledger, storage, clock


def happened(event: Event, instance_id: str = "i", workflow_id: str | None = None) -> Occurrence:
    return Occurrence(instance_id, event, workflow_id)


def ok(step: str, attempt: int = 1, result: Any = None, **more: Any) -> StepReported:
    return StepReported(step, attempt, Status.SUCCEEDED, result=result, **more)


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def handed_out(outcome: Outcome) -> list[tuple[str, int]]:
    return [(one.step_name, one.attempt) for one in outcome.assignments]

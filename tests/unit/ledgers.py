"""A ledger over a storage that counts what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fuseline.clock import ManualClock
from fuseline.engine import Rules
from fuseline.engine.events import Event, StepReported
from fuseline.errors import StorageUnavailableError
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


def ledger_with(*schemas: WorkflowSchema) -> tuple[Ledger, Watched, ManualClock]:
    storage, clock = Watched(), ManualClock()
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

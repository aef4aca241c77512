"""What a storage offers: one transaction for a batch of decisions, and reads for views.

An adapter stays dumb. It loads rows by key, locks runs in a fixed order, and writes rows that somebody decided on. All
of a batch is committed at once or not at all (P3, P4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fuseline.engine.state import DeadLetter, RunRow, StepRow
from fuseline.errors import UnsupportedError
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.model.views import WorkerView
from fuseline.storage.thin import ThinMethods
from fuseline.storage.transaction import (
    Changes,
    Due,
    Key,
    Loaded,
    NotRemembered,
    StoredSchema,
    Transaction,
    Wanted,
)

__all__ = [
    "Changes",
    "Due",
    "Key",
    "Loaded",
    "LetterQuery",
    "NotRemembered",
    "RuntimeStorage",
    "StoredLetter",
    "StoredRun",
    "StoredSchema",
    "Transaction",
    "Wanted",
]


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is stored, for a view."""

    run: RunRow
    inputs: dict[str, Any]
    steps: dict[str, StepRow]


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as it is stored, with what it shares with its run."""

    instance_id: str
    workflow_id: str
    version: str
    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class LetterQuery:
    """Which dead letters: all that fit every field given. `before`: only ids smaller than this, to page on."""

    workflow_id: str | None = None
    instance_id: str | None = None
    reason: DeadLetterReason | None = None
    state: DeadLetterState | None = None
    limit: int = 100
    before: str | None = None


class RuntimeStorage(ThinMethods, ABC):
    """Where runs live. Every method may raise `StorageUnavailableError`; it is safe to call again then.

    Instances are thread-safe. Times are seconds since the epoch.
    """

    @abstractmethod
    def next_due(self) -> float | None:
        """The earliest `due_at` of all steps and runs; None when nothing waits for a time."""

    @abstractmethod
    def read_run(self, instance_id: str) -> StoredRun | None:
        """A run with its inputs and all of its step rows, without locking; None if it is unknown."""

    @abstractmethod
    def read_run_row(self, instance_id: str) -> RunRow | None:
        """A run's header alone, without locking: what waiting for its end costs."""

    @abstractmethod
    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRow]:
        """Headers, newest first (instance ids sort by time). `before`: only ids smaller than this, to page on."""

    @abstractmethod
    def list_dead_letters(self, query: LetterQuery) -> list[StoredLetter]:
        """Dead letters, those that died last first."""

    @abstractmethod
    def read_dead_letter(self, letter_id: str) -> StoredLetter | None:
        """One dead letter, without locking; None if it is unknown."""

    @abstractmethod
    def list_queued(self, *, after: Key | None = None, limit: int = 1000) -> list[tuple[str, StepRow]]:
        """QUEUED rows of all runs, by key: what an embedded broker takes up again when it starts. `after`: to page on."""

    @abstractmethod
    def list_schemas(self) -> list[StoredSchema]:
        """All registered workflow versions, by id and version."""

    @abstractmethod
    def list_workers(self) -> list[WorkerView]:
        """All workers that registered and were not forgotten."""

    @abstractmethod
    def count_runs(self) -> dict[RunStatus, int]:
        """How many runs are in each state; states without runs may be missing. A database counts the entries of an
        index: about 0.2 s for a million runs.
        """

    @abstractmethod
    def purge_runs(self, finished_before: float, limit: int = 100) -> int:
        """Delete up to `limit` runs that ended before then, with all their rows and dead letters, the longest ended first.

        Returns how many were deleted; call again until it is 0. Transactions are bounded: a large run takes several, and
        its header goes with the last. Runs that are locked elsewhere stay for the next time.
        """

    def recalled(self) -> AbstractContextManager[Transaction]:
        """A transaction that reads nothing: its rows are those that this object remembers. Its end is one round trip, and
        writes only if they are as they were.

        For who applies events of one run and calls `transaction` when it raises `NotRemembered`, inside of the `with` block
        or at its end; nothing is changed then. A storage that has nothing to gain from it remembers nothing.
        """
        raise NotRemembered

    def beginning(self) -> AbstractContextManager[Transaction]:
        """The same for a run that is presumed to be new: nothing is loaded, and it is written unless its id is taken."""
        raise NotRemembered

    def catch_up(self) -> None:
        """Called when nobody waits for anything: time for what a storage has put off. It raises nothing."""

    def now(self) -> float:
        """The database's own clock. Raises `UnsupportedError` for a storage that has none but this machine's."""
        raise UnsupportedError(f"{type(self).__name__} has no clock of its own")

    def claim_coordinator(self, coordinator_id: str) -> None:
        """Called by a coordinator before it begins. A storage that admits one raises `SecondCoordinatorError`."""

    @abstractmethod
    def close(self) -> None:
        """Release connections. Calls after it raise `StorageUnavailableError`."""

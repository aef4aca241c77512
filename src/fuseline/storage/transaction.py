"""The unit of work on a storage: load what a batch of decisions touches, save what they are, all or nothing (P3, P4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from fuseline.engine.state import DeadLetter, JoinRow, LetterKey, RunRow, StepRow
from fuseline.model.schema import WorkflowSchema
from fuseline.model.views import WorkerView

Key = tuple[str, str]
"""(instance_id, step name)."""


class NotRemembered(Exception):
    """Not an error: from memory alone it cannot be done. Nothing is changed; do it in a transaction that reads."""


@dataclass(slots=True)
class Wanted:
    """Rows to load.

    `whole`: all step and join rows of these runs. `letters`: all dead letters of these runs. `lock_steps`: lock the rows of
    `steps` as well, for those who share a run with `take_queued`, which locks no run.
    """

    runs: AbstractSet[str] = frozenset()
    steps: AbstractSet[Key] = frozenset()
    joins: AbstractSet[Key] = frozenset()
    whole: AbstractSet[str] = frozenset()
    inputs: AbstractSet[str] = frozenset()
    letters: AbstractSet[str] = frozenset()
    lock_steps: bool = False

    def __bool__(self) -> bool:
        return bool(self.runs or self.steps or self.joins or self.whole or self.inputs or self.letters)


@dataclass(slots=True)
class Loaded:
    """The rows that exist; a key that is missing here has no row. The receiver must not change the rows it gets.

    `is_partial`: a key that is missing may have a row all the same, and is to be loaded if it turns out to be needed.
    """

    runs: dict[str, RunRow] = field(default_factory=dict)
    steps: dict[Key, StepRow] = field(default_factory=dict)
    joins: dict[Key, JoinRow] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    letters: dict[str, dict[LetterKey, DeadLetter]] = field(default_factory=dict)
    is_partial: bool = False


@dataclass(slots=True)
class Changes:
    """Rows to write, each whole; a row with `is_new` is inserted, any other updated. `inputs` come with new runs.

    `letters` are inserted, or replaced where the run has one of the same step and attempt.
    """

    runs: list[RunRow] = field(default_factory=list)
    steps: list[tuple[str, StepRow]] = field(default_factory=list)
    joins: list[tuple[str, JoinRow]] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    letters: list[tuple[str, DeadLetter]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.steps or self.joins or self.letters)


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that has run out: of a step, or (step None) of the run itself."""

    instance_id: str
    step: str | None = None
    attempt: int = 0
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A registered workflow version."""

    schema: WorkflowSchema
    registered_at: float


class Transaction(ABC):
    """One atomic unit. Load first, then save; a load after a save need not see what was saved."""

    meanwhile: Callable[[], bool] | None = None
    """Work that can be done bit by bit while the answer to the commit is on its way; False: there is none left. It uses no
    storage, and raises nothing. A storage that has nobody to wait for does not call it.
    """

    tells_conflicts: bool = False
    """Whether that a new run exists is an error that `is_conflict`, so that one may save it without looking."""

    def begin_commit(self) -> bool:
        """Have it committed from now on, where that is another's work: nothing more is loaded or saved in it.

        True: whoever began it may begin another transaction, about other runs, before this one ends (and the other may end
        first); an error of the commit is raised at the end. False: all of it is done at the end, and nothing before that.
        """
        return False

    @abstractmethod
    def load(self, wanted: Wanted) -> Loaded:
        """The wanted rows, in as few statements as possible.

        Runs in `wanted.runs` are locked until the end of the transaction, in the order of their ids, so that two
        coordinators cannot wait for each other. Rows of a run may be loaded only when its run is locked.
        """

    @abstractmethod
    def save(self, changes: Changes) -> None:
        """Write the rows, set-based.

        A new run whose instance_id exists makes the whole transaction fail with `StorageUnavailableError` (see
        `tells_conflicts`): somebody else dispatched it just now, and who tries again finds it. Raises `CallerError` for a
        result that is not JSON or that nests too deep, on storages that have to write it down.
        """

    @abstractmethod
    def take_due(self, now: float, limit: int) -> list[Due]:
        """Up to `limit` timers with `due_at <= now`, oldest first; their runs are locked, runs locked elsewhere skipped."""

    @abstractmethod
    def take_queued(
        self, workflow_id: str, instance_id: str | None, limit: int = 1
    ) -> list[tuple[str, StepRow]]:
        """Up to `limit` QUEUED rows of a workflow, or of one of its runs: the oldest runs first, and in a run the one
        that was queued first. The rows are locked; rows that are locked elsewhere are skipped.
        """

    @abstractmethod
    def load_schemas(
        self, keys: Iterable[tuple[str, str]], *, to_change: bool = False
    ) -> dict[tuple[str, str], StoredSchema]:
        """The registered schemas of these (workflow_id, version) pairs, locked against a change until the end.

        `to_change`: against other readers too. Two that both read and then both change would wait for each other.
        """

    @abstractmethod
    def save_schema(self, schema: WorkflowSchema, now: float) -> None:
        """Insert or replace a workflow version; `registered_at` stays what it was.

        Raises `StorageUnavailableError` when `load_schemas` of this transaction had not found it and somebody else has
        registered another definition since.
        """

    @abstractmethod
    def save_worker(self, worker: WorkerView) -> None:
        """Insert or replace a worker."""

    @abstractmethod
    def touch_workers(self, seen: Mapping[str, float]) -> None:
        """Set `last_seen_at` of known workers, in one statement; unknown ids are ignored."""

    @abstractmethod
    def delete_workers(self, worker_ids: Sequence[str]) -> None:
        """Forget workers; unknown ids are ignored."""

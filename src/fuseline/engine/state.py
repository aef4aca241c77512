"""What is known of a run: one header, a row per step that was ever queued, a counter row per join.

A step without a row is implied: PENDING, or CANCELLED once the run fails or ends (`implied_status`). Rows are what
storages save; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final

from fuseline.engine.plan import StepPlan
from fuseline.model.messages import ASSIGNMENT_REJECTED, Cause, StepError
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus, Status


@dataclass(slots=True)
class RunRow:
    """The header. `open_steps` counts steps with a row that is not terminal; at 0 the run is over.

    `failed_step` and `error` say what made the run fail; with either set, the run is failing: it ends FAILED as soon as
    nothing is left to do. `due_at` is the run's own deadline. `replays` counts how often an operator has set the ended run
    going again: what is said of the run as a whole (stop!) holds for those of its attempts that were queued before.
    """

    instance_id: str
    workflow_id: str
    version: str
    status: RunStatus
    created_at: float
    open_steps: int = 0
    failed_step: str | None = None
    error: StepError | None = None
    due_at: float | None = None
    finished_at: float | None = None
    replays: int = 0
    is_new: bool = field(default=False, compare=False)

    def copy(self) -> RunRow:
        """A copy that can change without changing this row."""
        return RunRow(*_RUN_FIELDS(self))

    @property
    def is_failing(self) -> bool:
        """True from the first failure that nothing tolerates."""
        return self.error is not None


@dataclass(slots=True)
class StepRow:
    """One step that was queued at least once, or skipped.

    `attempt` counts from 1 and fences: only a report with the current number counts. `failures` counts failed attempts
    (for retries), `losses` attempts whose holder vanished (for poison). `due_at` is when somebody must look at it again:
    the retry's time while PENDING, expiry or sweep while QUEUED, the lease's end while RUNNING. `due_at` is None exactly
    when the row is terminal (P1: nothing waits without a timer). `result` is a JSON value.
    """

    name: str
    status: Status
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    holder: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    due_at: float | None = None
    action: str | None = None
    result: Any = None
    error: StepError | None = None
    is_new: bool = field(default=False, compare=False)  # storage has no such row yet

    def copy(self) -> StepRow:
        """A copy that can change without changing this row."""
        return StepRow(*_STEP_FIELDS(self))

    @property
    def is_reset(self) -> bool:
        """True when a replay has put the step back to before it was decided on; the row keeps its attempt, which fences.

        It counts as having no row, and as ended, until it is decided on again.
        """
        return self.status is Status.CANCELLED and self.finished_at is None

    @property
    def is_unreached(self) -> bool:
        """True when it was skipped because no edge leads to it, not by its own condition."""
        return self.status is Status.SKIPPED and self.action is None


@dataclass(slots=True)
class GroupCount:
    """One OR group of a join: edges not resolved yet, failed ones, and the first live one's source."""

    open_edges: int
    failed_edges: int = 0
    winner: str | None = None


@dataclass(slots=True)
class JoinRow:
    """What has arrived at a step with several edges in. `fired`: its fate is decided, it never changes again."""

    name: str
    unresolved: int
    met: int = 0
    failed: int = 0
    fired: bool = False
    groups: dict[str, GroupCount] = field(default_factory=dict)
    is_new: bool = field(default=False, compare=False)

    @classmethod
    def fresh(cls, step: StepPlan) -> JoinRow:
        """The counter before anything arrived."""
        groups = {param: GroupCount(len(members)) for param, members in step.groups.items()}
        return cls(step.name, step.requirements, groups=groups, is_new=True)

    def copy(self) -> JoinRow:
        """A copy that can change without changing this row."""
        groups = {
            param: GroupCount(group.open_edges, group.failed_edges, group.winner)
            for param, group in self.groups.items()
        }
        return JoinRow(self.name, self.unresolved, self.met, self.failed, self.fired, groups, self.is_new)


@dataclass(slots=True)
class DeadLetter:
    """A step that failed for good with this attempt. One for each, kept until the run is purged.

    `next_attempt` is what a replay gave the step. `letter_id` sorts by `died_at`.
    """

    letter_id: str
    step: str
    attempt: int
    reason: DeadLetterReason
    error: StepError
    died_at: float
    state: DeadLetterState = DeadLetterState.OPEN
    settled_at: float | None = None
    next_attempt: int | None = None

    @property
    def key(self) -> LetterKey:
        """Which of its run's it is."""
        return self.step, self.attempt


LetterKey = tuple[str, int]
"""(step name, attempt)."""

_REASONS: Final[Mapping[Cause, DeadLetterReason]] = {
    Cause.ERROR: DeadLetterReason.FAILED,
    Cause.TIMEOUT: DeadLetterReason.TIMEOUT,
    Cause.EXPIRED: DeadLetterReason.EXPIRED,
    Cause.POISON: DeadLetterReason.POISON,
    Cause.INVALID: DeadLetterReason.INVALID,
}


def dead_letter(instance_id: str, row: StepRow, error: StepError, now: float) -> DeadLetter:
    """The dead letter of a row whose last attempt has just failed. The same event always makes the same one."""
    digest = hashlib.blake2b(
        f"{instance_id}\0{row.name}\0{row.attempt}".encode(errors="surrogatepass"), digest_size=10
    )
    letter_id = f"{max(0, int(now * 1000)) % 2**48:012x}{digest.hexdigest()}"
    reason = _REASONS.get(error.cause, DeadLetterReason.FAILED)
    if error.type == ASSIGNMENT_REJECTED and error.cause is Cause.INVALID:
        reason = DeadLetterReason.REJECTED
    return DeadLetter(letter_id, row.name, row.attempt, reason, error, now)


# Every decision copies a row or three; copy.copy() takes seven times as long for one.
_RUN_FIELDS = attrgetter(*(one.name for one in fields(RunRow)))
_STEP_FIELDS = attrgetter(*(one.name for one in fields(StepRow)))


class NotLoaded(Exception):
    """Not an error: the decision needs rows that the snapshot does not have; load them and decide again."""

    def __init__(
        self, steps: Iterable[str] = (), joins: Iterable[str] = (), whole: bool = False, letters: bool = False
    ) -> None:
        super().__init__(f"steps={steps!r} joins={joins!r} whole={whole} letters={letters}")
        self.steps = tuple(steps)
        self.joins = tuple(joins)
        self.whole = whole
        self.letters = letters


@dataclass(slots=True)
class Snapshot:
    """The part of a run that was loaded. A name maps to None when storage has no row; `whole`: all rows are here.

    `letters` are all dead letters of the run; None: not loaded.
    """

    run: RunRow
    steps: dict[str, StepRow | None] = field(default_factory=dict)
    joins: dict[str, JoinRow | None] = field(default_factory=dict)
    whole: bool = False
    letters: dict[LetterKey, DeadLetter] | None = None


def implied_status(run: RunRow, step: StepPlan) -> Status:
    """The status of a step that has no row, or one that was reset."""
    if run.status.is_terminal or (run.is_failing and not step.trigger.is_cleanup):
        return Status.CANCELLED
    return Status.PENDING

"""What can happen to a run. Past tense: an event is a fact that somebody observed."""

from __future__ import annotations

from typing import Any

from fuseline.engine.facts import fact
from fuseline.model.messages import PolicyDecision, StepError
from fuseline.model.status import Status


@fact(frozen=True, slots=True)
class RunDispatched:
    """A run was asked for. The snapshot holds its fresh header (or, asked twice, the known one)."""


@fact(frozen=True, slots=True)
class StepClaimed:
    """A worker took an attempt and keeps it by a lease. `lease_seconds` None: the rules' lease."""

    step: str
    attempt: int
    holder: str
    lease_seconds: float | None = None


@fact(frozen=True, slots=True)
class StepReported:
    """A worker says how an attempt ended. `redelivered`: this report may have been recorded before.

    `continues_with`: the one step that becomes ready by this, which the holder goes on with at once (step fusion).
    `continued_from`: (step, attempt) whose report said so about this step, which may be recorded later than this comes.
    """

    step: str
    attempt: int
    status: Status
    result: Any = None
    action: str | None = None
    error: StepError | None = None
    decision: PolicyDecision | None = None
    holder: str | None = None
    started_at: float | None = None
    redelivered: bool = False
    continues_with: str | None = None
    continued_from: tuple[str, int] | None = None


@fact(frozen=True, slots=True)
class StepExpired:
    """The assignment of an attempt waited in its queue past its expiry and was dead-lettered.

    `redelivered`: see `StepReported`.
    """

    step: str
    attempt: int
    redelivered: bool = False


@fact(frozen=True, slots=True)
class StepPoisoned:
    """RabbitMQ gave up redelivering an attempt: each delivery took its worker down.

    `redelivered`: see `StepReported`.
    """

    step: str
    attempt: int
    redelivered: bool = False


@fact(frozen=True, slots=True)
class StepVanished:
    """An attempt's assignment is in its queue no longer, and nobody who might have taken it has said a word."""

    step: str
    attempt: int


@fact(frozen=True, slots=True)
class StepOvertaken:
    """What was queued long after an attempt's assignment has come out of the queue, and of that one nothing was heard."""

    step: str
    attempt: int


@fact(frozen=True, slots=True)
class StepReleased:
    """The holder of an attempt gives it back unfinished (it drains): that is no fault of the step's.

    `redelivered`: see `StepReported`.
    """

    step: str
    attempt: int
    holder: str | None = None
    redelivered: bool = False


@fact(frozen=True, slots=True)
class HolderLost:
    """The holder of an attempt is known to be gone. `holder` None: whoever holds it."""

    step: str
    attempt: int
    holder: str | None = None


@fact(frozen=True, slots=True)
class StepDuePassed:
    """A step's `due_at` has passed. `renewed_until`: the time that its holder's heartbeats have carried the lease to."""

    step: str
    renewed_until: float | None = None


@fact(frozen=True, slots=True)
class RunDuePassed:
    """The run's own deadline has passed."""


@fact(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run ended."""


@fact(frozen=True, slots=True)
class StepReplayed:
    """An operator gives a step that failed for good with this attempt a fresh one.

    `redelivered`: this may have been recorded before, by somebody who died before he could hand anything out.
    """

    step: str
    attempt: int
    redelivered: bool = False


@fact(frozen=True, slots=True)
class DeadLetterDiscarded:
    """An operator leaves a step that failed for good with this attempt as it is."""

    step: str
    attempt: int


Event = (
    RunDispatched
    | StepClaimed
    | StepReported
    | StepExpired
    | StepPoisoned
    | StepVanished
    | StepOvertaken
    | StepReleased
    | HolderLost
    | StepDuePassed
    | RunDuePassed
    | CancelRequested
    | StepReplayed
    | DeadLetterDiscarded
)

"""What a decision asks the outside to do, after its rows are saved. Imperative; safe to do twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fuseline.engine.facts import fact
from fuseline.engine.state import DeadLetter, JoinRow, LetterKey, RunRow, StepRow
from fuseline.model.status import RunStatus


class Verdict(StrEnum):
    """What became of an event. All but ACCEPTED changed nothing (P3)."""

    __hash__ = str.__hash__  # see `Status`

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # this very outcome is recorded already
    STALE = "stale"  # the attempt is over, or somebody else holds it
    UNKNOWN = "unknown"  # no such step was ever queued in this run
    EARLY = "early"  # it goes on from a report that is not recorded yet: to be asked again soon


@fact(frozen=True, slots=True)
class QueueStep:
    """Hand this attempt to the workers. `again`: it was handed out before and may still be on its way."""

    step: str
    attempt: int
    again: bool = False


@fact(frozen=True, slots=True)
class StopSteps:
    """Tell whoever executes steps of this run to stop; `spare` names those that go on.

    It is about attempts that were queued before the run was replayed more than `replays` times.
    """

    spare: frozenset[str] = frozenset()
    replays: int = 0


@fact(frozen=True, slots=True)
class FinishRun:
    """The run has ended: tell those who wait for it."""

    status: RunStatus


@fact(frozen=True, slots=True)
class StopHolder:
    """Tell one worker not to go on with this attempt: it is not the holder's.

    `continued_from`: only if it went on with it from that attempt (step, number) by itself.
    """

    step: str
    attempt: int
    holder: str
    continued_from: tuple[str, int]


Effect = QueueStep | StopSteps | StopHolder | FinishRun


@fact(frozen=True, slots=True)
class Notice:
    """One line for traces and for the events exchange. `kind` is e.g. `step_finished`; step None: about the run."""

    kind: str
    step: str | None = None
    attempt: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Decision:
    """The rows to save, what to do then, and what became of the event. `reason` explains any other than ACCEPTED."""

    verdict: Verdict = Verdict.ACCEPTED
    reason: str = ""
    run: RunRow | None = None
    steps: dict[str, StepRow] = field(default_factory=dict)
    joins: dict[str, JoinRow] = field(default_factory=dict)
    letters: dict[LetterKey, DeadLetter] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def for_run(self, instance_id: str) -> Decision:
        """What `decide` says of another run of the version that is dispatched at the same moment, when this is of one.

        The header alone says whose it is. Copies, so that neither changes with the other.
        """
        assert self.run is not None
        run = self.run.copy()
        run.instance_id = instance_id
        steps = {name: row.copy() for name, row in self.steps.items()}
        return Decision(run=run, steps=steps, effects=[*self.effects], notices=[*self.notices])

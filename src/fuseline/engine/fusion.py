"""Step fusion: a holder goes on with the one step that its report makes ready. What that means here (ADR 0007)."""

from __future__ import annotations

from fuseline.engine.effects import StopHolder
from fuseline.engine.events import StepReported
from fuseline.engine.state import StepRow
from fuseline.engine.turn import Turn


def go_on(turn: Turn, row: StepRow, event: StepReported) -> None:
    """The report of `row` counts: what its holder goes on with is its own, or it is told that it is not."""
    name, holder = event.continues_with, event.holder
    if name is not None and (holder is None or not _is_next(turn, row, name) or not turn.keep(name, holder)):
        stop_going_on(turn, event)


def _is_next(turn: Turn, row: StepRow, name: str) -> bool:
    """Whether a step requires this one and nothing else, so that its holder had all that it needs."""
    step = turn.plan.steps.get(name)
    return step is not None and step.predecessors == (row.name,)


def stop_going_on(turn: Turn, event: StepReported) -> None:
    """What the holder went on with is not its own: the step is somebody else's, or nobody's yet.

    By now it may have it from a queue, or from a later attempt of the step before: that goes on.
    """
    if event.continues_with is not None and event.holder is not None:
        origin = event.step, event.attempt
        turn.decision.effects.append(StopHolder(event.continues_with, 1, event.holder, origin))


def is_of_holder(turn: Turn, row: StepRow, event: StepReported) -> bool:
    """Whether a report is of the execution that holds `row`: one that went on by itself must have gone on from what counts.

    Its worker may have the step from a queue by now (then the row says since when), or from a later attempt of the step
    before, and this report is of what it had gone on with in vain.
    """
    if event.continued_from is None:
        return row.holder is None or event.holder is None or row.holder == event.holder
    name, attempt = event.continued_from
    before = turn.step(name)
    is_from_what_counts = before is not None and before.attempt == attempt
    return row.holder == event.holder and row.queued_at is None and is_from_what_counts


def is_early(turn: Turn, event: StepReported) -> bool:
    """Whether a report of a step without a row overtook the one that it went on from, which may still make it count.

    Not if nothing can: an early report goes round, under a name that is made of what it says.
    """
    if event.continued_from is None or turn.run.status.is_terminal:
        return False
    name, attempt = event.continued_from
    step = turn.plan.steps.get(event.step)
    if step is None or step.predecessors != (name,) or event.attempt != 1:
        return False
    before = turn.step(name)
    return before is None or (before.attempt == attempt and not before.status.is_terminal)

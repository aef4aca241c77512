"""Step fusion: a holder goes on with the one step that its report makes ready. What that means here (ADR 0007)."""

from __future__ import annotations

from fuseline.engine.effects import StopHolder
from fuseline.engine.events import StepReported
from fuseline.engine.state import StepRow
from fuseline.engine.turn import Turn
from fuseline.model.status import Status


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

    Unless it has it from a queue by now, and this report comes again.
    """
    name, holder = event.continues_with, event.holder
    if name is None or holder is None:
        return
    row = turn.step(name)
    if row is None or row.status is not Status.RUNNING or row.holder != holder:
        turn.decision.effects.append(StopHolder(name, 1, holder))


def is_early(turn: Turn, event: StepReported) -> bool:
    """Whether a report of a step without a row overtook the one that it went on from, which may still make it count."""
    if event.continued_from is None or turn.run.status.is_terminal:
        return False
    name, attempt = event.continued_from
    before = turn.step(name)
    return before is None or (before.attempt == attempt and not before.status.is_terminal)

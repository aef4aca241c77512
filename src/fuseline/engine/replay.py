"""What an operator decides about a dead letter: the step gets a fresh attempt, or everything stays as it is.

A replay puts the run where it would be if the step had failed into a retry. Nothing is undone by following edges back:
the whole graph is laid out anew from the steps' ends that still stand, which costs the size of the run once for each
decision of a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fuseline.engine.effects import Verdict
from fuseline.engine.events import DeadLetterDiscarded, StepReplayed
from fuseline.engine.plan import Plan, StepPlan
from fuseline.engine.readiness import EdgeState, Fate, fate
from fuseline.engine.state import DeadLetter, GroupCount, JoinRow, LetterKey, StepRow
from fuseline.engine.turn import Turn
from fuseline.model.status import DeadLetterState, RunStatus, Status


def replay(turn: Turn, event: StepReplayed) -> None:
    """Set the ended run going again at the letter's step.

    Other steps of the run that failed for good, and would fail it again at once, get a fresh attempt along with it. The
    letter of a clean-up step in a run that something else has failed replays the clean-up alone: the run ends FAILED.
    """
    letter = _find(turn, (event.step, event.attempt))
    if letter is None:
        return
    if letter.state is DeadLetterState.REPLAYED:
        turn.refuse(Verdict.DUPLICATE, f"it was replayed already, as attempt {letter.next_attempt}")
        if event.redelivered:
            _offer_again(turn)
    elif reason := _why_not(turn, letter):
        turn.refuse(Verdict.STALE, reason)
    else:
        _set_going(turn, letter)


def discard(turn: Turn, event: DeadLetterDiscarded) -> None:
    """Leave the step as it is; the letter is kept, and cannot be replayed any more."""
    letter = _find(turn, (event.step, event.attempt))
    if letter is None:
        return
    if letter.state is DeadLetterState.OPEN:
        _settle_letter(turn, letter, DeadLetterState.DISCARDED)
    elif letter.state is DeadLetterState.DISCARDED:
        turn.refuse(Verdict.DUPLICATE, "it was discarded already")
    else:
        turn.refuse(Verdict.STALE, f"it was replayed, as attempt {letter.next_attempt}")


def _find(turn: Turn, key: LetterKey) -> DeadLetter | None:
    letter = turn.letters().get(key)
    if letter is None:
        turn.refuse(Verdict.UNKNOWN, f"attempt {key[1]} of step {key[0]!r} is no dead letter of this run")
    return letter


def _why_not(turn: Turn, letter: DeadLetter) -> str:
    if letter.state is DeadLetterState.DISCARDED:
        return "it was discarded"
    if letter.step not in turn.plan.steps:
        return f"its workflow's graph has no step {letter.step!r}"
    match turn.run.status:
        case RunStatus.RUNNING:
            return "its run goes on; it can be replayed once the run has ended"
        case RunStatus.SUCCEEDED:
            return f"its run has succeeded without step {letter.step!r}"
        case RunStatus.CANCELLED:
            return "its run was cancelled"
    return ""


def _offer_again(turn: Turn) -> None:
    """Whoever recorded the replay may have died before he handed anything out."""
    for row in turn.all_steps():
        if row.status is Status.QUEUED:
            turn.offer_again(row)


def _settle_letter(
    turn: Turn, letter: DeadLetter, state: DeadLetterState, attempt: int | None = None
) -> None:
    settled = replace(letter, state=state, settled_at=turn.now, next_attempt=attempt)
    turn.decision.letters[letter.key] = settled


# ---- going again


def _set_going(turn: Turn, letter: DeadLetter) -> None:
    rows = {row.name: row for row in turn.all_steps()}
    row = rows.get(letter.step)
    if row is None or row.status is not Status.FAILED or row.attempt != letter.attempt:
        turn.refuse(Verdict.STALE, f"step {letter.step!r} has moved on since attempt {letter.attempt}")
        return
    again = {letter.step}
    layout = _Layout(turn, rows, again, False)
    stays_failing = turn.plan_of(letter.step).trigger.is_cleanup and _has_another_cause(turn, letter, layout)
    if stays_failing:
        layout = _Layout(turn, rows, again, True)
    while layout.dooming:
        again |= layout.dooming
        layout = _Layout(turn, rows, again, stays_failing)
    moved = sorted(layout.reset.union(layout.queued, layout.skipped))
    taken = [row for name in moved if (row := rows.get(name)) is not None and row.status is Status.FAILED]
    letters = [found for row in taken if (found := turn.letters().get((row.name, row.attempt))) is not None]
    for other in letters:
        if other.state is not DeadLetterState.OPEN:
            reason = f"step {other.step!r} has failed the run too, and its dead letter was {other.state}"
            turn.refuse(Verdict.STALE, reason)
            return
    turn.note("run_replayed", rows[letter.step], steps=layout.queued, reset=sorted(layout.reset))
    _apply(turn, rows, layout, stays_failing)
    for other in letters:
        _settle_letter(turn, other, DeadLetterState.REPLAYED, other.attempt + 1)


def _has_another_cause(turn: Turn, letter: DeadLetter, layout: _Layout) -> bool:
    """Whether the run would have failed without this letter's step: by its timeout, or by a step that fails it still.

    The step that it names need not be the one: it names the step that could not run any more, where there is one.
    """
    if turn.run.failed_step == letter.step and turn.run.error == letter.error:
        return False
    return turn.run.failed_step is None or bool(layout.dooming)


def _apply(turn: Turn, rows: dict[str, StepRow], layout: _Layout, stays_failing: bool) -> None:
    run = turn.change_run()
    run.status, run.finished_at, run.replays = RunStatus.RUNNING, None, run.replays + 1
    seconds = turn.plan.run_timeout_seconds
    run.due_at = None if seconds is None else turn.now + seconds
    if not stays_failing:
        run.failed_step = run.error = None
    for name in sorted(layout.reset):
        row = turn.change_step(rows[name])
        row.status, row.finished_at = Status.CANCELLED, None
        row.holder = row.action = row.result = row.error = None
    for name in layout.skipped:
        turn.skip_unreached(name)
    for name in layout.queued:
        turn.queue(name)
    turn.decision.joins.update(layout.joins)


@dataclass(slots=True)
class _Arrived:
    """What has arrived at a step: its counter, and which failed sources its failed requirements come from."""

    counter: JoinRow
    failed_by: list[str] = field(default_factory=list)


class _Layout:
    """Where each step stands when those in `again` have not ended: in the order of the graph, once.

    `stays_failing`: only clean-up is looked at, and everything else stays as it ended. `dooming`: failed steps that would
    fail a run at once which is not failing already.
    """

    def __init__(self, turn: Turn, rows: dict[str, StepRow], again: set[str], stays_failing: bool) -> None:
        self._turn = turn
        self._rows = rows
        self._again = again
        self.queued: list[str] = []
        self.skipped: list[str] = []
        self.reset: set[str] = set()
        self.dooming: set[str] = set()
        self.joins: dict[str, JoinRow] = {}
        self._edges: dict[str, dict[str, EdgeState]] = {name: {} for name in turn.plan.steps}
        for step in _in_order(turn.plan):
            if stays_failing and not step.trigger.is_cleanup:
                row = rows.get(step.name)
                self._follow(step, None if row is None or row.is_reset else row)
            else:
                self._lay_out(step)
        if stays_failing:
            self.dooming.clear()

    def _lay_out(self, step: StepPlan) -> None:
        arrived = self._arrived(step)
        counter = arrived.counter
        decided: Fate | None = Fate.READY
        if step.predecessors:
            decided = fate(step.trigger, counter.unresolved, counter.met, counter.failed)
        if decided is Fate.CANCELLED or step.trigger.is_cleanup:
            self.dooming.update(arrived.failed_by)
        row = self._rows.get(step.name)
        stands = row is not None and self._stands(row, decided)
        if row is not None and stands:
            self._follow(step, row)
        elif decided is Fate.READY:
            self.queued.append(step.name)
        elif decided is Fate.SKIPPED:
            self.skipped.append(step.name)
            self._edges_out(step, EdgeState.DEAD)
        elif row is not None:
            self.reset.add(step.name)
        if step.needs_counter:
            counter.fired = decided is not None
            self._keep(counter, stands)

    def _stands(self, row: StepRow, decided: Fate | None) -> bool:
        """Whether a row's end would have come about without what is replayed."""
        if row.name in self._again or row.status is Status.CANCELLED:
            return False
        return decided is (Fate.SKIPPED if row.is_unreached else Fate.READY)

    def _keep(self, counter: JoinRow, stands: bool) -> None:
        known = self._turn.snapshot.joins.get(counter.name)
        if stands and known is not None and known.fired:
            return  # what it went by then is what its step was given
        counter.is_new = known is None
        if counter != known:
            self.joins[counter.name] = counter

    def _follow(self, step: StepPlan, row: StepRow | None) -> None:
        if row is None or row.status in (Status.FAILED, Status.CANCELLED):
            self._edges_out(step, EdgeState.FAILED)
            if not step.out:
                self.dooming.add(step.name)
        elif row.is_unreached:
            self._edges_out(step, EdgeState.DEAD)
        else:
            for edge in step.out:
                state = EdgeState.LIVE if row.action in edge.actions else EdgeState.DEAD
                self._edges[edge.target][step.name] = state

    def _edges_out(self, step: StepPlan, state: EdgeState) -> None:
        for edge in step.out:
            self._edges[edge.target][step.name] = state

    # ---- what has arrived

    def _arrived(self, step: StepPlan) -> _Arrived:
        states = self._edges[step.name]
        known = self._turn.snapshot.joins.get(step.name)
        found = _Arrived(JoinRow.fresh(step))
        grouped = {member for members in step.groups.values() for member in members}
        for source in step.predecessors:
            if source not in grouped:
                self._count(found, [source], states.get(source))
        for param, members in step.groups.items():
            winner = None if known is None else known.groups[param].winner
            group = found.counter.groups[param] = self._group(members, states, winner)
            state: EdgeState | None = EdgeState.LIVE
            if group.winner is None:
                closed = EdgeState.FAILED if group.failed_edges else EdgeState.DEAD
                state = None if group.open_edges else closed
            self._count(found, members, state)
        return found

    def _count(self, found: _Arrived, sources: Iterable[str], state: EdgeState | None) -> None:
        counter = found.counter
        counter.unresolved -= state is not None
        counter.met += state is EdgeState.LIVE
        if state is EdgeState.FAILED:
            counter.failed += 1
            edges = self._edges[counter.name]
            found.failed_by += [source for source in sources if edges[source] is EdgeState.FAILED]

    def _group(
        self, members: Iterable[str], states: dict[str, EdgeState], known_winner: str | None
    ) -> GroupCount:
        """The group goes by the source that it went by before, if that stands, else by the one that ended first."""
        found = [states.get(member) for member in members]
        live = [member for member in members if states.get(member) is EdgeState.LIVE]
        winner = known_winner if known_winner in live else min(live, key=self._ended, default=None)
        return GroupCount(found.count(None), found.count(EdgeState.FAILED), winner)

    def _ended(self, name: str) -> tuple[float, str]:
        return self._rows[name].finished_at or 0.0, name


def _in_order(plan: Plan) -> list[StepPlan]:
    """Every step behind all that it requires."""
    missing = {name: len(step.predecessors) for name, step in plan.steps.items()}
    found = [plan.steps[name] for name in plan.starts]
    for step in found:
        for edge in step.out:
            missing[edge.target] -= 1
            if not missing[edge.target]:
                found.append(plan.steps[edge.target])
    return found

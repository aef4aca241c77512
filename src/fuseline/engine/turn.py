"""One decision in the making: the rows it changes, kept apart from the snapshot until it is whole.

A `Turn` copies a row the first time it changes it, so that a decision which finds a row missing (`NotLoaded`) leaves
nothing half done: load, and decide again from the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from fuseline.engine.effects import Decision, FinishRun, Notice, QueueStep, StopSteps, Verdict
from fuseline.engine.plan import Edge, Plan, StepPlan
from fuseline.engine.readiness import EdgeState, Fate, fate, group_state
from fuseline.engine.state import (
    DeadLetter,
    JoinRow,
    LetterKey,
    NotLoaded,
    RunRow,
    Snapshot,
    StepRow,
    dead_letter,
)
from fuseline.errors import UnknownStepError
from fuseline.model.messages import StepError
from fuseline.model.schema import DEFAULT_ACTION
from fuseline.model.status import RunStatus, Status

MAX_SWEEP_DOUBLINGS = 4
"""A step that was lost this often is looked at no more seldom than before."""


class Turn:
    """Reads a snapshot, gathers the changes of one event."""

    __slots__ = (
        "_doom",
        "_edges",
        "_followed",
        "_opened",
        "_queued",
        "_stop",
        "decision",
        "now",
        "plan",
        "run",
        "snapshot",
    )

    def __init__(self, plan: Plan, snapshot: Snapshot, now: float) -> None:
        self.plan = plan
        self.snapshot = snapshot
        self.now = now
        self.run: RunRow = snapshot.run
        self.decision = Decision()
        self._queued: dict[str, QueueStep] = {}
        self._stop: StopSteps | None = None
        self._doom: tuple[str, StepError] | None = None
        self._edges: list[tuple[Edge, EdgeState]] = []
        self._followed = 0
        # Steps opened less steps ended. Along a chain it is 0 in the end, and the header stays as it is.
        self._opened = 0

    # ---- reading

    def plan_of(self, name: str) -> StepPlan:
        """The step's plan. Raises `UnknownStepError` for a row whose step the schema does not know."""
        step = self.plan.steps.get(name) or self.plan.step(name)
        if step is None:
            raise UnknownStepError(
                f"workflow {self.plan.workflow_id!r} {self.plan.version} has no step {name!r}"
            )
        return step

    def step(self, name: str) -> StepRow | None:
        """The step's row before this turn; None without one. Raises `NotLoaded`."""
        row = self.snapshot.steps.get(name)
        if row is None and name not in self.snapshot.steps and not self.snapshot.whole:
            raise NotLoaded(steps=[name])
        return row

    def steps(self, names: Iterable[str]) -> list[StepRow]:
        """The rows of those names that have one; asks for all that are missing at once, and for what comes next."""
        names = list(names)
        self._followed += len(names)
        known = self.snapshot.steps
        if not self.snapshot.whole and any(name not in known for name in names):
            raise NotLoaded(steps=[name for name in self._ahead(names) if name not in known])
        return [row for name in names if (row := self.step(name)) is not None]

    def all_steps(self) -> list[StepRow]:
        """Every row of the run, by name: in which order they were loaded decides nothing. Raises `NotLoaded`."""
        if not self.snapshot.whole:
            raise NotLoaded(whole=True)
        rows = self.snapshot.steps | self.decision.steps
        return [row for name in sorted(rows) if (row := rows[name]) is not None]

    def letters(self) -> dict[LetterKey, DeadLetter]:
        """Every dead letter of the run. Raises `NotLoaded`."""
        if self.snapshot.letters is None:
            raise NotLoaded(letters=True)
        return self.snapshot.letters

    def counter(self, step: StepPlan) -> JoinRow:
        """The counter of a step with several edges in, to be changed."""
        name = step.name
        mine = self.decision.joins.get(name)
        if mine is None:
            if name not in self.snapshot.joins and not self.snapshot.whole:
                raise NotLoaded(joins=self._joins_ahead(name))
            known = self.snapshot.joins.get(name)
            if known is not None and known.fired:
                return known  # never changes again
            mine = self.decision.joins[name] = JoinRow.fresh(step) if known is None else known.copy()
        return mine

    def _joins_ahead(self, name: str) -> list[str]:
        """The joins to load now that the counter of `name` is missing: its own, and what comes next."""
        known = self.snapshot.joins
        pending = [edge.target for edge, _ in self._edges if not self._is_settled(edge.target)]
        ahead = self._ahead([name, *pending])
        return [found for found in ahead if found not in known and self.plan_of(found).needs_counter]

    def _ahead(self, names: Iterable[str]) -> Iterator[str]:
        """These steps, and behind them about as many as this turn has followed edges.

        A turn that lacks a row is begun again, so a long way through untaken branches must not be loaded step by step.
        What is read too much is never more than what was needed so far (P6).
        """
        todo = deque(dict.fromkeys(names))
        seen = set(todo)
        left = self._followed
        while todo:
            name = todo.popleft()
            yield name
            for edge in self.plan_of(name).out[:left]:
                left -= 1
                if edge.target not in seen and not self._is_settled(edge.target):
                    seen.add(edge.target)
                    todo.append(edge.target)

    def _is_settled(self, name: str) -> bool:
        """True for what was cancelled by implication when the run began to fail."""
        return self.run.is_failing and not self.plan_of(name).trigger.is_cleanup

    # ---- changing

    def change_run(self) -> RunRow:
        """The header, to be changed."""
        if self.decision.run is None:
            self.decision.run = self.run = self.run.copy()
        return self.decision.run

    def change_step(self, row: StepRow) -> StepRow:
        """The row, to be changed."""
        mine = self.decision.steps.get(row.name)
        if mine is None:
            mine = self.decision.steps[row.name] = row.copy()
        return mine

    def note(self, kind: str, row: StepRow | None = None, **detail: object) -> None:
        """Add a line for traces and the events exchange."""
        step, attempt = (None, None) if row is None else (row.name, row.attempt)
        self.decision.notices.append(Notice(kind, step, attempt, detail))

    def queue(self, name: str) -> None:
        """A step is ready: it gets its row, or after a replay its next attempt, and is handed out."""
        row = self.known_row(name)
        if row is None:
            row = self.decision.steps[name] = StepRow(name, Status.PENDING, is_new=True)
        else:
            row = self.change_step(row)
            row.attempt, row.failures, row.losses = row.attempt + 1, 0, 0
            row.finished_at = row.action = row.result = None
        self._opened += 1
        self._hand_out(row)

    def known_row(self, name: str) -> StepRow | None:
        """The row of a step that is decided on now: there is one only where a replay has reset it. Raises `NotLoaded`."""
        return self.step(name) if self.run.replays else None

    def skip_unreached(self, name: str) -> None:
        """No edge leads to a step any more. It keeps the attempt that it had before a replay, which fences."""
        known = self.known_row(name)
        attempt = 0 if known is None else known.attempt
        row = StepRow(name, Status.SKIPPED, attempt, finished_at=self.now, is_new=known is None)
        self.decision.steps[name] = row
        self.note("step_skipped", row, by="untaken branch")

    def bury(self, row: StepRow, error: StepError) -> None:
        """A step failed for good: what is kept for an operator."""
        letter = dead_letter(self.run.instance_id, row, error, self.now)
        self.decision.letters[letter.key] = letter

    def requeue(self, row: StepRow) -> None:
        """Hand out the row's current attempt."""
        self._hand_out(self.change_step(row))

    def _hand_out(self, row: StepRow) -> None:
        row.status, row.queued_at, row.holder, row.started_at = Status.QUEUED, self.now, None, None
        row.due_at = self.queue_due(row)
        self._queued[row.name] = QueueStep(row.name, row.attempt)
        self.note("step_enqueued", row)

    def keep(self, name: str, holder: str) -> bool:
        """Leave a step that this turn has queued for the first time with `holder`; False when it has queued no such step.

        It never was in a queue, so it has no `queued_at`.
        """
        row = self.decision.steps.get(name)
        if name not in self._queued or row is None or not row.is_new:
            return False
        del self._queued[name]
        self.decision.notices = [
            one for one in self.decision.notices if (one.kind, one.step) != ("step_enqueued", name)
        ]
        row.status, row.queued_at = Status.RUNNING, None
        row.holder, row.started_at = holder, self.now
        row.due_at = self.lease_due(row, self.now + self.plan.rules.lease_seconds)
        self.note("step_started", row, worker_id=holder)
        return True

    def lease_due(self, row: StepRow, lease_end: float) -> float:
        """When to look after a step that runs: at the end of its lease, or of its time."""
        hard = self.hard_deadline(row)
        return lease_end if hard is None else min(lease_end, hard)

    def hard_deadline(self, row: StepRow) -> float | None:
        """When the broker ends an attempt that its worker should have ended by the step's execution timeout."""
        timeout = self.plan_of(row.name).timeout_seconds
        if timeout is None or row.started_at is None:
            return None
        return row.started_at + timeout + self.plan.rules.timeout_grace_seconds

    def offer_again(self, row: StepRow) -> None:
        """Hand out once more what may have got lost on its way. It changes no row."""
        self._queued.setdefault(row.name, QueueStep(row.name, row.attempt, again=True))

    def queue_due(self, row: StepRow) -> float:
        """When to look at a queued step again: at its expiry or at the next sweep, whichever is first.

        The more often it was lost, the later: whoever holds it in silence for long is offered no copies all the time.
        """
        due = self.now + self.plan.rules.sweep_seconds
        if row.losses:
            due = self.now + self.plan.rules.sweep_seconds * (1 << min(row.losses, MAX_SWEEP_DOUBLINGS))
        expiry = self.plan_of(row.name).expiry_seconds
        return due if expiry is None or row.queued_at is None else min(due, row.queued_at + expiry)

    def close(self, row: StepRow, status: Status) -> StepRow:
        """A step has ended, for good."""
        row = self.change_step(row)
        row.status, row.finished_at, row.due_at = status, self.now, None
        self._opened -= 1
        if self._queued:
            self._queued.pop(row.name, None)
        return row

    def cancel(self, row: StepRow) -> None:
        """End an open step as CANCELLED; its edges fail."""
        row = self.close(row, Status.CANCELLED)
        self.note("step_cancelled", row)
        self.follow(row.name, EdgeState.FAILED)

    # ---- following edges

    def follow(self, name: str, state: EdgeState, action: str = DEFAULT_ACTION) -> None:
        """Resolve the edges out of a step that ended; the ones of an untaken action are dead. `settle` does the work."""
        live = state is EdgeState.LIVE
        for edge in self.plan_of(name).out:
            self._edges.append((edge, EdgeState.DEAD if live and action not in edge.actions else state))

    def settle(self) -> None:
        """Work off all edges, then fail the run if something that nothing tolerates came up, then end it if it is over."""
        self._work_off()
        if self._doom is not None and not self.run.is_failing:
            self._fail_run(*self._doom)
            self._work_off()
        if not self.run.open_steps + self._opened and not self.run.status.is_terminal:
            self.finish(RunStatus.FAILED if self.run.is_failing else RunStatus.SUCCEEDED)

    def _work_off(self) -> None:
        while self._edges:
            self._resolve(*self._edges.pop())

    def _resolve(self, edge: Edge, state: EdgeState) -> None:
        self._followed += 1
        target = self.plan_of(edge.target)
        if self.run.is_failing and not target.trigger.is_cleanup:
            return
        if not target.needs_counter:  # whatever it requires, all of it came with this edge
            failed = state is EdgeState.FAILED
            source = edge.source if failed else None
            if failed and target.trigger.is_cleanup:
                self._doom_by(source, target.name)
            self._decide_fate(target, fate(target.trigger, 0, state is EdgeState.LIVE, failed), source)
            return
        row = self.counter(target)
        if row.fired:
            return
        resolved = _requirements(row, edge, state)
        row.unresolved -= len(resolved)
        row.met += resolved.count(EdgeState.LIVE)
        row.failed += resolved.count(EdgeState.FAILED)
        failed_source = edge.source if state is EdgeState.FAILED else None
        if target.trigger.is_cleanup and EdgeState.FAILED in resolved:
            self._doom_by(failed_source, target.name)  # it starts because of a failure, and tolerates none
        decided = fate(target.trigger, row.unresolved, row.met, row.failed)
        if decided is not None:
            row.fired = True
            self._decide_fate(target, decided, failed_source)

    def _decide_fate(self, target: StepPlan, decided: Fate | None, failed_source: str | None) -> None:
        if decided is Fate.READY:
            self.queue(target.name)
        elif decided is Fate.SKIPPED:
            self.skip_unreached(target.name)
            self.follow(target.name, EdgeState.DEAD)
        else:  # its row stays implied; `_fail_run` follows its edges
            self._doom_by(failed_source, target.name)

    def _doom_by(self, source: str | None, target: str | None = None) -> None:
        """The run must fail: because `source` failed, or because a failure tolerated earlier left `target` without hope."""
        if self._doom is not None:
            return
        row = self.decision.steps.get(source) if source is not None else None
        if row is not None and row.error is not None:
            self._doom = (row.name, row.error)
        else:
            name = target or source or ""
            error = StepError(
                type="RequirementFailed", message=f"nothing that step {name!r} requires can succeed any more"
            )
            self._doom = (name, error)

    # ---- ends

    def doom(self, row: StepRow, error: StepError) -> None:
        """A step failed and has no successor that could do without it."""
        self._doom = (row.name, error)

    def _fail_run(self, name: str, error: StepError) -> None:
        """From here on only clean-up runs: what waits is cancelled, what runs is told to stop."""
        rows = self.all_steps()
        run = self.change_run()
        run.failed_step, run.error = name, error
        self.stop(self.plan.cleanup)
        for row in rows:
            if (
                row.status in (Status.PENDING, Status.QUEUED)
                and not self.plan_of(row.name).trigger.is_cleanup
            ):
                self.cancel(row)
        started = {row.name for row in rows if not row.is_reset}
        for step in self.plan.steps.values():
            if step.name not in started and not step.trigger.is_cleanup:
                self.follow(step.name, EdgeState.FAILED)

    def end_now(self, status: RunStatus, error: StepError | None = None) -> None:
        """End the run at once, whatever is still open (cancelled by somebody, or out of time)."""
        run = self.change_run()
        run.error = run.error or error
        self.stop()
        for row in self.all_steps():
            if not row.status.is_terminal:
                self.note("step_cancelled", self.close(row, Status.CANCELLED))
        self.finish(status)

    def stop(self, spare: Iterable[str] = ()) -> None:
        """Tell whoever executes steps of this run to stop, but for those to spare."""
        self._stop = StopSteps(frozenset(spare), self.run.replays)

    def finish(self, status: RunStatus) -> None:
        """The run is over."""
        run = self.change_run()
        run.status, run.finished_at, run.due_at = status, self.now, None
        self.decision.effects.append(FinishRun(status))
        self.note("workflow_finished", state=status.value)

    def refuse(self, verdict: Verdict, reason: str) -> None:
        """The event changes nothing."""
        self.decision.verdict, self.decision.reason = verdict, reason

    def done(self) -> Decision:
        """The whole decision."""
        effects = self.decision.effects
        if self._opened:
            self.change_run().open_steps += self._opened
        if self._stop is not None:
            effects.insert(0, self._stop)
        if self._queued:
            effects[:0] = self._queued.values()
        return self.decision


def _requirements(row: JoinRow, edge: Edge, state: EdgeState) -> list[EdgeState]:
    """The requirements that this edge resolves, and how; counts it in the OR groups that it belongs to."""
    if edge.solo:
        return [state]
    resolved = []
    for param in edge.groups:
        group = row.groups[param]
        group.open_edges -= 1
        if group.winner is not None:
            continue
        group.failed_edges += state is EdgeState.FAILED
        verdict = group_state(state, group.open_edges, group.failed_edges)
        if verdict is not None:
            if verdict is EdgeState.LIVE:
                group.winner = edge.source
            resolved.append(verdict)
    return resolved

"""Plays runs: rows kept in dictionaries, events decided on twice (whole and lazily loaded), promises checked each time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fuseline.engine import (
    Decision,
    FinishRun,
    JoinRow,
    NotLoaded,
    Plan,
    QueueStep,
    Snapshot,
    StepRow,
    Verdict,
    decide,
    implied_status,
    new_run,
    wanted,
)
from fuseline.engine.events import Event, RunDispatched, StepReplayed
from fuseline.engine.state import DeadLetter, LetterKey
from fuseline.model import RunStatus, Status, Trigger
from fuseline.model.status import DeadLetterState

TOLD = {
    Status.PENDING: "step_failed",
    Status.QUEUED: "step_enqueued",
    Status.RUNNING: "step_started",
    Status.SUCCEEDED: "step_finished",
    Status.FAILED: "step_failed",
    Status.SKIPPED: "step_skipped",
    Status.CANCELLED: "step_cancelled",
}


class Store:
    """A run's rows as a storage keeps them. `loaded` counts the rows read for the last event."""

    def __init__(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self.run = new_run(plan, "i", now)
        self.steps: dict[str, StepRow] = {}
        self.joins: dict[str, JoinRow] = {}
        self.letters: dict[LetterKey, DeadLetter] = {}
        self.loaded = 0
        self.tries = 0

    def status(self, name: str) -> Status:
        row = self.steps.get(name)
        known = row is not None and not row.is_reset
        return row.status if row is not None and known else implied_status(self.run, self.plan.steps[name])

    def decide_whole(self, event: Event, now: float) -> Decision:
        whole = Snapshot(self.run, dict(self.steps), dict(self.joins), True, dict(self.letters))
        return decide(self.plan, whole, event, now)

    def decide_lazily(self, event: Event, now: float) -> Decision:
        """As the ledger does: load what the event is likely to touch, and then what was missing."""
        snapshot = Snapshot(self.run)
        names, counters = wanted(self.plan, event)
        self.loaded, self.tries = 1, 1
        self._load(snapshot, names, counters)
        while True:
            try:
                return decide(self.plan, snapshot, event, now)
            except NotLoaded as missing:
                self.tries += 1
                assert self.tries < 100
                self._load(snapshot, missing.steps, missing.joins)
                if missing.letters:
                    assert snapshot.letters is None
                    snapshot.letters = dict(self.letters)
                if missing.whole:
                    snapshot.steps.update(sorted(self.steps.items(), reverse=True))  # in any order
                    snapshot.joins.update(self.joins)
                    snapshot.whole = True
                    self.loaded += len(self.steps) + len(self.joins)

    def _load(self, snapshot: Snapshot, steps: list[str] | tuple[str, ...], joins: object) -> None:
        assert isinstance(joins, list | tuple)
        assert not snapshot.steps.keys() & set(steps)  # nothing is asked for twice
        assert not snapshot.joins.keys() & set(joins)
        snapshot.steps.update({name: self.steps.get(name) for name in steps})
        snapshot.joins.update({name: self.joins.get(name) for name in joins})
        self.loaded += len(steps) + len(joins)

    def save(self, decision: Decision) -> None:
        if decision.run is not None:
            self.run = replace(decision.run, is_new=False)
        self.steps.update({name: replace(row, is_new=False) for name, row in decision.steps.items()})
        self.joins.update({name: replace(row, is_new=False) for name, row in decision.joins.items()})
        self.letters.update(decision.letters)

    def text(self) -> str:
        """All rows, every field: equal texts, equal states."""
        return f"{self.run!r}{self.steps!r}{self.joins!r}{self.letters!r}"


class Player:
    """Applies events to a run and checks after each what is promised of every decision."""

    def __init__(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self.store = Store(plan, now)
        self.now = now
        self.handed_out: list[QueueStep] = []
        self.fired: Counter[str] = Counter()
        self.finishes = 0
        self.apply(RunDispatched())

    def apply(self, event: Event) -> Decision:
        store, before = self.store, self.store.text()
        decision = store.decide_whole(event, self.now)
        assert decision == store.decide_lazily(event, self.now), "loading lazily decides alike"
        assert decision == store.decide_whole(event, self.now), "the same input, the same output"
        assert before == store.text(), "deciding changes nothing that it was given"
        if isinstance(event, StepReplayed) and decision.verdict is Verdict.ACCEPTED:
            self._check_replay(event, decision)
        else:
            self._check_rows(decision)
            self._check_notices(decision)
        if decision.verdict is not Verdict.ACCEPTED:
            assert decision.run is None
            assert not any((decision.steps, decision.joins, decision.letters, decision.notices))
            assert decision.reason
        store.save(decision)
        self._check_state()
        self._check_effects(decision)
        return decision

    def refused(self, event: Event) -> Verdict:
        """Apply an event that must change nothing (P3, P5)."""
        decision = self.apply(event)
        assert decision.verdict is not Verdict.ACCEPTED
        assert all(e.again for e in decision.effects if isinstance(e, QueueStep))
        return decision.verdict

    def _check_rows(self, decision: Decision) -> None:
        store = self.store
        if store.run.status.is_terminal:
            assert decision.run is None
        for name, row in decision.steps.items():
            known = store.steps.get(name)
            assert row.is_new is (known is None)
            if known is not None:
                assert known.is_reset or not known.status.is_terminal
                assert row.attempt >= known.attempt + (known.is_reset and not row.is_unreached)
        for name, join in decision.joins.items():
            counter = store.joins.get(name)
            assert join.is_new is (counter is None)
            assert counter is None or not counter.fired, "a join that has fired never changes"
            self.fired[name] += join.fired
            assert self.fired[name] <= 1, "a join fires once"

    def _check_replay(self, event: StepReplayed, decision: Decision) -> None:
        """The one way out of an end: told as that, counted, with attempts that only rise."""
        store = self.store
        assert store.run.status is RunStatus.FAILED
        assert decision.run is not None
        assert (decision.run.status, decision.run.replays) == (RunStatus.RUNNING, store.run.replays + 1)
        first = decision.notices[0]
        assert (first.kind, first.step, first.attempt) == ("run_replayed", event.step, event.attempt)
        for name, row in decision.steps.items():
            known = store.steps.get(name)
            assert row.is_new is (known is None)
            assert known is None or row.attempt == known.attempt + (row.status is Status.QUEUED)
            assert row.is_reset or row.is_unreached or name in first.detail["steps"]
        self.fired.subtract(
            name for name, known in store.joins.items() if known.fired and name in decision.joins
        )
        self.fired.update(name for name, join in decision.joins.items() if join.fired)
        self.finishes -= 1

    def _check_notices(self, decision: Decision) -> None:
        """Traces and the events exchange hear of every change."""
        told = {(notice.kind, notice.step, notice.attempt) for notice in decision.notices}
        for name, row in decision.steps.items():
            known = self.store.steps.get(name)
            if known is None or (known.status, known.attempt) != (row.status, row.attempt):
                attempt = row.attempt - (row.status is Status.PENDING)  # it waits for the next one
                assert (TOLD[row.status], name, attempt) in told
        ended = decision.run is not None and decision.run.status.is_terminal
        assert (("workflow_finished", None, None) in told) is ended

    def _check_state(self) -> None:
        rows = self.store.steps.values()
        assert self.store.run.open_steps == sum(not row.status.is_terminal for row in rows)
        for row in rows:
            assert (row.due_at is None) is row.status.is_terminal, (
                "what waits has a timer, and nothing else has"
            )
        open_letters = {key for key, one in self.store.letters.items() if one.state is DeadLetterState.OPEN}
        failed = {(row.name, row.attempt) for row in rows if row.status is Status.FAILED}
        assert open_letters <= failed <= self.store.letters.keys(), "what failed for good is a dead letter"
        if self.store.run.status is RunStatus.SUCCEEDED:
            assert not any(row.is_reset for row in rows)
            assert len(rows) == len(self.plan.steps), "all steps of a run that succeeded were decided on"

    def _check_effects(self, decision: Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, QueueStep):
                row = self.store.steps[effect.step]
                assert (row.status, row.attempt) == (Status.QUEUED, effect.attempt)
                first = replace(effect, again=False)
                assert (first in self.handed_out) is effect.again, (
                    "an attempt is handed out for the first time once"
                )
                if not effect.again:
                    self._check_order(effect.step)
                    self.handed_out.append(effect)
            if isinstance(effect, FinishRun):
                assert effect.status is self.store.run.status
                self.finishes += decision.verdict is Verdict.ACCEPTED
        assert self.finishes == self.store.run.status.is_terminal, "a run finishes once"

    def _check_order(self, name: str) -> None:
        """P2: what a step requires is recorded before it is queued."""
        step = self.plan.steps[name]
        grouped = {member for members in step.groups.values() for member in members}
        requirements = [(source,) for source in step.predecessors if source not in grouped]
        ended = [
            any(self.store.status(source).is_terminal for source in requirement)
            for requirement in (*requirements, *step.groups.values())
        ]
        one = step.trigger in (Trigger.ONE_SUCCESS, Trigger.ONE_FAILED)
        assert (any(ended) if one else all(ended)) or not ended

"""Deciding on one item after the other, on rows that change from item to item."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from fuseline.engine import JoinRow, Plan, Snapshot, StepPlan, decide, new_run
from fuseline.engine.assigning import assign
from fuseline.engine.effects import Decision, FinishRun, QueueStep, StopHolder, StopSteps, Verdict
from fuseline.engine.events import Event, RunDispatched
from fuseline.engine.state import NotLoaded
from fuseline.errors import CallerError, UnknownRunError
from fuseline.ledger.items import Dispatch, Occurrence, Outcome
from fuseline.model.messages import StepAssignment
from fuseline.model.status import Status
from fuseline.storage.base import Key, Wanted

_BEGINS: Final = RunDispatched()
"""Of a run that did not exist before."""

Pair = tuple[Outcome, Decision | None]
Queued = tuple[Outcome, Plan, list[QueueStep]]


class Decider(ABC):
    """Some runs, as far as they have been loaded: `snapshots` and `inputs` by instance id."""

    __slots__ = ("_begun", "inputs", "new_inputs", "now", "snapshots")

    def __init__(self, now: float) -> None:
        self.now = now
        self.snapshots: dict[str, Snapshot] = {}
        self.inputs: dict[str, dict[str, Any]] = {}
        self.new_inputs: dict[str, dict[str, Any]] = {}
        self._begun: dict[tuple[str, str], Decision] = {}

    @abstractmethod
    def _plan(self, workflow_id: str, version: str) -> Plan:
        """Raises `UnknownWorkflowError`."""

    @abstractmethod
    def _load(self, want: Wanted) -> None:
        """Add rows to the snapshots; what was changed already stays as it is."""

    # ---- deciding

    def _decide_all(self, items: Sequence[Dispatch | Occurrence]) -> list[Outcome]:
        pairs = [self._decide(item) for item in items]
        self._hand_out(pairs)
        return [outcome for outcome, _ in pairs]

    def _decide(self, item: Dispatch | Occurrence) -> Pair:
        try:
            plan, snapshot, event = self._resolve(item)
        except CallerError as error:
            return Outcome(item.instance_id, Verdict.UNKNOWN, str(error), error=error), None
        return self._decide_event(plan, snapshot, event)

    def _decide_event(self, plan: Plan, snapshot: Snapshot, event: Event) -> Pair:
        i = snapshot.run.instance_id
        row = snapshot.steps.get(getattr(event, "step", ""))
        try:
            if event is _BEGINS:
                decision = self._decide_beginning(plan, snapshot)
            else:
                decision = self._decide_loading(plan, snapshot, event)
        except CallerError as error:
            key = plan.workflow_id, plan.version
            return Outcome(i, Verdict.UNKNOWN, str(error), *key, error=error), None
        outcome = Outcome(
            i,
            decision.verdict,
            decision.reason,
            plan.workflow_id,
            plan.version,
            self.now,
            None if row is None else row.queued_at,
            notices=decision.notices,
        )
        self._merge(snapshot, decision)
        return outcome, decision

    def _resolve(self, item: Dispatch | Occurrence) -> tuple[Plan, Snapshot, Event]:
        snapshot = self.snapshots.get(item.instance_id)
        if isinstance(item, Dispatch):
            plan = self._plan(item.workflow_id, item.version)
            if snapshot is None:
                snapshot = Snapshot(new_run(plan, item.instance_id, self.now), whole=True)
                self.snapshots[item.instance_id] = snapshot
                self.inputs[item.instance_id] = self.new_inputs[item.instance_id] = item.inputs
                return plan, snapshot, _BEGINS
            if (snapshot.run.workflow_id, snapshot.run.version) != (item.workflow_id, item.version):
                raise CallerError(f"instance id {item.instance_id!r} belongs to a run of another workflow")
            return plan, snapshot, RunDispatched()
        if snapshot is None or item.workflow_id not in (None, snapshot.run.workflow_id):
            where = "" if item.workflow_id is None else f" of workflow {item.workflow_id!r}"
            raise UnknownRunError(f"no run {item.instance_id!r}{where} is known")
        run = snapshot.run
        return self._plan(run.workflow_id, run.version), snapshot, item.event

    def _decide_beginning(self, plan: Plan, snapshot: Snapshot) -> Decision:
        """Of many that begin together only the first is decided on: the others are as it is, in half the time."""
        key = plan.workflow_id, plan.version
        begun = self._begun.get(key)
        if begun is not None:
            return begun.for_run(snapshot.run.instance_id)
        decision = self._begun[key] = self._decide_loading(plan, snapshot, _BEGINS)
        return decision

    def _decide_loading(self, plan: Plan, snapshot: Snapshot, event: Event) -> Decision:
        i = snapshot.run.instance_id
        while True:
            try:
                return decide(plan, snapshot, event, self.now)
            except NotLoaded as missing:
                self._load(
                    Wanted(
                        steps={(i, name) for name in missing.steps},
                        joins={(i, name) for name in missing.joins},
                        whole={i} if missing.whole else set(),
                        letters={i} if missing.letters else set(),
                    )
                )

    def _merge(self, snapshot: Snapshot, decision: Decision) -> None:
        if decision.run is not None:
            snapshot.run = decision.run
        snapshot.steps.update(decision.steps)
        snapshot.joins.update(decision.joins)
        if decision.letters and snapshot.letters is not None:
            snapshot.letters.update(decision.letters)

    # ---- handing out

    def _hand_out(self, pairs: list[Pair]) -> None:
        queued: list[Queued] = []
        for outcome, decision in pairs:
            if decision is None or not decision.effects:
                continue
            rows = self.snapshots[outcome.instance_id].steps
            mine: list[QueueStep] = []
            for effect in decision.effects:
                if isinstance(effect, QueueStep):
                    row = rows.get(effect.step)
                    # A later event of the same batch may have ended it before it went out.
                    if row is not None and row.status is Status.QUEUED and row.attempt == effect.attempt:
                        mine.append(effect)
                elif isinstance(effect, StopSteps):
                    outcome.stop = effect
                elif isinstance(effect, StopHolder):
                    outcome.stop_holders.append(effect)
                elif isinstance(effect, FinishRun):
                    outcome.finished = effect.status
            if mine:
                queued.append((outcome, self._plan(outcome.workflow_id, outcome.version), mine))
        if queued:
            self._load_payloads(queued)
        for outcome, plan, mine in queued:
            for effect in mine:
                outcome.assignments.append(self._assignment(outcome.instance_id, plan, effect))
                step = plan.steps[effect.step]
                if step.expiry_seconds is not None:
                    outcome.expiry_seconds[effect.step] = step.expiry_seconds
                if effect.again:
                    outcome.offered_again.add(effect.step)

    def _load_payloads(self, queued: list[Queued]) -> None:
        want_inputs: set[str] = set()
        want_steps: set[Key] = set()
        want_joins: set[Key] = set()
        for outcome, plan, effects in queued:
            i = outcome.instance_id
            if i not in self.inputs:
                want_inputs.add(i)
            snapshot = self.snapshots[i]
            if snapshot.whole:
                continue
            for effect in effects:
                step = plan.step(effect.step)
                if step is None:
                    continue
                for name in step.predecessors:
                    if name not in snapshot.steps:
                        want_steps.add((i, name))
                if step.groups and step.needs_counter and step.name not in snapshot.joins:
                    want_joins.add((i, step.name))
        if want_inputs or want_steps or want_joins:
            self._load(Wanted(steps=want_steps, joins=want_joins, inputs=want_inputs))

    def _assignment(self, i: str, plan: Plan, effect: QueueStep) -> StepAssignment:
        step, snapshot = plan.steps[effect.step], self.snapshots[i]
        results: dict[str, Any] = {}
        for name, actions in step.taken_by.items():
            row = snapshot.steps.get(name)
            if row is not None and row.status is Status.SUCCEEDED and row.action in actions:
                results[name] = row.result
        payload: dict[str, Any] = {"workflow_inputs": self.inputs.get(i, {}), "results": results}
        if step.groups:
            join = snapshot.joins.get(step.name)
            if join is not None:
                winners = {group.winner for group in join.groups.values()}
                for name in set(itertools.chain.from_iterable(step.groups.values())) - winners:
                    results.pop(name, None)
            payload["winners"] = _winners(step, join, results)
        return assign(plan, step, i, payload, self.now, attempt=effect.attempt, replays=snapshot.run.replays)


def _winners(step: StepPlan, join: JoinRow | None, results: dict[str, Any]) -> dict[str, str]:
    """Which source each OR group goes by. One that nobody won (a trigger did without it) is not in it."""
    if join is None:  # a single edge leads here
        return {param: name for param, names in step.groups.items() for name in names if name in results}
    return {param: group.winner for param, group in join.groups.items() if group.winner is not None}

"""One batch in one transaction: load, decide, hand out, save."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fuseline.engine import JoinRow, Plan, Snapshot, StepPlan, decide, new_run, wanted
from fuseline.engine.assigning import assign
from fuseline.engine.effects import Decision, FinishRun, QueueStep, StopHolder, StopSteps, Verdict
from fuseline.engine.events import Event, RunDispatched
from fuseline.engine.state import DeadLetter, LetterKey, NotLoaded, RunRow, StepRow
from fuseline.errors import CallerError, UnknownRunError, UnknownWorkflowError
from fuseline.ledger.definitions import Definitions
from fuseline.ledger.items import Dispatch, Occurrence, Outcome
from fuseline.model.messages import StepAssignment
from fuseline.model.status import Status
from fuseline.storage.base import Changes, Key, Transaction, Wanted


class Batch:
    """The rows of one transaction's runs, as they change from item to item."""

    __slots__ = (
        "_note_due",
        "_plans",
        "changed_joins",
        "changed_letters",
        "changed_runs",
        "changed_steps",
        "definitions",
        "inputs",
        "new_inputs",
        "now",
        "snapshots",
        "tx",
    )

    def __init__(
        self, definitions: Definitions, tx: Transaction, now: float, note_due: Callable[[float], None]
    ) -> None:
        self.definitions = definitions
        self.tx = tx
        self.now = now
        # Told before the commit: one whose answer is lost may have set deadlines all the same.
        self._note_due = note_due
        self.snapshots: dict[str, Snapshot] = {}
        self.inputs: dict[str, dict[str, Any]] = {}
        self.new_inputs: dict[str, dict[str, Any]] = {}
        self.changed_runs: dict[str, RunRow] = {}
        self.changed_steps: dict[Key, StepRow] = {}
        self.changed_joins: dict[Key, JoinRow] = {}
        self.changed_letters: dict[tuple[str, LetterKey], DeadLetter] = {}
        self._plans: dict[tuple[str, str], Plan] = {}

    def run(self, items: Sequence[Dispatch | Occurrence]) -> list[Outcome]:
        self._preload(items)
        pairs = [self._decide(item) for item in items]
        self._hand_out(pairs)
        self._save()
        return [outcome for outcome, _ in pairs]

    def offer(self, attempts: Iterable[tuple[str, str, int]]) -> list[Outcome]:
        by_run: dict[str, list[QueueStep]] = {}
        for i, name, attempt in attempts:
            by_run.setdefault(i, []).append(QueueStep(name, attempt, again=True))
        self.snapshots = {i: Snapshot(run) for i, run in self.tx.load(Wanted(runs=set(by_run))).runs.items()}
        pairs: list[tuple[Outcome, Decision | None]] = []
        for i, snapshot in self.snapshots.items():
            key = snapshot.run.workflow_id, snapshot.run.version
            outcome = Outcome(i, Verdict.DUPLICATE, "offered again", *key)
            pairs.append((outcome, Decision(effects=list(by_run[i]))))
        self._load(Wanted(steps={(i, effect.step) for i in self.snapshots for effect in by_run[i]}))
        self._hand_out(pairs)
        return [outcome for outcome, _ in pairs]

    def rebuild(self, i: str, name: str, attempt: int) -> StepAssignment | None:
        """What this attempt was, or would be, handed out with; None when its run is gone."""
        run = self.tx.load(Wanted(runs={i})).runs.get(i)
        if run is None:
            return None
        self.snapshots = {i: Snapshot(run)}
        plan = self._plan(run.workflow_id, run.version)
        effect = QueueStep(name, attempt)
        if plan.step(name) is None:
            return None
        self._load_payloads([(Outcome(i, Verdict.ACCEPTED), plan, effect)])
        return self._assignment(i, plan, effect)

    # ---- deciding

    def _preload(self, items: Sequence[Dispatch | Occurrence]) -> None:
        found = self.tx.load(Wanted({item.instance_id for item in items}))
        self.snapshots = snapshots = {i: Snapshot(run) for i, run in found.runs.items()}
        want_steps: set[Key] = set()
        want_joins: set[Key] = set()
        for item in items:
            i = item.instance_id
            snapshot = snapshots.get(i)
            if snapshot is None or isinstance(item, Dispatch):
                continue
            try:
                plan = self._plan(snapshot.run.workflow_id, snapshot.run.version)
            except UnknownWorkflowError:
                continue  # `_decide` meets it again and says so in the item's outcome
            steps, joins = wanted(plan, item.event)
            for name in steps:
                want_steps.add((i, name))
            for name in joins:
                want_joins.add((i, name))
        if want_steps or want_joins:
            self._load(Wanted(steps=want_steps, joins=want_joins))

    def _plan(self, workflow_id: str, version: str) -> Plan:
        """Looked up once in a batch. Raises `UnknownWorkflowError`."""
        key = workflow_id, version
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self.definitions.plan_within(self.tx, key)
        return plan

    def _load(self, want: Wanted) -> None:
        """Add rows to the snapshots; what this batch changed already stays as it is."""
        found = self.tx.load(want)
        snapshots = self.snapshots
        for key in want.steps:
            snapshots[key[0]].steps.setdefault(key[1], found.steps.get(key))
        for key in want.joins:
            snapshots[key[0]].joins.setdefault(key[1], found.joins.get(key))
        if want.inputs:
            self.inputs.update(found.inputs)
        if want.whole:
            for (i, name), step in found.steps.items():
                if self.snapshots[i].steps.get(name) is None:
                    self.snapshots[i].steps[name] = step
            for (i, name), join in found.joins.items():
                if self.snapshots[i].joins.get(name) is None:
                    self.snapshots[i].joins[name] = join
            for i in want.whole:
                self.snapshots[i].whole = True
        for i in want.letters:
            mine = {key: letter for (of, key), letter in self.changed_letters.items() if of == i}
            self.snapshots[i].letters = found.letters.get(i, {}) | mine

    def _decide(self, item: Dispatch | Occurrence) -> tuple[Outcome, Decision | None]:
        outcome = Outcome(item.instance_id, Verdict.UNKNOWN)
        try:
            plan, snapshot, event = self._resolve(item)
            outcome.workflow_id, outcome.version = plan.workflow_id, plan.version
            row = snapshot.steps.get(getattr(event, "step", ""))
            queued_at = None if row is None else row.queued_at
            decision = self._decide_loading(plan, snapshot, event)
        except CallerError as error:
            outcome.error, outcome.reason = error, str(error)
            return outcome, None
        outcome.queued_at = queued_at
        outcome.verdict, outcome.reason, outcome.notices = decision.verdict, decision.reason, decision.notices
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
            elif (snapshot.run.workflow_id, snapshot.run.version) != (item.workflow_id, item.version):
                raise CallerError(f"instance id {item.instance_id!r} belongs to a run of another workflow")
            return plan, snapshot, RunDispatched()
        if snapshot is None or item.workflow_id not in (None, snapshot.run.workflow_id):
            where = "" if item.workflow_id is None else f" of workflow {item.workflow_id!r}"
            raise UnknownRunError(f"no run {item.instance_id!r}{where} is known")
        run = snapshot.run
        return self._plan(run.workflow_id, run.version), snapshot, item.event

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
        i = snapshot.run.instance_id
        if decision.run is not None:
            snapshot.run = self.changed_runs[i] = decision.run
        for name, row in decision.steps.items():
            snapshot.steps[name] = self.changed_steps[i, name] = row
        for name, join in decision.joins.items():
            snapshot.joins[name] = self.changed_joins[i, name] = join
        for key, letter in decision.letters.items():
            self.changed_letters[i, key] = letter
            if snapshot.letters is not None:
                snapshot.letters[key] = letter

    # ---- handing out

    def _hand_out(self, pairs: list[tuple[Outcome, Decision | None]]) -> None:
        queued: list[tuple[Outcome, Plan, QueueStep]] = []
        for outcome, decision in pairs:
            for effect in decision.effects if decision is not None else ():
                if isinstance(effect, QueueStep):
                    row = self.snapshots[outcome.instance_id].steps.get(effect.step)
                    # A later event of the same batch may have ended it before it went out.
                    if row is not None and row.status is Status.QUEUED and row.attempt == effect.attempt:
                        queued.append((outcome, self._plan(outcome.workflow_id, outcome.version), effect))
                elif isinstance(effect, StopSteps):
                    outcome.stop = effect
                elif isinstance(effect, StopHolder):
                    outcome.stop_holders.append(effect)
                elif isinstance(effect, FinishRun):
                    outcome.finished = effect.status
        if queued:
            self._load_payloads(queued)
        for outcome, plan, effect in queued:
            outcome.assignments.append(self._assignment(outcome.instance_id, plan, effect))
            step = plan.step(effect.step)
            if step is not None and step.expiry_seconds is not None:
                outcome.expiry_seconds[effect.step] = step.expiry_seconds
            if effect.again:
                outcome.offered_again.add(effect.step)

    def _load_payloads(self, queued: list[tuple[Outcome, Plan, QueueStep]]) -> None:
        want_inputs: set[str] = set()
        want_steps: set[Key] = set()
        want_joins: set[Key] = set()
        for outcome, plan, effect in queued:
            i = outcome.instance_id
            if i not in self.inputs:
                want_inputs.add(i)
            step, snapshot = plan.step(effect.step), self.snapshots[i]
            if step is None or snapshot.whole:
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

    # ---- saving

    def _save(self) -> None:
        changes = Changes(
            [self.changed_runs[i] for i in sorted(self.changed_runs)],
            [(key[0], self.changed_steps[key]) for key in sorted(self.changed_steps)],
            [(key[0], self.changed_joins[key]) for key in sorted(self.changed_joins)],
            self.new_inputs,
            [(key[0], self.changed_letters[key]) for key in sorted(self.changed_letters)],
        )
        if not changes:
            return
        self.tx.save(changes)
        dues = [row.due_at for row in changes.runs if row.due_at is not None]
        dues += [row.due_at for _, row in changes.steps if row.due_at is not None]
        if dues:
            self._note_due(min(dues))


def _winners(step: StepPlan, join: JoinRow | None, results: dict[str, Any]) -> dict[str, str]:
    """Which source each OR group goes by. One that nobody won (a trigger did without it) is not in it."""
    if join is None:  # a single edge leads here
        return {param: name for param, names in step.groups.items() for name in names if name in results}
    return {param: group.winner for param, group in join.groups.items() if group.winner is not None}

"""One batch in one transaction: load, decide, hand out, save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fuseline.engine import JoinRow, Plan, Snapshot, wanted
from fuseline.engine.effects import Decision, QueueStep, Verdict
from fuseline.engine.events import StepReported
from fuseline.engine.state import DeadLetter, LetterKey, RunRow, StepRow
from fuseline.errors import UnknownWorkflowError
from fuseline.ledger.deciding import Decider, Pair
from fuseline.ledger.definitions import Definitions
from fuseline.ledger.items import Dispatch, Occurrence, Outcome, Then
from fuseline.model.messages import StepAssignment
from fuseline.storage.base import Changes, Key, Loaded, Transaction, Wanted


class Batch(Decider):
    """The rows of one transaction's runs, as they change from item to item."""

    __slots__ = (
        "_note_due",
        "_plans",
        "changed_joins",
        "changed_letters",
        "changed_runs",
        "changed_steps",
        "definitions",
        "tx",
    )

    def __init__(
        self, definitions: Definitions, tx: Transaction, now: float, note_due: Callable[[float], None]
    ) -> None:
        super().__init__(now)
        self.definitions = definitions
        self.tx = tx
        # Told before the commit: one whose answer is lost may have set deadlines all the same.
        self._note_due = note_due
        self.changed_runs: dict[str, RunRow] = {}
        self.changed_steps: dict[Key, StepRow] = {}
        self.changed_joins: dict[Key, JoinRow] = {}
        self.changed_letters: dict[tuple[str, LetterKey], DeadLetter] = {}
        self._plans: dict[tuple[str, str], Plan] = {}

    def run(
        self, items: Sequence[Dispatch | Occurrence], then: Then | None = None, *, presume_new: bool = False
    ) -> list[Outcome]:
        """`presume_new`: no run that is dispatched is looked for. Where one exists storage does not save anything."""
        outcomes = self._decide_all(items) if presume_new else self._run(items)
        if then is not None and (more := then(outcomes)):
            outcomes += self._run(more)
        self._save()
        return outcomes

    def _run(self, items: Sequence[Dispatch | Occurrence]) -> list[Outcome]:
        self._preload(items)
        return self._decide_all(items)

    def offer(self, attempts: Iterable[tuple[str, str, int]]) -> list[Outcome]:
        by_run: dict[str, list[QueueStep]] = {}
        for i, name, attempt in attempts:
            by_run.setdefault(i, []).append(QueueStep(name, attempt, again=True))
        self.snapshots = {i: Snapshot(run) for i, run in self.tx.load(Wanted(runs=set(by_run))).runs.items()}
        pairs: list[Pair] = []
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
        self._load_payloads([(Outcome(i, Verdict.ACCEPTED), plan, [effect])])
        return self._assignment(i, plan, effect)

    # ---- loading

    def _preload(self, items: Sequence[Dispatch | Occurrence]) -> None:
        snapshots = self.snapshots
        new = {item.instance_id for item in items} - snapshots.keys()
        if new:
            want = self._guess(new, items)
            found = self.tx.load(want)
            snapshots.update((i, Snapshot(run)) for i, run in found.runs.items())
            self._put(want, found)
            if found.is_partial:
                return
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
            if not snapshot.whole:
                for name in steps:
                    if name not in snapshot.steps:
                        want_steps.add((i, name))
                for name in joins:
                    if name not in snapshot.joins:
                        want_joins.add((i, name))
        if want_steps or want_joins:
            self._load(Wanted(steps=want_steps, joins=want_joins))

    def _guess(self, new: set[str], items: Sequence[Dispatch | Occurrence]) -> Wanted:
        """What will most likely be needed of new runs, before their headers say of which version they are.

        It is a way to the storage less. What is guessed wrong is not looked at, and what is missing is loaded then.
        """
        want_steps: set[Key] = set()
        want_joins: set[Key] = set()
        want_inputs: set[str] = set()
        for item in items:
            if isinstance(item, Dispatch) or item.instance_id not in new:
                continue
            i, event = item.instance_id, item.event
            plan = None if item.workflow_id is None else self.definitions.guess(item.workflow_id)
            if plan is None:
                if (name := getattr(event, "step", None)) is not None:
                    want_steps.add((i, name))
                continue
            steps, joins = wanted(plan, event)
            for name in steps:
                want_steps.add((i, name))
            for name in joins:
                want_joins.add((i, name))
            if isinstance(event, StepReported) and event.continues_with is None:
                step = plan.step(event.step)
                if step is not None and len(joins) < len(step.out):
                    want_inputs.add(i)
        return Wanted(new, steps=want_steps, joins=want_joins, inputs=want_inputs)

    def _plan(self, workflow_id: str, version: str) -> Plan:
        """Looked up once in a batch."""
        key = workflow_id, version
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self.definitions.plan_within(self.tx, key)
        return plan

    def _load(self, want: Wanted) -> None:
        self._put(want, self.tx.load(want))

    def _put(self, want: Wanted, found: Loaded) -> None:
        snapshots = self.snapshots
        for key in found.steps if found.is_partial else want.steps:
            if (snapshot := snapshots.get(key[0])) is not None:
                snapshot.steps.setdefault(key[1], found.steps.get(key))
        for key in () if found.is_partial else want.joins:
            if (snapshot := snapshots.get(key[0])) is not None:
                snapshot.joins.setdefault(key[1], found.joins.get(key))
        if found.inputs:
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

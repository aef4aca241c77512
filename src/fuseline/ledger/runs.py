"""One run, for whoever executes all of it: he says what happened, and is told what to do then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from fuseline.clock import Clock
from fuseline.engine import Plan, Snapshot, new_run
from fuseline.engine.events import Event, RunDispatched
from fuseline.engine.state import RunRow, StepRow
from fuseline.errors import FuselineError
from fuseline.ledger.book import Ledger
from fuseline.ledger.deciding import Decider
from fuseline.ledger.items import Dispatch, Occurrence, Outcome
from fuseline.storage.base import StoredRun, Wanted


class RunBook(ABC):
    """What is written down of one run."""

    @abstractmethod
    def begin(self, inputs: dict[str, Any]) -> list[Outcome]:
        """Dispatch it."""

    @abstractmethod
    def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Decide on each event in order, all at once or not at all; an outcome an event."""

    @abstractmethod
    def run_row(self) -> RunRow | None:
        """The header."""

    @abstractmethod
    def step_row(self, step: str) -> StepRow | None:
        """A step's row, if it has one."""

    @abstractmethod
    def stored(self) -> StoredRun:
        """All of it."""


class LedgerRun(RunBook):
    """In a storage that others may look at."""

    def __init__(self, ledger: Ledger, plan: Plan, instance_id: str) -> None:
        self._ledger = ledger
        self._plan = plan
        self._instance_id = instance_id

    def begin(self, inputs: dict[str, Any]) -> list[Outcome]:
        plan = self._plan
        return self._ledger.apply([Dispatch(plan.workflow_id, plan.version, self._instance_id, inputs)])

    def apply(self, events: Sequence[Event]) -> list[Outcome]:
        workflow_id = self._plan.workflow_id
        return self._ledger.apply([Occurrence(self._instance_id, event, workflow_id) for event in events])

    def run_row(self) -> RunRow | None:
        return self._ledger.storage.read_run_row(self._instance_id)

    def step_row(self, step: str) -> StepRow | None:
        key = self._instance_id, step
        with self._ledger.storage.transaction() as tx:
            return tx.load(Wanted(runs={self._instance_id}, steps={key})).steps.get(key)

    def stored(self) -> StoredRun:
        stored = self._ledger.storage.read_run(self._instance_id)
        if stored is None:
            raise FuselineError(f"run {self._instance_id} is not in its storage any more")
        return stored


class PrivateRun(Decider, RunBook):
    """In this process alone: its rows stay here from event to event, so that nothing is loaded, locked or saved.

    For one thread.
    """

    __slots__ = ("_clock", "_compiled", "_snapshot")

    def __init__(self, plan: Plan, instance_id: str, clock: Clock) -> None:
        super().__init__(clock.now())
        self._clock = clock
        self._compiled = plan
        self._snapshot = Snapshot(new_run(plan, instance_id, self.now), whole=True, letters={})
        self.snapshots[instance_id] = self._snapshot

    def begin(self, inputs: dict[str, Any]) -> list[Outcome]:
        self.inputs[self._snapshot.run.instance_id] = inputs
        return self.apply([RunDispatched()])

    def apply(self, events: Sequence[Event]) -> list[Outcome]:
        self.now = self._clock.now()
        pairs = [self._decide_event(self._compiled, self._snapshot, event) for event in events]
        self._hand_out(pairs)
        return [outcome for outcome, _ in pairs]

    def run_row(self) -> RunRow | None:
        return self._snapshot.run

    def step_row(self, step: str) -> StepRow | None:
        return self._snapshot.steps.get(step)

    def stored(self) -> StoredRun:
        run = self._snapshot.run
        steps = {name: row for name, row in self._snapshot.steps.items() if row is not None}
        return StoredRun(run, self.inputs.get(run.instance_id, {}), steps)

    def _plan(self, workflow_id: str, version: str) -> Plan:
        return self._compiled

    def _load(self, want: Wanted) -> None:
        raise FuselineError(f"run {self._snapshot.run.instance_id} lacks {want}")  # all there is, is here

"""What the checker judges: facts from six independent witnesses, read after everything was healed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.messages import StepError
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.testing.simulation.semantics import Graph
from tests.fault.audit import Change
from tests.fault.history import read_lines

Row = dict[str, Any]


@dataclass
class Asked:
    """One dispatch: what for, and what was answered."""

    workflow_id: str
    inputs: Row
    outcome: str = "indeterminate"
    cancels: int = 0
    replays: int = 0
    answers: list[str] = field(default_factory=list)


@dataclass
class Letter:
    """A message in a queue of last resort. `reason`: RabbitMQ's (a dead letter) or Fuseline's (a parked message)."""

    message_id: str | None
    reason: str
    body: bytes
    mark: str | None = None


@dataclass
class Facts:
    """`views`: what the broker said about some runs at the end; `leases`: what workers said that they hold."""

    definitions: dict[str, WorkflowSchema]
    asked: dict[str, Asked]
    changes: list[Change]
    runs: list[Row]
    steps: list[Row]
    executions: list[Row]
    last_fault_at: float
    within_seconds: float
    letters: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    queues: dict[str, int | None] = field(default_factory=dict)
    dead: list[Letter] = field(default_factory=list)
    parked: list[Letter] = field(default_factory=list)
    injected: set[str] = field(default_factory=set)
    leases: dict[str, list[Any]] = field(default_factory=dict)
    views: dict[str, Row] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    fusion_hops: int = 0

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """Each workflow's meaning."""
        return {workflow_id: Graph(schema) for workflow_id, schema in self.definitions.items()}

    @cached_property
    def replays(self) -> set[tuple[str, int]]:
        """(run, transaction) of each replay of a dead letter: where an operator set a run going again that had failed."""
        counts: dict[str, int] = {}
        found = set()
        for change in self.changes:
            if change.table == "runs":
                count = change.body.get("replays", 0)
                if count > counts.get(change.run, 0):
                    found.add((change.run, change.tx))
                counts[change.run] = count
        return found

    @cached_property
    def replayed_runs(self) -> set[str]:
        """The runs that were set going again."""
        return {run for run, _ in self.replays}

    @cached_property
    def replayed_at(self) -> dict[str, float]:
        """When each replayed run was set going again the last time."""
        return {change.run: change.at for change in self.changes if (change.run, change.tx) in self.replays}

    def is_of_before(self, execution: Row) -> bool:
        """Whether a replay may have taken back what this execution saw: it is older, or not of the step's last attempt.

        What is decided on anew may be skipped then, and keeps its attempt.
        """
        if execution["run"] not in self.replayed_runs:
            return False
        if execution["at"] < self.replayed_at[execution["run"]]:
            return True
        return bool(execution["attempt"] != self.step_rows[execution["run"]][execution["step"]].attempt)

    @cached_property
    def queued(self) -> dict[tuple[str, str, int], float]:
        """When each attempt (run, step, number) was queued first; with step fusion some never are."""
        found: dict[tuple[str, str, int], float] = {}
        for change in self.changes:
            if change.table == "steps" and (change.body["status"] == "QUEUED" or not self.fusion_hops):
                found.setdefault((change.run, str(change.name), change.body["attempt"]), change.at)
        return found

    @cached_property
    def successes(self) -> dict[tuple[str, str, str], float]:
        """When each execution (run, step, nonce) that succeeded had ended."""
        return {
            (line["run"], line["step"], line["nonce"]): line["at"]
            for line in self.executions
            if line["what"] == "end" and line["outcome"] == "succeeded"
        }

    @cached_property
    def run_rows(self) -> dict[str, RunRow]:
        """The runs as they stand at the end."""
        return {row["instance_id"]: run_row(row) for row in self.runs}

    @cached_property
    def step_rows(self) -> dict[str, dict[str, StepRow]]:
        """Their steps, by run and name."""
        found: dict[str, dict[str, StepRow]] = {row["instance_id"]: {} for row in self.runs}
        for row in self.steps:
            found.setdefault(row["instance_id"], {})[row["name"]] = step_row(row)
        return found


def run_row(row: Row) -> RunRow:
    """A row of the table as the engine's type, which serves here as a plain record."""
    return RunRow(
        row["instance_id"],
        row["workflow_id"],
        row["version"],
        RunStatus(row["status"]),
        row["created_at"],
        row["open_steps"],
        row["failed_step"],
        _error(row["error"]),
        row["due_at"],
        row["finished_at"],
        replays=row.get("replays", 0),
    )


def step_row(row: Row) -> StepRow:
    """The same for a step."""
    return StepRow(
        row["name"],
        Status(row["status"]),
        row["attempt"],
        row["failures"],
        row["losses"],
        row["holder"],
        row["queued_at"],
        row["started_at"],
        row["finished_at"],
        row["due_at"],
        row["action"],
        None if row["result"] is None else json.loads(row["result"]),
        _error(row["error"]),
    )


def _error(text: str | None) -> StepError | None:
    return None if text is None else StepError(**json.loads(text))


def read_asked(history: Path) -> tuple[dict[str, Asked], set[str]]:
    """The dispatches of a history file, and the marks of the messages that the adversary let in."""
    asked: dict[str, Asked] = {}
    marks = set()
    for line in read_lines(history):
        what = line["what"]
        if what == "asked":
            asked[line["run"]] = Asked(line["workflow"], line["inputs"])
        elif what in ("acknowledged", "failed", "refused"):
            asked[line["run"]].outcome = what
        elif what == "unanswered":
            asked[line["run"]].answers.append(line["error"])
        elif what == "cancelling":
            asked[line["run"]].cancels += 1
        elif what == "replaying":
            asked[line["run"]].replays += 1
        elif what == "injected":
            marks.add(line["mark"])
    return asked, marks


def read_executions(folder: Path) -> list[Row]:
    """All lines of all execution logs, in the order of time."""
    found = [line for path in folder.glob("executions-*.jsonl") for line in read_lines(path)]
    return sorted(found, key=lambda line: float(line["at"]))

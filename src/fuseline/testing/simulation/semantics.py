"""What a graph means, written down a second time and without any cleverness: by looking at whole runs.

It shares nothing with the engine but the rows' types. Where the engine counts arrivals, this looks at all sources anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.schema import StepSchema, WorkflowSchema
from fuseline.model.status import Status

Rows = Mapping[str, StepRow]

READY, SKIPPED, CANCELLED, WAITING = "ready", "skipped", "cancelled", "waiting"
_LIVE, _DEAD, _FAILED, _OPEN = "live", "dead", "failed", "open"
_CLEANUP = ("all_done", "one_failed")


class Graph:
    """One workflow version's graph."""

    def __init__(self, schema: WorkflowSchema) -> None:
        self.steps: dict[str, StepSchema] = dict(schema.steps)
        self.rules = {name: step.trigger().value for name, step in self.steps.items()}
        self.starts = {name for name, step in self.steps.items() if not step.predecessors}
        self.after = {name: {target for _, target in step.edges_out()} for name, step in self.steps.items()}

    def is_cleanup(self, name: str) -> bool:
        """Whether the step still starts in a failing run."""
        return self.rules[name] in _CLEANUP

    def edge(self, run: RunRow, rows: Rows, source: str, target: str) -> str:
        """What the edge turned out to be."""
        row = rows.get(source)
        if row is None:
            return _FAILED if run.error is not None and not self.is_cleanup(source) else _OPEN
        if row.status in (Status.FAILED, Status.CANCELLED):
            return _FAILED
        if row.is_unreached:
            return _DEAD
        if row.status in (Status.SUCCEEDED, Status.SKIPPED):
            taken = self.steps[source].successors.get(row.action or "default", [])
            return _LIVE if target in taken else _DEAD
        return _OPEN

    def requirements(self, run: RunRow, rows: Rows, name: str) -> list[str]:
        """The state of each requirement of a step."""
        step = self.steps[name]
        edges = {source: self.edge(run, rows, source, name) for source in step.predecessors}
        grouped: set[str] = set()
        found = []
        for members in step.or_groups.values():
            grouped.update(members)
            states = [edges[member] for member in members]
            if _LIVE in states:
                found.append(_LIVE)
            elif _OPEN in states:
                found.append(_OPEN)
            else:
                found.append(_FAILED if _FAILED in states else _DEAD)
        return found + [state for source, state in edges.items() if source not in grouped]

    def fate(self, run: RunRow, rows: Rows, name: str) -> str:
        """What becomes of a step, by the table of ADR 0002."""
        if name in self.starts:
            return READY
        states = self.requirements(run, rows, name)
        rule = self.rules[name]
        if rule == "one_success" and _LIVE in states:
            return READY
        if rule == "one_failed" and _FAILED in states:
            return READY
        if rule == "all_success" and _FAILED in states:
            return CANCELLED
        if _OPEN in states:
            return WAITING
        if all(state == _DEAD for state in states):
            return SKIPPED
        if rule == "one_success":
            return CANCELLED
        return SKIPPED if rule == "one_failed" else READY

    def tolerates(self, run: RunRow, rows: Rows, name: str) -> bool:
        """Whether the failure of a step was made up for: it has successors, and each of them did without it."""
        return bool(self.after[name]) and all(
            self._did_without(run, rows, name, to) for to in self.after[name]
        )

    def _did_without(self, run: RunRow, rows: Rows, source: str, target: str) -> bool:
        if not self.is_cleanup(target):
            return self.fate(run, rows, target) != CANCELLED
        groups = [members for members in self.steps[target].or_groups.values() if source in members]
        return bool(groups) and all(
            any(self.edge(run, rows, member, target) == _LIVE for member in members) for members in groups
        )

    def payload(self, run: RunRow, rows: Rows, name: str) -> dict[str, object]:
        """The results that a step which waits for all of its sources is handed."""
        return {
            source: rows[source].result
            for source in self.steps[name].predecessors
            if self.edge(run, rows, source, name) == _LIVE and rows[source].status is Status.SUCCEEDED
        }

    def is_plain(self, name: str) -> bool:
        """Whether its payload does not depend on who came first."""
        return self.rules[name] in ("all_success", "all_done") and not self.steps[name].or_groups

"""What a storage's one writer wrote a moment ago need not be read again, as long as nobody else has written since."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fuseline.engine.state import RunRow, StepRow
from fuseline.storage.sql import rows
from fuseline.storage.sql.session import Session
from fuseline.storage.sql.statements import Statements
from fuseline.storage.sql.transaction import SqlTransaction
from fuseline.storage.transaction import Changes, Loaded, Wanted

MAX_RUNS: Final = 2_000
MAX_STEPS: Final = 200
"""Of one run."""
MAX_INPUTS_BYTES: Final = 4_096


@dataclass(slots=True)
class _Run:
    """A run that goes on: its header, its inputs if they are short, and its open steps. Those have no result yet."""

    row: RunRow
    inputs: dict[str, Any] | None = None
    steps: dict[str, StepRow] = field(default_factory=dict)


class Remembered:
    """Rows as the last commit left them, of the runs that were written last (P6). For one thread at a time."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._version: int | None = None

    def forget(self) -> None:
        """Somebody may have written, or what was written may not be there."""
        self._runs.clear()

    def check(self, version: int) -> None:
        """`version` is another one when another connection has committed since."""
        if version != self._version:
            self.forget()
            self._version = version

    def find(self, wanted: Wanted, found: Loaded) -> Wanted:
        """Put what is remembered into `found`; what is left has to be loaded."""
        runs, steps, inputs = set(), set(), set()
        for i in wanted.runs:
            if (run := self._runs.get(i)) is None:
                runs.add(i)
            else:
                found.runs[i] = run.row
        for key in wanted.steps:
            i, name = key
            if (run := self._runs.get(i)) is None or (step := run.steps.get(name)) is None:
                steps.add(key)
            else:
                found.steps[key] = step
        for i in wanted.inputs:
            if (run := self._runs.get(i)) is None or run.inputs is None:
                inputs.add(i)
            else:
                found.inputs[i] = run.inputs
        return replace(wanted, runs=runs, steps=steps, inputs=inputs)

    def written(
        self, changes: Changes, inputs: Mapping[str, dict[str, Any]], headers: Mapping[str, RunRow]
    ) -> None:
        """It is committed. `inputs`: the short ones of `changes`; `headers`: those that were loaded."""
        ended = {row.instance_id for row in changes.runs if row.status.is_terminal}
        for row in changes.runs:
            i = row.instance_id
            if row.status.is_terminal:
                self._runs.pop(i, None)
            else:
                row.is_new = False
                self._known(row, inputs.get(i)).row = row
        for i, step in changes.steps:
            if (run := self._runs.get(i)) is None:
                header = headers.get(i)
                if header is None or header.status.is_terminal or i in ended:
                    continue
                run = self._known(header)
            if step.status.is_terminal or len(run.steps) >= MAX_STEPS:
                run.steps.pop(step.name, None)
            else:
                step.is_new = False
                run.steps[step.name] = step
            self._runs.move_to_end(i)
        while len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)

    def _known(self, row: RunRow, inputs: dict[str, Any] | None = None) -> _Run:
        run = self._runs.get(row.instance_id)
        if run is None:
            run = self._runs[row.instance_id] = _Run(row, inputs)
        return run


class RememberingTransaction(SqlTransaction):
    """Loads what is not remembered. `committed` is for who has committed it."""

    def __init__(self, session: Session, statements: Statements, remembered: Remembered) -> None:
        super().__init__(session, statements)
        self._remembered = remembered
        self._saved: list[Changes] = []

    def load(self, wanted: Wanted) -> Loaded:
        found = Loaded()
        left = self._remembered.find(wanted, found)
        self._headers.update(found.runs)
        if left:
            more = super().load(left)
            found.runs.update(more.runs)
            found.steps.update(more.steps)
            found.joins.update(more.joins)
            found.inputs.update(more.inputs)
            found.letters.update(more.letters)
        return found

    def save(self, changes: Changes) -> None:
        super().save(changes)
        self._saved.append(changes)

    def committed(self) -> None:
        """What was saved is on disk."""
        for changes in self._saved:
            short = {
                i: value for i, value in changes.inputs.items() if len(rows.dumps(value)) <= MAX_INPUTS_BYTES
            }
            self._remembered.written(changes, short, self._headers)

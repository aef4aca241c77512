"""What a storage remembers of the runs that it wrote last, so that a lone report need not read them again.

What is remembered may be out of date: others write to the same database. Nothing is believed of it without proof, which
is the `Swap`: it writes only where the rows that the decision was made on still are what they were, and takes the run's
lock as every transaction does. That is as good as reading them under the lock, for a decision is a function of the rows
that it reads (`engine.machine`), and it reads

- the run's header and one step that has not ended, which the swap compares, value by value;
- inputs and steps that have ended, which change with a replay alone, and that counts itself in the header (`replays`).
  Those that a replay has reset have not ended: they are queued again without a word in the header, and not remembered.

It reads no row that is not remembered: that a row is missing is never concluded from memory. A run that begins reads
nothing at all: that there is none of its id, the `Beginning` proves as it writes it. What does not fit raises
`NotRemembered`, and is decided on again in a transaction. So it does not matter who wrote what, or died when, or whether
an answer was lost; it costs time alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.model.views import WorkerView
from fuseline.storage.transaction import (
    Changes,
    Due,
    Key,
    Loaded,
    NotRemembered,
    StoredSchema,
    Transaction,
    Wanted,
)

MAX_RUNS: Final = 500
MAX_STEPS: Final = 20
"""Of one run. A wider one is forgotten."""
MAX_CHARS: Final = 4_096
"""Of a run's inputs and what is remembered of its reports, about."""
MAX_TOGETHER: Final = 8
"""Runs of one transaction: a batch of more is no lone report, nor is the next one likely to be."""
PAUSE: Final = 16
"""After each time that somebody else had written meanwhile: for so many transactions nothing is taken from memory. Where
several coordinators take turns at the same runs, half of what they remember is out of date.
"""


@dataclass(slots=True)
class _Run:
    """`inputs` None: too long, or never seen; else they leave room for `left` characters.

    `steps`: those that have not ended, and those that ended last.
    """

    row: RunRow
    inputs: dict[str, Any] | None
    left: int
    steps: dict[str, StepRow]


@dataclass(frozen=True, slots=True)
class Swap:
    """Write `run` (None: the header stays), `step` and `new` steps where `seen_run` and `seen_step` are in the database.

    `seen` and `changes` are all of it, for who remembers it.
    """

    seen_run: RunRow
    seen_step: StepRow
    run: RunRow | None
    step: StepRow
    new: Sequence[StepRow]
    seen: Loaded
    changes: Changes

    def holds(self, run: RunRow | None, step: StepRow | None) -> bool:
        """Whether it may be written, where these are the rows now: for who reads them and holds the run's lock."""
        return run == self.seen_run and step == self.seen_step


@dataclass(frozen=True, slots=True)
class Beginning:
    """Write `run`, which is new, with its inputs and `steps`, where there is no run of this id."""

    run: RunRow
    inputs: dict[str, Any]
    steps: Sequence[StepRow]
    changes: Changes


class Recollection:
    """Rows as this storage's last commits left them, bounded (P6). Thread-safe."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._put_off: tuple[Swap, int] | None = None
        self._pause = 0
        self._lock = threading.Lock()

    def find(self, wanted: Wanted) -> Loaded:
        """What is known of what is wanted, and inputs in any case. Raises `NotRemembered` for a run that is unknown."""
        if wanted.joins:  # no counter is remembered
            raise NotRemembered
        found = Loaded(is_partial=True)
        with self._lock:
            self._catch_up()
            for i in wanted.runs:
                if (run := self._runs.get(i)) is None:
                    raise NotRemembered
                found.runs[i] = run.row
                if run.inputs is not None:
                    found.inputs[i] = run.inputs
            for i, name in wanted.steps:
                if (run := self._runs.get(i)) is not None and (step := run.steps.get(name)) is not None:
                    found.steps[i, name] = step
        return found

    def is_paused(self) -> bool:
        """Whether to ask at all; asked once for each transaction that could do without reading."""
        if not self._pause:
            return False
        self._pause -= 1
        return True

    def missed(self, i: str) -> None:
        """What was remembered of this run is not so any more."""
        self.forget(i)
        self._pause = PAUSE

    def forget(self, i: str) -> None:
        """Whatever is wrong with it is not to happen again and again."""
        with self._lock:
            self._catch_up()
            self._runs.pop(i, None)

    def swapped(self, swap: Swap, chars: int) -> None:
        """It is committed. As `wrote`, of one run that is known. `chars`: of the result, as it was written down.

        It is seen to before anything else happens here, or at `catch_up`: until then somebody waits for what it makes ready.
        """
        with self._lock:
            self._catch_up()
            self._put_off = swap, chars

    def catch_up(self) -> None:
        """See to what was put off."""
        if self._put_off is not None:
            with self._lock:
                self._catch_up()

    def _catch_up(self) -> None:
        if self._put_off is None:
            return
        (swap, chars), self._put_off = self._put_off, None
        seen, i = swap.seen_run, swap.seen_run.instance_id
        known = self._runs.pop(i, None)
        if known is None or known.row.created_at != seen.created_at:
            return
        run = _remembered(swap.run or seen, None, known, [swap.step, *swap.new], chars)
        if run is not None:
            self._runs[i] = run

    def wrote(self, changes: Changes, loaded: Loaded) -> None:
        """`changes` are committed; `loaded`: the rows that were read for them."""
        headers = {run.instance_id: run for run in changes.runs}
        ids = headers.keys() | {i for i, _ in changes.steps}
        if len(ids) > MAX_TOGETHER:
            with self._lock:
                self._catch_up()
                for i in ids & self._runs.keys():
                    del self._runs[i]
            return
        steps: dict[str, list[StepRow]] = {i: [] for i in ids}
        for i, step in changes.steps:
            steps[i].append(step)
        with self._lock:
            self._catch_up()
            for i, changed in steps.items():
                known = self._runs.pop(i, None)
                row = headers.get(i) or loaded.runs.get(i)
                if known is not None and row is not None and known.row.created_at != row.created_at:
                    known = None  # it was purged, and dispatched anew
                inputs = changes.inputs.get(i, loaded.inputs.get(i))
                if row is not None and (run := _remembered(row, inputs, known, changed)) is not None:
                    self._runs[i] = run
            while len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)


def _remembered(
    row: RunRow,
    inputs: dict[str, Any] | None,
    known: _Run | None,
    changed: list[StepRow],
    chars: int | None = None,
) -> _Run | None:
    """`inputs`: where they were seen just now; else they are what is `known` of them. `chars`: of all results, if known."""
    # A header or a step with an error is out of the ordinary: its columns are not compared, see `Swap`.
    if row.status is not RunStatus.RUNNING or row.is_failing or row.failed_step or row.finished_at:
        return None
    opened = {} if known is None else {n: s for n, s in known.steps.items() if not s.status.is_terminal}
    closed = {}
    for step in changed:
        opened.pop(step.name, None)
        if step.error is not None:
            continue
        if step.status.is_terminal:
            # One that was reset is decided on again, of which the header says nothing.
            if not step.is_reset:
                closed[step.name] = step
        elif (step.result, step.action, step.finished_at) == (None,) * 3 and (
            step.holder is None or _left([step.holder], MAX_CHARS) >= 0
        ):
            opened[step.name] = step
    if len(opened) + len(closed) > MAX_STEPS:
        return None
    if inputs is not None:
        left = _left([inputs], MAX_CHARS)
    elif known is not None and known.inputs is not None:
        inputs, left = known.inputs, known.left
    else:
        left = MAX_CHARS
    said: list[Any] = [text for step in closed.values() for text in (step.action, step.holder)]
    if chars is None:
        said += [step.result for step in closed.values()]
    if left < 0 or (closed and _left(said, left - (chars or 0)) < 0):
        inputs, left, closed = None, MAX_CHARS, {}
    steps = opened | closed
    row.is_new = False
    for step in steps.values():
        step.is_new = False
    return _Run(row, inputs, left, steps)


def _left(values: list[Any], left: int) -> int:
    """Of `left` characters, how many JSON values leave, about; below 0 it looks at no more of them."""
    while values and left >= 0:
        value = values.pop()
        if isinstance(value, int):
            left -= value.bit_length() // 3
        elif isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict | list | tuple):
            left -= len(value)
            if left >= 0:
                values += value
                if isinstance(value, dict):
                    values += value.values()
        left -= 1
    return left


class RecalledTransaction(Transaction):
    """Loads from memory, once. `swap` and `beginning` are for who writes what it saved."""

    def __init__(self, recollection: Recollection) -> None:
        self._recollection = recollection
        self.seen: Loaded | None = None
        self.changes: Changes | None = None

    def load(self, wanted: Wanted) -> Loaded:
        if self.seen is not None:  # what memory had was not enough
            raise NotRemembered
        self.seen = self._recollection.find(wanted)
        return self.seen

    def save(self, changes: Changes) -> None:
        if self.changes is not None:
            raise NotRemembered
        self.changes = changes

    def swap(self) -> Swap:
        """What to write where. Raises `NotRemembered` for what no swap can prove, such as that nothing has to be changed."""
        changes, seen = self.changes, self.seen
        if changes is None or seen is None or len(seen.runs) != 1:
            raise NotRemembered
        if changes.joins or changes.letters or changes.inputs:
            raise NotRemembered
        (run,) = seen.runs.values()
        open_steps = [step for step in seen.steps.values() if not step.status.is_terminal]
        new = [step for _, step in changes.steps if step.is_new]
        changed = [step for _, step in changes.steps if not step.is_new]
        if len(open_steps) != 1 or len(changed) != 1 or changed[0].name != open_steps[0].name:
            raise NotRemembered
        if any(row.instance_id != run.instance_id or row.is_new for row in changes.runs):
            raise NotRemembered
        header = changes.runs[0] if changes.runs and changes.runs[0] != run else None
        return Swap(run, open_steps[0], header, changed[0], new, seen, changes)

    def beginning(self) -> Beginning:
        """The same of a run that was not looked for. Raises `NotRemembered` for anything else, and for a wide one."""
        changes = self.changes
        if self.seen is not None or changes is None or len(changes.runs) != 1:
            raise NotRemembered
        (run,) = changes.runs
        inputs = changes.inputs.get(run.instance_id)
        if (
            inputs is None
            or not run.is_new
            or changes.joins
            or changes.letters
            or len(changes.steps) > MAX_STEPS
        ):
            raise NotRemembered
        return Beginning(run, inputs, [step for _, step in changes.steps], changes)

    def take_due(self, now: float, limit: int) -> list[Due]:
        _not_remembered()

    def take_queued(
        self, workflow_id: str, instance_id: str | None, limit: int = 1
    ) -> list[tuple[str, StepRow]]:
        _not_remembered()

    def load_schemas(self, keys: Iterable[Key], *, to_change: bool = False) -> dict[Key, StoredSchema]:
        _not_remembered()

    def save_schema(self, schema: WorkflowSchema, now: float) -> None:
        _not_remembered()

    def save_worker(self, worker: WorkerView) -> None:
        _not_remembered()

    def touch_workers(self, seen: Mapping[str, float]) -> None:
        _not_remembered()

    def delete_workers(self, worker_ids: Sequence[str]) -> None:
        _not_remembered()


def _not_remembered() -> NoReturn:
    raise NotRemembered

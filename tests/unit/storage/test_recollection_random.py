"""Random runs of two coordinators that remember, and the same by one that reads: all that is decided is the same (P3)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Rules
from fuseline.engine.events import (
    CancelRequested,
    Event,
    HolderLost,
    StepClaimed,
    StepDuePassed,
    StepReleased,
    StepReplayed,
    StepReported,
    StepVanished,
)
from fuseline.engine.state import StepRow
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import PolicySpec, RunStatus, Status, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from fuseline.storage.base import Loaded, NotRemembered, StoredRun, Transaction, Wanted
from fuseline.storage.recollection import RecalledTransaction, Recollection, Swap
from fuseline.storage.sql import swapping
from fuseline.testing.flows import graph

RULES = Rules(lease_seconds=30.0)
RUN_SEEN = attrgetter(*swapping._RUN_SEEN)
STEP_SEEN = attrgetter(*swapping._STEP_SEEN)


class Shared(MemoryRuntimeStorage):
    """One coordinator's way to rows that others write, too. It compares what PostgreSQL is asked to compare."""

    __slots__ = ("_recollection", "hits")

    def __init__(self, rows: MemoryRuntimeStorage) -> None:
        self.__dict__ = rows.__dict__
        self._recollection = Recollection()
        self.hits = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        read, saved = Loaded(), []
        with super().transaction() as tx:
            load, save = tx.load, tx.save

            def noting_load(wanted: Wanted) -> Loaded:
                found = load(wanted)
                read.runs.update(found.runs)
                read.inputs.update(found.inputs)
                return found

            def noting_save(changes: Any) -> None:
                save(changes)
                saved.append(changes)

            tx.load, tx.save = noting_load, noting_save  # type: ignore[method-assign]
            yield tx
        for changes in saved:
            self._recollection.wrote(changes, read)

    @contextmanager
    def beginning(self) -> Iterator[Transaction]:
        unit = RecalledTransaction(self._recollection)
        yield unit
        one = unit.beginning()
        with super().transaction() as tx:
            if tx.load(Wanted({one.run.instance_id})).runs:
                raise NotRemembered
            tx.save(one.changes)
        self._recollection.wrote(one.changes, Loaded())

    def catch_up(self) -> None:
        self._recollection.catch_up()

    @contextmanager
    def recalled(self) -> Iterator[Transaction]:
        unit = RecalledTransaction(self._recollection)
        yield unit
        swap = unit.swap()
        with super().transaction() as tx:
            holds = self._holds(swap, tx)
            if holds:
                tx.save(swap.changes)
        if not holds:
            self._recollection.forget(swap.seen_run.instance_id)
            raise NotRemembered
        self.hits += 1
        self._recollection.swapped(swap, len(json.dumps(swap.step.result)))

    def _holds(self, swap: Swap, tx: Transaction) -> bool:
        i = swap.seen_run.instance_id
        names = [swap.seen_step.name, *(step.name for step in swap.new)]
        found = tx.load(Wanted({i}, steps={(i, name) for name in names}))
        run, step = found.runs.get(i), found.steps.get((i, swap.seen_step.name))
        if run is None or step is None or run.status is not RunStatus.RUNNING or run.error or run.failed_step:
            return False
        if RUN_SEEN(run) != RUN_SEEN(swap.seen_run) or STEP_SEEN(step) != STEP_SEEN(swap.seen_step):
            return False
        assert len(found.steps) == 1, "a row that was concluded to be missing"
        return True


def drawn_graph(draw: random.Random) -> WorkflowSchema:
    names = "abcdef"[: draw.randint(2, 6)]
    edges = {
        name: sorted(draw.sample(names[place + 1 :], min(len(names) - place - 1, draw.choice([0, 1, 1, 2]))))
        for place, name in enumerate(names)
    }
    policies: dict[str, list[PolicySpec]] = {name: [] for name in names}
    for name in names:
        if draw.random() < 0.4:
            config = {"max_retries": 2, "wait": draw.choice([0, 5])}
            policies[name].append(PolicySpec(name="retry", config=config))
        if draw.random() < 0.4 and any(name in following for following in edges.values()):
            rule = draw.choice(["all_done", "one_failed", "one_success"])
            policies[name].append(PolicySpec(name="trigger", config={"rule": rule}))
    return graph("g", edges, policies=policies)


def drawn_report(draw: random.Random, schema: WorkflowSchema, row: StepRow, stored: StoredRun) -> Event:
    step = schema.steps[row.name]
    following = sorted(name for names in step.successors.values() for name in names)
    status = draw.choice([Status.SUCCEEDED] * 6 + [Status.FAILED] * 3 + [Status.SKIPPED])
    before = None
    if step.predecessors and (draw.random() < 0.2 or row.queued_at is None):
        name = draw.choice(step.predecessors)
        before = (name, stored.steps[name].attempt or 1) if name in stored.steps else None
    return StepReported(
        row.name,
        row.attempt or 1,
        status,
        result={"n": draw.random()} if status is Status.SUCCEEDED else None,
        holder=draw.choice(["w", row.holder or "w"]),
        redelivered=draw.random() < 0.2,
        continues_with=draw.choice([None, *following]),
        continued_from=before,
    )


def drawn_event(draw: random.Random, schema: WorkflowSchema, stored: StoredRun, now: float) -> Event:
    rows = list(stored.steps.values())
    failed = [row for row in rows if row.status is Status.FAILED]
    if stored.run.status is RunStatus.FAILED and failed and draw.random() < 0.7:
        return StepReplayed(failed[0].name, failed[0].attempt)
    still_open = [row for row in rows if not row.status.is_terminal]
    row = draw.choice(still_open if still_open and draw.random() < 0.9 else rows)
    attempt, holder = row.attempt or 1, draw.choice(["w", row.holder or "w"])
    if draw.random() < 0.6:
        return drawn_report(draw, schema, row, stored)
    others: list[Event] = [
        *[StepClaimed(row.name, attempt, holder)] * 4,
        *[StepReleased(row.name, attempt, holder)] * 2,
        HolderLost(row.name, attempt),
        StepVanished(row.name, attempt),
        StepDuePassed(row.name, now + 9.0),
        CancelRequested(),
    ]
    return draw.choice(others)


def told(outcomes: list[Outcome]) -> list[Any]:
    return [
        (one.verdict, one.reason, one.assignments, one.stop, one.stop_holders, one.finished)
        for one in outcomes
    ]


def history(seed: int) -> int:
    """One, step by step; how many reports were as they were remembered."""
    draw, clock = random.Random(seed), ManualClock()
    schema = drawn_graph(draw)
    rows = MemoryRuntimeStorage()
    sharing = [Shared(rows), Shared(rows)]
    reading = Ledger(MemoryRuntimeStorage(), clock, RULES)
    ledgers = [Ledger(storage, clock, RULES) for storage in sharing]
    for ledger in (ledgers[0], reading):
        ledger.register([schema])
    for number in range(40):
        clock.advance(draw.choice([0.5, 1.0, 10.0]))
        i = draw.choice("ij")
        stored = reading.storage.read_run(i)
        items: list[Dispatch | Occurrence] = [Dispatch("g", "1", i, {"x": number})]
        if stored is not None:
            count = draw.choice([1, 1, 2, 3])
            items = [Occurrence(i, drawn_event(draw, schema, stored, clock.now()), "g") for _ in range(count)]
        one = draw.choice(ledgers)
        assert told(one.apply(items)) == told(reading.apply(items)), items
        if draw.random() < 0.5:
            one.storage.catch_up()
        if draw.random() < 0.1:
            assert told(one.apply_due()) == told(reading.apply_due())
        if draw.random() < 0.1:
            counts = [storage.purge_runs(clock.now() + 1.0, 1) for storage in (rows, reading.storage)]
            assert counts[0] == counts[1]
        assert [rows.read_run(i) for i in "ij"] == [reading.storage.read_run(i) for i in "ij"], items
    return sum(storage.hits for storage in sharing)


@pytest.mark.parametrize("part", range(4))
def test_what_is_decided_from_memory_is_what_is_decided_by_reading(part: int) -> None:
    assert sum(history(part * 50 + seed) for seed in range(50))

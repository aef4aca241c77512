"""A run that is kept in this process alone is decided on as one in a storage is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Verdict, compile_plan
from fuseline.engine.events import CancelRequested, Event, StepClaimed, StepDuePassed, StepReported
from fuseline.errors import FuselineError
from fuseline.ledger import Ledger, LedgerRun, Outcome, PrivateRun, RunBook
from fuseline.model import RunStatus, Status, StepError, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from tests.unit.engine.graphs import Kinds, Tape, read_graph, tapes, tell
from tests.unit.engine.small import parse
from tests.unit.ledgers import ok


def books(schema: WorkflowSchema, clock: ManualClock) -> tuple[RunBook, RunBook]:
    ledger = Ledger(MemoryRuntimeStorage(), clock)
    ledger.register([schema])
    plan = compile_plan(schema)
    return LedgerRun(ledger, plan, "i"), PrivateRun(plan, "i", clock)


@tapes(150, length=200)
def test_a_private_run_is_decided_on_as_one_in_a_storage(tape: Tape) -> None:
    graph = tell(read_graph(tape, Kinds()))
    names, clock = list(graph.schema.steps), ManualClock()
    stored, private = books(graph.schema, clock)
    assert stored.begin({"x": 1}) == private.begin({"x": 1})
    for _ in range(25):
        events: list[Event] = []
        for _ in range(1 + tape.below(3)):
            name, attempt = tape.pick(names), 1 + tape.below(2)
            failed = StepReported(name, attempt, Status.FAILED, error=StepError(type="E"))
            succeeded = ok(name, attempt, result=tape.pick(("left", "right", None, 1)))
            claimed, due = StepClaimed(name, attempt, "w"), StepDuePassed(name)
            choice: list[Event] = [succeeded, succeeded, succeeded, failed, claimed, due]
            events.append(tape.pick(choice))
        if tape.one_in(60):
            events.append(CancelRequested())
        clock.advance(tape.pick((0.0, 1.0, 10.0)))
        assert stored.apply(events) == private.apply(events)
        assert stored.run_row() == private.run_row()
        assert [stored.step_row(name) for name in names] == [private.step_row(name) for name in names]
    assert stored.stored() == private.stored()


def test_a_private_run_answers_for_itself_alone() -> None:
    schema, clock = parse("a -> b"), ManualClock()
    for book in books(schema, clock):
        (begun,) = book.begin({"x": 1})
        assert [one.step_name for one in begun.assignments] == ["a"]
        assert book.step_row("b") is None
        assert book.apply([ok("nowhere")])[0].verdict is Verdict.UNKNOWN
        verdicts: Sequence[Outcome] = book.apply([ok("a", result=1), ok("b", result=2)])
        assert verdicts[-1].finished is RunStatus.SUCCEEDED
        assert {name: row.result for name, row in book.stored().steps.items()} == {"a": 1, "b": 2}
        assert book.stored().inputs == {"x": 1}


def test_a_run_whose_storage_has_lost_it_is_an_error() -> None:
    class Forgets(MemoryRuntimeStorage):
        def read_run(self, instance_id: str) -> Any:
            return None

    ledger = Ledger(Forgets(), ManualClock())
    with pytest.raises(FuselineError, match="run i is not in its storage any more"):
        LedgerRun(ledger, compile_plan(parse("a")), "i").stored()

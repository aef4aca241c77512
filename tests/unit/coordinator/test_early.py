"""A report that overtook the one it goes on from is looked at again, and what it brings about goes out (P4)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.coordinator.early import EarlyReports
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.settle import Ticket
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepReported
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Dispatch, Occurrence
from fuseline.model import Status
from fuseline.testing.flows import graph
from tests.unit.ledgers import ledger_with


def report(step: str, **said: Any) -> Item:
    return Item(Occurrence("r", StepReported(step, 1, Status.SUCCEEDED, holder="w", **said), "g"))


def test_what_an_early_report_queues_goes_out_when_only_the_answer_to_the_commit_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for all others: not a matter for the sweep."""
    ledger, _, clock = ledger_with(graph("g", {"a": ["b"], "b": ["c"]}))
    sent: list[str] = []

    def assign(_outcome: Any, assignment: Any, on_done: Callable[[], None]) -> None:
        sent.append(assignment.step_name)
        on_done()

    outbox = SimpleNamespace(assign=assign, events=lambda _outcome: None)
    pipeline = Pipeline(ledger, cast("Any", outbox), WorkerBook(clock, 60.0))
    later: list[Callable[[], None]] = []
    looks: list[bool] = []
    early = EarlyReports(
        pipeline, cast("Any", outbox), lambda _seconds, then: later.append(then), lambda: looks.append(True)
    )
    settled: list[bool] = []
    ticket = Ticket(cast("Any", SimpleNamespace(settle=lambda: settled.append(True))), cast("Any", None))

    ledger.apply([Dispatch("g", "1", "r")])
    item = report("b", continued_from=("a", 1))
    assert [one.verdict for one in pipeline.apply([item])] == [Verdict.EARLY]
    early.hold(cast("Any", None), item, ticket)
    ticket.done()
    pipeline.apply([report("a", continues_with="b")])

    apply = ledger.apply

    def apply_and_lose_the_answer(items: Any, **_how: Any) -> Any:
        apply(items)
        raise StorageUnavailableError("the connection was lost after the commit")

    monkeypatch.setattr(ledger, "apply", apply_and_lose_the_answer)
    later.pop()()
    monkeypatch.undo()
    assert (sent, settled) == ([], [])
    later.pop()()
    assert (sent, settled, later) == (["c"], [True], [])
    assert looks == [True]  # what was saved may be due soon

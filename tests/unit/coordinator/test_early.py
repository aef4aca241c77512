"""A report that overtook the one it goes on from is looked at again, and what it brings about goes out (P4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.coordinator.early import FIRST_PAUSE_SECONDS, EarlyReports
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.settle import Ticket
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepReported
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Dispatch, Occurrence, Outcome
from fuseline.model import Status
from fuseline.testing.flows import graph
from tests.unit.coordinator.outboxes import outbox_with
from tests.unit.ledgers import Leaving, ledger_over, ledger_with


def report(step: str, instance_id: str = "r", **said: Any) -> Item:
    return Item(Occurrence(instance_id, StepReported(step, 1, Status.SUCCEEDED, holder="w", **said), "g"))


def test_what_an_early_report_queues_goes_out_when_only_the_answer_to_the_commit_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for all others: not a matter for the sweep."""
    ledger, _, clock = ledger_with(graph("g", {"a": ["b"], "b": ["c"]}))
    sent: list[str] = []

    def assign(_outcome: Any, assignment: Any, on_done: Callable[[], None]) -> None:
        sent.append(assignment.step_name)
        on_done()

    outbox = outbox_with(assign=assign, events=lambda _outcome: None)
    pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0))
    later: list[Callable[[], None]] = []
    looks: list[bool] = []
    early = EarlyReports(
        pipeline, outbox, lambda _seconds, then: later.append(then), lambda: looks.append(True)
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


def test_early_reports_that_come_while_others_are_asked_about_share_their_timer() -> None:
    """Each batch that was finished for them armed one more, so that a moment became shorter and shorter."""
    ledger, _, clock = ledger_over(Leaving(), graph("g", {"a": ["b"]}))
    ledger.apply([Dispatch("g", "1", i) for i in ("r", "s")])
    outbox = outbox_with(events=lambda _outcome: None)
    pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0), few=0)
    armed: list[float] = []
    early = EarlyReports(pipeline, outbox, lambda seconds, _then: armed.append(seconds))
    ticket = Ticket(cast("Any", SimpleNamespace(settle=lambda: None)), cast("Any", None))

    def hold_all(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.verdict is Verdict.EARLY
            early.hold(cast("Any", None), report("b", outcome.instance_id, continued_from=("a", 1)), ticket)

    early.hold(cast("Any", None), report("b", continued_from=("a", 1)), ticket)
    pipeline.begin([report("b", "s", continued_from=("a", 1))], hold_all, lambda _error: None)
    early._again()
    assert armed == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS]
    early._again()
    assert armed[2:] == [4 * FIRST_PAUSE_SECONDS]

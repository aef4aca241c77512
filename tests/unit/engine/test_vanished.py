"""P1: a step whose message is gone is offered again, more and more seldom, and not for ever."""

from __future__ import annotations

import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Rules, Verdict
from fuseline.engine.events import StepReported, StepVanished
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import RunStatus, Status
from fuseline.model.messages import Cause
from fuseline.model.schema import PolicySpec
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import graph

RULES = Rules(sweep_seconds=100.0, max_losses=3)
VANISHED = Occurrence("i", StepVanished("a", 1))


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(MemoryRuntimeStorage(), ManualClock(), RULES)
    expiring = [PolicySpec(name="expiry", config={"seconds": 250})]
    ledger.register([graph("g", {"a": []}), graph("short", {"a": []}, policies={"a": expiring})])
    return ledger


def begin(ledger: Ledger, workflow_id: str = "g") -> None:
    ledger.apply([Dispatch(workflow_id, "1", "i")])


def vanish(ledger: Ledger) -> Outcome:
    return ledger.apply([VANISHED])[0]


def test_it_is_offered_again_and_looked_at_later_each_time(ledger: Ledger) -> None:
    begin(ledger)
    now = ledger.clock.now()
    assert ledger.storage.next_due() == now + 100
    for seconds in (200, 400):
        outcome = vanish(ledger)
        assert [(a.step_name, a.attempt) for a in outcome.assignments] == [("a", 1)]
        assert outcome.offered_again == {"a"}
        assert ledger.storage.next_due() == now + seconds


def test_the_last_loss_is_poison(ledger: Ledger) -> None:
    begin(ledger)
    vanish(ledger)
    vanish(ledger)
    assert vanish(ledger).finished is RunStatus.FAILED
    run = ledger.storage.read_run_row("i")
    assert run is not None
    assert run.error is not None
    assert run.error.cause is Cause.POISON
    assert "never reported, 3 time(s)" in run.error.message


def test_an_expiry_keeps_its_time(ledger: Ledger) -> None:
    begin(ledger, "short")
    vanish(ledger)
    vanish(ledger)
    assert ledger.storage.next_due() == ledger.clock.now() + 250


def test_what_was_reported_meanwhile_has_not_vanished(ledger: Ledger) -> None:
    begin(ledger)
    ledger.apply([Occurrence("i", StepReported("a", 1, Status.SUCCEEDED))])
    assert vanish(ledger).verdict is Verdict.STALE


def test_one_purge_fails_no_step_however_few_losses_are_allowed() -> None:
    """P1: a message that is gone once may have been anybody's doing."""
    ledger = Ledger(MemoryRuntimeStorage(), ManualClock(), Rules(max_losses=1))
    ledger.register([graph("g", {"a": []})])
    begin(ledger)
    assert vanish(ledger).offered_again == {"a"}
    assert vanish(ledger).finished is RunStatus.FAILED

"""What a timer brought about goes out, whatever becomes of the storage behind it (P1)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.coordinator.pipeline import Pipeline
from fuseline.coordinator.timers import Timers
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine.events import StepReported
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Dispatch, Occurrence, Outcome
from fuseline.model import Status, WorkflowSchema
from tests.unit.ledgers import ledger_with

RETRIED = WorkflowSchema.model_validate(
    {
        "workflow_id": "g",
        "version": "1",
        "steps": {"a": {"name": "a", "policies": [{"name": "retry", "config": {"wait": 5}}]}},
    }
)


class FakeLink:
    """Keeps the last timer."""

    fire: Any

    def call_later(self, _seconds: float, callback: Any) -> Any:
        self.fire = callback
        return type("Timer", (), {"cancel": lambda _self: None})()


class FakePipeline:
    """Keeps what is to go out."""

    def __init__(self) -> None:
        self.sent: list[Outcome] = []

    def carry_out(self, _item: object, outcome: Outcome, _ticket: object) -> None:
        self.sent.append(outcome)


def test_a_retry_goes_out_although_the_storage_is_away_right_after(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, storage, clock = ledger_with(RETRIED)
    ledger.apply([Dispatch("g", "1", "i"), Occurrence("i", StepReported("a", 1, Status.FAILED))])
    clock.advance(10)
    link, pipeline = FakeLink(), FakePipeline()
    told: list[StorageUnavailableError] = []
    book = WorkerBook(clock, 60.0)
    timers = Timers(cast("Link", link), ledger, cast("Pipeline", pipeline), book, Topology(), told.append)

    def away() -> float | None:
        raise StorageUnavailableError("away")

    monkeypatch.setattr(storage, "next_due", away)
    timers.wake_now()
    link.fire()
    assert len(told) == 1
    assert [(a.step_name, a.attempt) for one in pipeline.sent for a in one.assignments] == [("a", 2)]

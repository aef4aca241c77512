"""A batch is bounded by its size too (P6): however large the reports are, its transaction ends in time (P1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.coordinator import intake
from fuseline.coordinator.intake import Intake


class FakeLink:
    """Says what is delivered."""

    deliver: Any

    def consume(
        self, _queue: str, _prefetch: int, deliver: Any, _on_batch_end: Any, _on_lost: Any = None
    ) -> Any:
        self.deliver = deliver
        return SimpleNamespace()


def delivery(size: int) -> Delivery:
    said: dict[str, Any] = {
        "properties": Properties(),
        "exchange": "",
        "routing_key": "",
        "redelivered": False,
    }
    return Delivery(1, 1, b"x" * size, **said, queue="q", line=None)


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def inbox(link: FakeLink, monkeypatch: pytest.MonkeyPatch) -> Intake:
    monkeypatch.setattr(intake, "BATCH_BYTES", 100)
    return Intake(cast("Link", link), "q", 10, lambda: None)


def test_small_messages_are_taken_up_to_the_limit(link: FakeLink, inbox: Intake) -> None:
    for _ in range(5):
        link.deliver(delivery(10))
    assert len(inbox.peek(3)) == 3


def test_large_messages_are_taken_few_at_a_time_and_at_least_one(link: FakeLink, inbox: Intake) -> None:
    sizes = [60, 60, 500, 40, 40, 40]
    for size in sizes:
        link.deliver(delivery(size))
    batches = []
    while batch := inbox.peek(10):
        inbox.take(batch)
        batches.append([len(one.body) for one in batch])
    assert batches == [[60], [60], [500], [40, 40], [40]]


def test_reports_that_came_in_one_message_count_each(link: FakeLink, inbox: Intake) -> None:
    three = delivery(1)
    three.body, three.properties = b"{}\n{}\n{}", Properties(type=codec.REPORTS)
    for one in (delivery(1), three, delivery(1)):
        link.deliver(one)
    assert [len(inbox.peek(limit)) for limit in (1, 3, 4, 5)] == [1, 1, 2, 3]

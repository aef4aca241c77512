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
from fuseline.errors import BrokerUnavailableError


class FakeLink:
    """Says what is delivered."""

    deliver: Any
    lost: Any

    def consume(
        self, _queue: str, _prefetch: int, deliver: Any, _on_batch_end: Any, _on_lost: Any = None
    ) -> Any:
        self.deliver = deliver
        self.lost = _on_lost
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


def test_what_is_of_a_lost_channel_is_not_kept_until_somebody_asks(link: FakeLink, inbox: Intake) -> None:
    """P6: while storage is away nobody does, however often the channel is lost."""
    line = SimpleNamespace(generation=1)
    for generation in range(1, 6):
        line.generation = generation
        if generation > 1:
            link.lost(BrokerUnavailableError("gone"))
        for _ in range(10):
            one = delivery(10)
            one.line, one.generation = cast("Any", line), generation
            link.deliver(one)
        assert len(inbox) == 10
    assert len(inbox.peek(100)) == 10

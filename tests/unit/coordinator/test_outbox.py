"""Assignments leave bounded in number and size (P6); one that can never be sent fails its step (P1, P7)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Reply, read
from fuseline.clock import ManualClock
from fuseline.coordinator import outbox
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.settle import Ticket
from fuseline.coordinator.workers import WorkerBook
from fuseline.errors import (
    BrokerUnavailableError,
    FuselineError,
    InvalidMessageError,
    MessageTooLargeError,
)
from fuseline.ledger import Dispatch
from fuseline.model import RunStatus, WorkflowSchema
from tests.unit.ledgers import ledger_with

WIDE = WorkflowSchema.model_validate(
    {"workflow_id": "g", "version": "1", "steps": {f"s{n}": {"name": f"s{n}"} for n in range(5)}}
)


class FakeLink:
    """Keeps what is published, until the test says how it went."""

    def __init__(self) -> None:
        self.published: list[Callable[[FuselineError | None], None]] = []
        self.bodies: list[bytes] = []

    def publish(self, _exchange: str, _key: str, body: bytes, _properties: Any, **how: Any) -> None:
        self.published.append(how["on_done"])
        self.bodies.append(body)

    def flush(self) -> None:
        """What is published is here already."""

    def call_later(self, _seconds: float, _callback: object) -> None:
        """Nothing comes of it here: these are for events."""


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


class FakeSettler:
    """Says when a ticket is settled."""

    settled = 0

    def settle(self) -> None:
        self.settled += 1


def pipeline(link: FakeLink, schema: WorkflowSchema) -> tuple[Pipeline, Outbox, Any]:
    ledger, storage, clock = ledger_with(schema)
    box = Outbox(cast("Link", link), Topology(), clock, lambda _key, then: then(None))
    # Events are another test's.
    box.events = lambda outcome: None  # type: ignore[method-assign]
    return Pipeline(ledger, box, WorkerBook(clock, 60.0)), box, storage


def dispatch(line: Pipeline) -> FakeSettler:
    settler = FakeSettler()
    ticket = Ticket(cast("Any", settler), cast("Any", None))
    line.run([Item(Dispatch("g", "1", "i"))], [ticket])
    ticket.done()
    return settler


@pytest.mark.parametrize(("limit", "value"), [("MAX_UNCONFIRMED", 2), ("MAX_UNCONFIRMED_BYTES", 300)])
def test_no_more_are_on_their_way_than_may_be(
    link: FakeLink, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(outbox, limit, value)
    line, _, _ = pipeline(link, WIDE)
    settler = dispatch(line)
    seen = 0
    while link.published:
        assert len(link.published) <= 2
        assert not settler.settled
        seen += 1
        link.published.pop(0)(None)
    assert seen == 5
    assert settler.settled == 1


def test_an_assignment_that_is_too_large_fails_its_step(link: FakeLink) -> None:
    line, _, storage = pipeline(link, WIDE)
    settler = dispatch(line)
    link.published[0](MessageTooLargeError("larger than RabbitMQ's limit"))
    stored = storage.read_run("i")
    assert stored.run.status is RunStatus.FAILED
    assert stored.run.failed_step == "s0"
    assert "larger than RabbitMQ's limit" in stored.run.error.message
    for on_done in link.published[1:]:
        on_done(None)
    assert settler.settled == 1


def test_what_closing_cuts_off_is_never_done(link: FakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: its cause stays unacknowledged, and whoever gets it next offers it again."""
    monkeypatch.setattr(outbox, "MAX_UNCONFIRMED", 2)
    line, box, _ = pipeline(link, WIDE)
    settler = dispatch(line)
    box.stop()
    link.published[0](None)
    link.published[1](BrokerUnavailableError("the link to RabbitMQ is closed"))
    assert len(link.published) == 2
    assert not settler.settled


def test_an_answer_that_is_too_large_is_answered_as_that(link: FakeLink) -> None:
    _, box, _ = pipeline(link, WIDE)
    properties = codec.properties(codec.COMMAND, message_id="1", timestamp=1.0, reply_to="r")
    asked: Any = SimpleNamespace(properties=properties)
    box.reply(asked, Reply(ok=True, result="x" * 1000))
    link.published[0](MessageTooLargeError("larger than RabbitMQ's limit"))
    answer = read(Reply, link.bodies[1])
    with pytest.raises(MessageTooLargeError, match=r"the answer has 10\d\d bytes"):
        answer.value()
    link.published[1](MessageTooLargeError("once is enough"))
    assert len(link.published) == 2


class Clerk:
    """Keeps whole messages, and says what RabbitMQ says."""

    def __init__(self, *answers: FuselineError | None) -> None:
        self.sent: list[tuple[str, str, codec.Properties]] = []
        self._answers = list(answers)

    def publish(
        self, exchange: str, key: str, _body: bytes, properties: codec.Properties, **how: Any
    ) -> None:
        self.sent.append((exchange, key, properties))
        how["on_done"](self._answers.pop(0))

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        callback()


def settled(clerk: Clerk, act: str, headers: dict[str, Any], *args: Any) -> int:
    """How often a message that was put back was said to be safe."""
    properties = codec.properties(codec.REPORT, message_id="m", timestamp=0, headers=headers)
    properties.user_id = "somebody"
    said: dict[str, Any] = {"exchange": "reports", "routing_key": "", "redelivered": False}
    delivery = Delivery(1, 1, b"{}", properties, **said, queue="q", line=None)
    box = Outbox(cast("Link", clerk), Topology(), ManualClock(), lambda _key, then: then(None))
    done: list[bool] = []
    getattr(box, act)(delivery, *args, lambda: done.append(True))
    return len(done)


def test_a_report_is_put_back_in_nobodys_name() -> None:
    """P1: RabbitMQ takes a user's name from that user alone, and this coordinator would have tried for ever."""
    clerk = Clerk(BrokerUnavailableError("no connection"), None)
    assert settled(clerk, "put_back", {"continued_from": "a"}) == 1
    assert [(exchange, p.user_id, p.headers) for exchange, _, p in clerk.sent] == [
        ("reports", None, {"continued_from": "a"})
    ] * 2


def test_what_cannot_be_put_back_is_parked() -> None:
    """P1: it would hold up all reports behind it."""
    clerk = Clerk(InvalidMessageError("RabbitMQ refuses it"), None)
    assert settled(clerk, "put_back", {}) == 1
    assert [key for _, key, _ in clerk.sent] == ["", Topology().parked_queue]

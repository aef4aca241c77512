"""Messages of many reports, whoever has sent them: none is too large for a transaction (P1, P6), and none is lost (P4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.coordinator.bundles import reports_in, slices_of
from fuseline.coordinator.intake import Intake

MOST = 3


class FakeLink:
    """Says what is delivered, and notes what is acknowledged."""

    def __init__(self) -> None:
        self.acked: list[tuple[int, bool]] = []
        self.deliver: Any = None

    def consume(
        self, _queue: str, _prefetch: int, deliver: Any, _on_batch_end: Any, _on_lost: Any = None
    ) -> Any:
        self.deliver = deliver
        return SimpleNamespace()

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        self.acked.append((delivery.tag, multiple))


def intake(link: FakeLink) -> Intake:
    return Intake(cast("Link", link), "q", MOST, lambda: None, split=slices_of)


def message(tag: int, body: bytes) -> Delivery:
    said = codec.properties(codec.REPORTS, message_id="m", timestamp=7.0)
    return Delivery(tag, 1, body, said, "reports.g", "", False, "reports", None)


def bodies(delivery: Delivery) -> list[bytes]:
    return [one.body for one in reports_in(delivery)]


def test_an_empty_line_is_no_report() -> None:
    """Most that write a report a line end the last one, too, and some end them in two characters."""
    assert bodies(message(1, b'{"a":1}\n{"b":2}\n')) == [b'{"a":1}', b'{"b":2}']
    assert bodies(message(1, b'\r\n{"a":1}\r\n \r\n{"b":2}\r\n')) == [b'{"a":1}\r', b'{"b":2}\r']


def test_a_message_of_nothing_is_still_one_to_be_parked() -> None:
    for body in (b"", b"\n", b"\r\n\n"):
        assert bodies(message(1, body)) == [b""]


def test_many_reports_of_one_message_are_taken_in_parts_and_it_is_let_go_after_the_last() -> None:
    link = FakeLink()
    inbox = intake(link)
    lines = [b"%d" % number for number in range(8)]
    link.deliver(message(1, b"0"))
    link.deliver(message(2, b"\n".join(lines) + b"\n"))
    link.deliver(message(3, b"9"))
    taken, tickets = [], []
    while batch := inbox.peek(MOST):
        inbox.take(batch)
        taken.append([body for delivery in batch for body in bodies(delivery)])
        tickets.append(inbox.settler.open(batch))
    assert taken == [[b"0"], lines[:3], lines[3:6], [*lines[6:], b"9"]]
    *others, last = tickets
    for ticket in reversed(others):
        assert not link.acked
        ticket.done()
    assert link.acked == [(1, True)]
    last.done()
    assert link.acked == [(1, True), (3, True)]


def test_many_empty_lines_are_one_message_to_be_parked() -> None:
    link = FakeLink()
    inbox = intake(link)
    link.deliver(message(1, b"\n" * 1_000))
    assert [bodies(delivery) for delivery in inbox.peek(MOST)] == [[b""]]

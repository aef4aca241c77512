"""Deliveries are read while a commit is awaited: each once for every time that it is taken up, and none for another (P4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery, Line
from fuseline.amqp.link import Link
from fuseline.coordinator.bundles import slices_of
from fuseline.coordinator.intake import Intake
from fuseline.coordinator.reading import Reading, Source, Taken
from fuseline.engine.events import StepClaimed
from fuseline.errors import InvalidMessageError
from fuseline.ledger import Occurrence

MOST = 4


class Desk:
    """A queue whose messages are lines, each a report; what is read is noted."""

    def __init__(self) -> None:
        self.line = SimpleNamespace(generation=1)
        self.decoded: list[bytes] = []
        self.intake = Intake(cast("Link", self), "q", MOST, lambda: None, split=slices_of)
        self.source = Source(self.intake, self._decode, self._salvage)
        self._tag = 0

    def consume(self, _queue: str, _prefetch: int, deliver: Any, *_callbacks: Any) -> Any:
        self._deliver = deliver
        return SimpleNamespace()

    def deliver(self, *bodies: bytes) -> None:
        """A message for each."""
        for body in bodies:
            self._tag += 1
            said = codec.properties(codec.REPORTS, message_id="m", timestamp=7.0)
            line = cast("Line", self.line)
            self._deliver(Delivery(self._tag, line.generation, body, said, "e", "", False, "q", line))

    def _decode(self, delivery: Delivery) -> Occurrence:
        self.decoded.append(delivery.body)
        if delivery.body == b"!":
            raise ZeroDivisionError
        if delivery.body.startswith(b"?"):
            raise InvalidMessageError("what is that")
        holder = "again" if delivery.redelivered else "first"
        return Occurrence(delivery.body.decode(), StepClaimed("a", 1, holder))

    def _salvage(self, delivery: Delivery, _reason: InvalidMessageError) -> Occurrence | None:
        return Occurrence("salvaged", StepClaimed("a", 1, "w")) if delivery.body == b"?half" else None


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def reading() -> Reading:
    return Reading()


def take(desk: Desk) -> list[Taken]:
    return [(desk.source, desk.intake.peek(MOST))]


def told(reading: Reading, taken: list[Taken]) -> list[tuple[str | None, str | None]]:
    return [
        (None if what is None else what.instance_id, reason)
        for _index, (_one, what, reason) in reading.read(taken)
    ]


def read_ahead(reading: Reading, taken: list[Taken]) -> int:
    more = reading.ahead_of(taken, MOST)
    count = 0
    while more():
        count += 1
    return count


def test_what_was_read_ahead_is_not_read_again(desk: Desk, reading: Reading) -> None:
    desk.deliver(b"a\nb\nc", b"d", b"e\nf", b"?half\n?", b"g")
    taken = take(desk)
    assert told(reading, taken) == [("a", None), ("b", None), ("c", None), ("d", None)]
    assert read_ahead(reading, taken) == 2  # as many as will be taken up next
    desk.intake.take(taken[0][1])
    decoded = list(desk.decoded)
    assert told(reading, take(desk)) == [
        ("e", None),
        ("f", None),
        ("salvaged", "what is that"),
        (None, "what is that"),
    ]
    assert desk.decoded == decoded


def test_nothing_is_read_ahead_where_nothing_waits(desk: Desk, reading: Reading) -> None:
    desk.deliver(b"a")
    assert read_ahead(reading, take(desk)) == 0
    assert read_ahead(reading, [(desk.source, [])]) == 1  # of a queue from which nothing was taken


def test_what_comes_again_after_a_failure_is_read_again(desk: Desk, reading: Reading) -> None:
    """P4: it may be recorded by then, and what it queued has to go out; that it says by being redelivered."""
    desk.deliver(b"a\nb\nc", b"d\ne")
    taken = take(desk)
    assert told(reading, taken)
    read_ahead(reading, taken)
    for delivery in taken[0][1]:
        delivery.redelivered = True
    holders = [cast("Any", what).event.holder for _, (_, what, _) in reading.read(take(desk))]
    assert holders == ["again"] * 3


def test_of_a_channel_that_was_lost_nothing_is_left(desk: Desk, reading: Reading) -> None:
    """P6: it comes again with other tags, and who keeps what was read of it keeps it for ever."""
    desk.deliver(b"a\nb\nc", b"d\ne")
    taken = take(desk)
    assert told(reading, taken)
    read_ahead(reading, taken)
    desk.line.generation = 2
    desk.deliver(b"d\ne")
    assert told(reading, take(desk)) == [("d", None), ("e", None)]
    assert desk.decoded == [b"a", b"b", b"c", b"d", b"e", b"d", b"e"]
    assert not reading._ahead


def test_a_defect_met_while_reading_ahead_spoils_no_commit(desk: Desk, reading: Reading) -> None:
    """P4: the answer to it would be lost, and with it all that the commit had queued. It is met again in its turn."""
    desk.deliver(b"a", b"b\nc\nd", b"e", b"!", b"f")
    taken = take(desk)
    assert told(reading, taken)
    assert read_ahead(reading, taken) == 1
    desk.intake.take(taken[0][1])
    with pytest.raises(ZeroDivisionError):
        told(reading, take(desk))

"""P1, P4: whatever a message is like that nobody can read, it is kept, and holds up nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.parked import EXCHANGE, PART, REASON
from fuseline.amqp.topology import Topology
from fuseline.clock import ManualClock
from fuseline.coordinator.parking import PART_BYTES, Parking
from fuseline.errors import BrokerUnavailableError, FuselineError, InvalidMessageError, MessageTooLargeError

AWAY = BrokerUnavailableError("no connection")
REFUSED = InvalidMessageError("pika cannot write it")
TOO_LARGE = MessageTooLargeError("larger than RabbitMQ's limit")


class Clerk:
    """Keeps what is sent, and says what RabbitMQ says."""

    def __init__(self, *answers: FuselineError | None) -> None:
        self.bodies: list[bytes] = []
        self.properties: list[codec.Properties] = []
        self._answers = list(answers)

    def publish(
        self, _exchange: str, key: str, body: bytes, properties: codec.Properties, **how: Any
    ) -> None:
        assert key == Topology().parked_queue
        self.bodies.append(body)
        self.properties.append(properties)
        how["on_done"](self._answers.pop(0))

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        callback()

    @property
    def headers(self) -> list[dict[str, Any]]:
        return [dict(properties.headers or {}) for properties in self.properties]


def parked(clerk: Clerk, body: bytes = b"{}", headers: dict[str, Any] | None = None) -> int:
    """How often the message was said to be safe."""
    said = codec.properties(codec.REPORT, message_id="m", timestamp=0, correlation_id="r", headers=headers)
    delivery = Delivery(1, 1, body, said, "reports", "", False, queue="q", line=None)
    done: list[bool] = []
    Parking(cast("Link", clerk), Topology(), ManualClock()).park(delivery, "why", lambda: done.append(True))
    return len(done)


def test_it_is_kept_as_it_came_with_the_reason() -> None:
    clerk = Clerk(AWAY, None)
    assert parked(clerk, b"what", {"odd": 1}) == 1
    assert clerk.bodies == [b"what"] * 2
    assert clerk.headers == [{"odd": 1, REASON: "why", EXCHANGE: "reports"}] * 2
    last = clerk.properties[-1]
    assert (last.type, last.message_id, last.correlation_id) == (codec.REPORT, "m", "r")


def test_what_cannot_be_parked_with_its_headers_is_parked_without() -> None:
    clerk = Clerk(REFUSED, AWAY, None)
    assert parked(clerk, headers={"odd": 1}) == 1
    assert ["odd" in one for one in clerk.headers] == [True, False, False]
    assert all(one[REASON] == "why" for one in clerk.headers)


def test_what_rabbitmq_takes_no_longer_as_a_whole_is_kept_in_parts() -> None:
    """Its limit was larger when it took it."""
    body = b"a" * PART_BYTES + b"b" * PART_BYTES + b"the end"
    clerk = Clerk(TOO_LARGE, TOO_LARGE, None, AWAY, None, None)
    assert parked(clerk, body, {"odd": 1}) == 1
    assert b"".join(dict.fromkeys(clerk.bodies[2:])) == body
    parts = [one[PART].split(" of ") for one in clerk.headers[2:]]
    assert [(number, count) for number, count, _ in parts] == [("1", "3"), ("2", "3"), ("2", "3"), ("3", "3")]
    assert len({whole for *_, whole in parts}) == 1
    last = clerk.properties[-1]
    assert (last.type, last.correlation_id) == ("unknown", None)


def test_an_empty_one_that_is_refused_is_one_part() -> None:
    clerk = Clerk(REFUSED, None)
    assert parked(clerk, b"") == 1
    assert clerk.headers[-1][PART].startswith("1 of 1 of ")


def test_a_part_that_is_refused_is_tried_again() -> None:
    """Nothing is given up: something is wrong with RabbitMQ, and people will mend it."""
    clerk = Clerk(REFUSED, REFUSED, REFUSED, None)
    assert parked(clerk) == 1

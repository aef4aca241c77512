"""The parked messages: what nobody could read or place, for people who look at it, export it or send it again.

A message is looked at by taking it, having a copy of it confirmed at the end of the queue, and acknowledging it. To hand it
back instead would count as one more delivery, and RabbitMQ 4 drops what was delivered 20 times: looking would lose it. Who
is killed in between leaves a message twice, never none.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import DEFAULT_EXCHANGE, Topology
from fuseline.errors import BrokerBusyError, TopologyError, UnroutableError

REASON: Final = "x-fuseline-reason"
EXCHANGE: Final = "x-fuseline-exchange"
DEATHS: Final = "x-fuseline-deaths"
PART: Final = "x-fuseline-part"
"""`2 of 7 of ID`: RabbitMQ refused the message as a whole, and its body is in several."""

_OURS: Final = "x-fuseline-"
# RabbitMQ before 4.0 honours an x-death that a client publishes, and drops what looks like a cycle; CC and BCC would have
# copies made.
_NOT_SENT: Final = frozenset({"x-delivery-count", "x-acquired-count", "x-death", "cc", "bcc"})
_NOT_SENT_EITHER: Final = ("x-first-death-", "x-last-death-")

MAX_NESTING: Final = 50
"""Of headers. RabbitMQ's own have three."""
BATCH_MESSAGES: Final = 200
BATCH_BYTES: Final = 16 * 1024 * 1024


def headers_to_keep(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Headers that a message may be published with again. Its `x-death` becomes a text, under the name `DEATHS`."""
    kept = {
        name: value
        for name, value in (headers or {}).items()
        if name.lower() not in _NOT_SENT and not name.lower().startswith(_NOT_SENT_EITHER)
    }
    if headers and (deaths := headers.get("x-death")):
        kept[DEATHS] = json.dumps(_plain(deaths))
    return kept


class ParkedMessage(BaseModel):
    """One of them. `reason`: why nothing could be done with it; `exchange`: the one that it came through.

    `parked_at` is seconds since the epoch. `headers` are the message's own, `deaths` RabbitMQ's `x-death` as JSON if it was
    dead-lettered. `part`, such as `2 of 7 of ID`: the message is a part of one that RabbitMQ refused as a whole. `body` is
    base64.
    """

    message_id: str
    type: str
    reason: str
    exchange: str
    parked_at: float | None
    correlation_id: str | None
    deaths: str | None
    part: str | None = None
    headers: dict[str, Any]
    body: str

    @property
    def content(self) -> bytes:
        """The body itself."""
        return base64.b64decode(self.body)

    @classmethod
    def of(cls, delivery: Delivery) -> ParkedMessage:
        """What was taken from the queue, whoever put it there."""
        properties = delivery.properties
        headers = headers_to_keep(properties.headers)
        deaths = headers.get(DEATHS)
        reason, exchange = _death(deaths) if deaths is not None and REASON not in headers else ("", "")
        return cls(
            message_id=properties.message_id or "",
            type=properties.type or "",
            reason=reason or str(headers.get(REASON, "")),
            exchange=exchange or str(headers.get(EXCHANGE, "")),
            parked_at=_seconds(properties.timestamp),
            correlation_id=properties.correlation_id,
            deaths=None if deaths is None else str(deaths),
            part=None if (part := headers.get(PART)) is None else str(part),
            headers={name: _plain(value) for name, value in _own(headers).items()},
            body=base64.b64encode(delivery.body).decode(),
        )


class Replayed(NamedTuple):
    """`problem`: why the message was left where it is; empty when it was sent again."""

    message: ParkedMessage
    problem: str = ""


class ParkedQueue:
    """The queue of parked messages, over a link with the rights of an operator.

    All calls raise `TopologyError` when there is no such queue, `AccessRefusedError` where a right is missing, and what
    `BackgroundLink` raises when RabbitMQ is away. What was under way then is in the queue still, or twice.
    """

    def __init__(self, link: BackgroundLink, topology: Topology, call_seconds: float) -> None:
        self._link = link
        self._topology = topology
        self._call_seconds = call_seconds

    def count(self) -> int:
        """How many there are."""
        queue = self._topology.parked_queue
        found = self._link.count(queue, deadline_seconds=self._call_seconds)
        if found is None:
            raise TopologyError(f"RabbitMQ has no queue {queue!r}: `fuseline topology apply` declares it")
        return found.messages

    def browse(self, limit: int | None = None) -> Iterator[ParkedMessage]:
        """Those that are there now, or so many of them; none is taken away.

        Those that were looked at stand behind the others. Raises `BrokerBusyError` when the queue is full.
        """
        for delivery in self._taken(limit):
            self._put_back(delivery)
            yield ParkedMessage.of(delivery)

    def drain(self, keep: Callable[[list[ParkedMessage]], None]) -> int:
        """Take all away, batch by batch; how many. A batch is removed after `keep` has returned: it is safe by then."""
        total = 0
        batch: list[Delivery] = []
        size = 0
        for delivery in self._taken(None):
            batch.append(delivery)
            size += len(delivery.body)
            if len(batch) == BATCH_MESSAGES or size >= BATCH_BYTES:
                total += self._hand_over(batch, keep)
                batch, size = [], 0
        return total + self._hand_over(batch, keep)

    def replay(self, is_wanted: Callable[[ParkedMessage], bool]) -> Iterator[Replayed]:
        """Send reports again through the exchange that they came through; tells about each that is wanted.

        A coordinator reads it as it did the first time, and parks what it still cannot place.
        """
        for delivery in self._taken(None):
            message = ParkedMessage.of(delivery)
            if not is_wanted(message):
                self._put_back(delivery)
                continue
            problem = self._why_not(message) or self._send(delivery, message.exchange)
            if problem:
                self._put_back(delivery)
            else:
                self._link.ack(delivery)
            yield Replayed(message, problem)

    def _taken(self, limit: int | None) -> Iterator[Delivery]:
        """One after the other, no more than there are now: what was put back comes round again."""
        count = self.count()
        for _ in range(count if limit is None else min(count, limit)):
            delivery = self._link.get(self._topology.parked_queue, deadline_seconds=self._call_seconds)
            if delivery is None:
                return
            yield delivery

    def _put_back(self, delivery: Delivery) -> None:
        queue = self._topology.parked_queue
        try:
            self._publish(DEFAULT_EXCHANGE, queue, delivery, headers_to_keep(delivery.properties.headers))
        except BrokerBusyError as error:
            raise BrokerBusyError(
                f"{error}; if {queue!r} is full, export with --remove makes room"
            ) from error
        self._link.ack(delivery)

    def _hand_over(self, batch: list[Delivery], keep: Callable[[list[ParkedMessage]], None]) -> int:
        if batch:
            keep([ParkedMessage.of(delivery) for delivery in batch])
        for delivery in batch:
            self._link.ack(delivery)
        return len(batch)

    def _why_not(self, message: ParkedMessage) -> str:
        if message.part is not None:
            return f"it is part {message.part}; export them all, and put their bodies together"
        exchange = message.exchange
        if exchange.startswith(self._topology.reports_exchange("")):
            return ""
        if exchange == self._topology.dead_exchange:
            return "it is a dead assignment; coordinators look after its step by themselves"
        return f"it came through exchange {exchange!r}, and no report does"

    def _send(self, delivery: Delivery, exchange: str) -> str:
        try:
            self._publish(exchange, "", delivery, _own(headers_to_keep(delivery.properties.headers)))
        except UnroutableError as error:
            return str(error)
        return ""

    def _publish(self, exchange: str, key: str, delivery: Delivery, headers: dict[str, Any]) -> None:
        was = delivery.properties
        self._link.publish(
            exchange,
            key,
            delivery.body,
            Properties(
                content_type=was.content_type,
                content_encoding=was.content_encoding,
                delivery_mode=2,
                type=was.type,
                message_id=was.message_id,
                correlation_id=was.correlation_id,
                timestamp=was.timestamp,
                headers=headers or None,
            ),
            deadline_seconds=self._call_seconds,
        )


def _death(deaths: Any) -> tuple[str, str]:
    """(reason, exchange) of what RabbitMQ put here: nobody got through with it. Empty when that cannot be told."""
    try:
        last = json.loads(deaths)[0]
        why, queue, exchange = last["reason"], last["queue"], last["exchange"]
    except (ValueError, TypeError, LookupError):
        return "", ""
    if why == "delivery_limit":
        why = "each coordinator that took it was lost, too often to go on"
    return f"RabbitMQ took it out of {queue}: {why}", str(exchange)


def _own(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that the message had before it was parked."""
    return {name: value for name, value in headers.items() if not name.startswith(_OURS)}


def _seconds(timestamp: Any) -> float | None:
    if isinstance(timestamp, datetime):
        return timestamp.timestamp()
    return None if timestamp is None else float(timestamp)


def _plain(value: Any, left: int = MAX_NESTING) -> Any:
    """A header's value as JSON has it: bytes that are no text become base64, and what JSON lacks a text.

    So does what is in more than `left` others: pika reads more of them than Python has room to write down.
    """
    if isinstance(value, Mapping | list | tuple) and not left:
        return "nested too deep to be kept"
    if isinstance(value, Mapping):
        return {str(name): _plain(one, left - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, left - 1) for one in value]
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)

"""Several reports in one message (ADR 0013), taken apart: a report a line."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery


class Slice(Delivery):
    """Some of the reports of a message, of which others follow: acknowledging it would let those go."""

    __slots__ = ()


def messages_in(delivery: Delivery) -> int:
    """How many messages are in one, at most."""
    return delivery.body.count(b"\n") + 1 if delivery.properties.type == codec.REPORTS else 1


def slices_of(delivery: Delivery, most: int) -> Sequence[Delivery]:
    """The message in parts of up to `most`, so that no transaction has more, whoever has sent it (P1, P6)."""
    if messages_in(delivery) <= most:
        return (delivery,)
    lines = _lines(delivery)
    parts = [b"\n".join(lines[start : start + most]) for start in range(0, len(lines), most)]
    *others, last = parts
    return [
        *(_with(Slice, delivery, body, delivery.properties) for body in others),
        _with(Delivery, delivery, last, delivery.properties),
    ]


def reports_in(delivery: Delivery) -> Sequence[Delivery]:
    """The messages that are in one, as deliveries of their own: each is read, parked or put back by itself.

    They share the tag: the message is acknowledged when nothing that came of any of them is open.
    """
    if delivery.properties.type != codec.REPORTS:
        return (delivery,)
    properties = copy.copy(delivery.properties)
    properties.type, properties.content_type, properties.message_id = codec.REPORT, codec.CONTENT_TYPE, None
    return [_with(Delivery, delivery, body, properties) for body in _lines(delivery)]


def together(parts: Sequence[Delivery]) -> Delivery:
    """Parts of one message as one again: a line each."""
    one = parts[0]
    if len(parts) == 1:
        return one
    properties = copy.copy(one.properties)
    properties.type, properties.content_type = codec.REPORTS, codec.LINES_CONTENT_TYPE
    properties.message_id = properties.correlation_id = None
    return _with(Delivery, one, b"\n".join([part.body for part in parts]), properties)


def _lines(delivery: Delivery) -> list[bytes]:
    """Without those that are empty, such as what comes after a last line feed; one if there is no other."""
    return [line for line in delivery.body.split(b"\n") if line and not line.isspace()] or [b""]


def _with(kind: type[Delivery], whole: Delivery, body: bytes, properties: Properties) -> Delivery:
    return kind(
        whole.tag,
        whole.generation,
        body,
        properties,
        whole.exchange,
        whole.routing_key,
        whole.redelivered,
        whole.queue,
        whole.line,
    )

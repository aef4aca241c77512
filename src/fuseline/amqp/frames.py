"""The frames that every step pays for, to and from bytes: messages, acks, confirms. What is rare is left to pika.

Each function here says the same as pika's own way does (the tests hold them against each other), without an object for
each frame and a call for each field.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from pika import data, frame, spec

from fuseline.amqp.codec import Properties
from fuseline.amqp.tolerant import NOT_READABLE, TolerantProperties

METHOD: Final = spec.FRAME_METHOD
HEADER: Final = spec.FRAME_HEADER
BODY: Final = spec.FRAME_BODY
END: Final = spec.FRAME_END
DELIVER: Final = spec.Basic.Deliver.INDEX
ACK: Final = spec.Basic.Ack.INDEX

FRAME: Final = struct.Struct(">BHI")
INDEX: Final = struct.Struct(">I")
TAG: Final = struct.Struct(">QB")
SIZE: Final = struct.Struct(">Q")
_ACK: Final = struct.Struct(">BHIIQBB")
_HEADER: Final = struct.Struct(">BHIHHQH")
_END: Final = bytes((END,))

_P = spec.BasicProperties
_RARE: Final = (
    _P.FLAG_CONTENT_ENCODING | _P.FLAG_PRIORITY | _P.FLAG_USER_ID | _P.FLAG_APP_ID | _P.FLAG_CLUSTER_ID | 3
)
# A look into pika's class takes as long as to read what the flag is about.
_CONTENT_TYPE: Final = _P.FLAG_CONTENT_TYPE
_HEADERS: Final = _P.FLAG_HEADERS
_DELIVERY_MODE: Final = _P.FLAG_DELIVERY_MODE
_CORRELATION_ID: Final = _P.FLAG_CORRELATION_ID
_REPLY_TO: Final = _P.FLAG_REPLY_TO
_EXPIRATION: Final = _P.FLAG_EXPIRATION
_MESSAGE_ID: Final = _P.FLAG_MESSAGE_ID
_TIMESTAMP: Final = _P.FLAG_TIMESTAMP
_TYPE: Final = _P.FLAG_TYPE
_LENGTHS: Final = [bytes((number,)) for number in range(256)]
_SHORTS: Final = (
    (_CORRELATION_ID, "correlation_id"),
    (_REPLY_TO, "reply_to"),
    (_EXPIRATION, "expiration"),
    (_MESSAGE_ID, "message_id"),
)
_UNSET: Final[dict[str, Any]] = dict(vars(_P()))
# Tables of this size are one or two counters, the same in message after message.
_KNOWN_TABLE_BYTES: Final = 48
_KNOWN_TABLES: Final = 64
_tables: dict[bytes, dict[str, Any]] = {}


# ---- to bytes


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """A `basic.ack`."""
    return _ACK.pack(METHOD, channel, 13, ACK, tag, multiple, END)


def publish_frame(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    """The method of a message, which is the same for all of one route. Raises as pika does when a name is too long."""
    method = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    return bytes(frame.Method(channel, method).marshal())


def message(method: bytes, channel: int, properties: Properties, body: bytes, most: int) -> bytes:
    """All frames of a message: `method`, the header, and the body in pieces of up to `most` bytes.

    Raises `ValueError` for a header that is larger than a frame: it cannot be cut, and RabbitMQ would close the connection.
    """
    size = len(body)
    header = _header(channel, size, properties)
    if len(header) > most + FRAME.size + len(_END):
        raise ValueError(f"the headers have {len(header)} bytes, and {most} are the most")
    if 0 < size <= most:
        return b"".join((method, header, FRAME.pack(BODY, channel, size), body, _END))
    parts = [method, header]
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (FRAME.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def _header(channel: int, size: int, properties: Properties) -> bytes:
    fields = properties.__dict__
    if (
        fields["content_encoding"] is None
        and fields["priority"] is None
        and fields["user_id"] is None
        and fields["app_id"] is None
        and fields["cluster_id"] is None
    ):
        try:
            return _common_header(channel, size, fields)
        except (AttributeError, IndexError, TypeError, ValueError, struct.error):
            pass  # pika knows what to say about it
    return bytes(frame.Header(channel, size, properties).marshal())


def _common_header(channel: int, size: int, fields: dict[str, Any]) -> bytes:
    flags = 0
    parts: list[bytes] = []
    if (text := fields["content_type"]) is not None:
        flags = _CONTENT_TYPE
        parts.append(_constant(text))
    if (headers := fields["headers"]) is not None:
        flags |= _HEADERS
        data.encode_table(parts, headers)
    if (mode := fields["delivery_mode"]) is not None:
        flags |= _DELIVERY_MODE
        parts.append(bytes((mode,)))
    if (text := fields["correlation_id"]) is not None:
        flags |= _CORRELATION_ID
        raw = text.encode()
        parts += (_LENGTHS[len(raw)], raw)
    if (text := fields["reply_to"]) is not None:
        flags |= _REPLY_TO
        parts.append(_constant(text))
    if (text := fields["expiration"]) is not None:
        flags |= _EXPIRATION
        parts.append(_short(text))
    if (text := fields["message_id"]) is not None:
        flags |= _MESSAGE_ID
        raw = text.encode()
        parts += (_LENGTHS[len(raw)], raw)
    if (time := fields["timestamp"]) is not None:
        flags |= _TIMESTAMP
        parts.append(SIZE.pack(time))
    if (text := fields["type"]) is not None:
        flags |= _TYPE
        parts.append(_constant(text))
    parts.append(_END)
    rest = b"".join(parts)
    return _HEADER.pack(HEADER, channel, 13 + len(rest), _P.INDEX, 0, size, flags) + rest


def _short(text: str) -> bytes:
    """Raises `ValueError` when it is too long, `AttributeError` when it is no text."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


_constant = lru_cache(maxsize=64)(_short)


# ---- from bytes


def read_deliver(encoded: bytes, here: int, end: int) -> spec.Basic.Deliver:
    """A `basic.deliver`, from behind its index up to `end`."""
    behind = here + 1 + encoded[here]
    number, redelivered = TAG.unpack_from(encoded, behind)
    consumer, exchange, key = _names(encoded[here:behind], encoded[behind + 9 : end])
    return spec.Basic.Deliver(consumer, number, bool(redelivered & 1), exchange, key)


@lru_cache(maxsize=512)
def _names(consumer: bytes, route: bytes) -> tuple[Any, Any, Any]:
    """Consumer tag, exchange and key, which are the same in delivery after delivery."""
    exchange, here = _text(route, 0)
    return _text(consumer, 0)[0], exchange, _text(route, here)[0]


def _text(encoded: bytes, here: int) -> tuple[Any, int]:
    """As pika: what is no UTF-8 stays bytes."""
    end = here + 1 + encoded[here]
    raw = encoded[here + 1 : end]
    try:
        return raw.decode(), end
    except UnicodeDecodeError:
        return raw, end


def read_properties(encoded: bytes, here: int, end: int) -> Properties:
    """The properties in a header; those that other clients send are read as tolerantly as ever."""
    flags = encoded[here] << 8 | encoded[here + 1]
    if not flags & _RARE:
        try:
            return _read_common(encoded, here + 2, flags)
        except (IndexError, *NOT_READABLE):
            pass  # not as it should be: the patient way says what can be said
    found = TolerantProperties()
    found.decode(encoded[here:end])
    return found


def _read_common(encoded: bytes, here: int, flags: int) -> Properties:
    found = TolerantProperties.__new__(TolerantProperties)
    fields = found.__dict__
    fields.update(_UNSET)
    # Without a call for each: this is done for every message.
    if flags & _CONTENT_TYPE:
        end = here + 1 + encoded[here]
        fields["content_type"] = encoded[here + 1 : end].decode()
        here = end
    if flags & _HEADERS:
        (size,) = INDEX.unpack_from(encoded, here)
        end = here + 4 + size
        fields["headers"] = _table(encoded[here:end])
        here = end
    if flags & _DELIVERY_MODE:
        fields["delivery_mode"] = encoded[here]
        here += 1
    for flag, name in _SHORTS:
        if flags & flag:
            end = here + 1 + encoded[here]
            fields[name] = encoded[here + 1 : end].decode()
            here = end
    if flags & _TIMESTAMP:
        (fields["timestamp"],) = SIZE.unpack_from(encoded, here)
        here += 8
    if flags & _TYPE:
        fields["type"] = encoded[here + 1 : here + 1 + encoded[here]].decode()
    return found


def _table(encoded: bytes) -> dict[str, Any]:
    """Headers. RabbitMQ 3.10 puts the same counter into each message of a quorum queue."""
    known = _tables.get(encoded)
    if known is not None:
        return known.copy()
    if len(encoded) > _KNOWN_TABLE_BYTES:
        raise ValueError("for the patient way")
    decoded, end = data.decode_table(encoded, 0)
    table: dict[Any, Any] = decoded
    if end != len(encoded) or not all(isinstance(name, str) for name in table):
        raise ValueError("for the patient way")
    if len(_tables) < _KNOWN_TABLES and all(type(value) in (int, bool, str) for value in table.values()):
        _tables[encoded] = table.copy()
    return table

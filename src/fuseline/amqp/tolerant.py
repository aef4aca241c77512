"""Properties of messages that other clients have sent: whatever is in them, they can be read.

pika decodes headers that RabbitMQ passes on, and raises over some of them: a time beyond the year 9999, lists nested some
thousand deep. Its connection ends over that, RabbitMQ delivers the message again, and so on for ever, with everybody else's
messages behind it. And names that are not UTF-8 come as bytes, where everything else expects a text.
"""

from __future__ import annotations

import logging
import struct
from typing import Any, Final

import pika
from pika import spec
from pika.exceptions import AMQPError

log = logging.getLogger(__name__)

UNREADABLE: Final = "x-fuseline-unreadable"
"""The one header of a message whose headers cannot be read: why."""
SHORT_BYTES: Final = 255
"""The most that a short text of AMQP has."""

NOT_READABLE: Final = (ValueError, ArithmeticError, OSError, RecursionError, struct.error, AMQPError)
"""What pika raises over properties."""

_TEXTS: Final = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type")


class TolerantProperties(pika.BasicProperties):
    """As pika's. Texts and names that are not UTF-8 are read with a replacement for what is wrong in them."""

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Read them."""
        try:
            super().decode(encoded, offset)
        except NOT_READABLE as error:
            super().decode(_without_headers(encoded, offset), 0)
            told = f"{type(error).__name__}: {error}"
            log.warning("headers of a message cannot be read: %s", told)
            self.headers = {UNREADABLE: told[:200]}
        if self.headers and bytes in map(type, self.headers):
            names: Any = self.headers
            self.headers = {_text(name): value for name, value in names.items()}
        for attribute in _TEXTS:
            if isinstance(value := getattr(self, attribute), bytes):
                setattr(self, attribute, _text(value))
        return self


def _text(name: str | bytes) -> str:
    """A short text, which can be sent on: at most `SHORT_BYTES`, of which a replacement takes three."""
    if isinstance(name, str):
        return name
    return name.decode(errors="replace").encode()[:SHORT_BYTES].decode(errors="ignore")


def _without_headers(encoded: bytes, offset: int) -> bytes:
    """The same with an empty table of headers. They follow the flags and two short texts."""
    here = offset
    (flags,) = struct.unpack_from(">H", encoded, here)
    here += 2
    for flag in (spec.BasicProperties.FLAG_CONTENT_TYPE, spec.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            here += 1 + encoded[here]
    (size,) = struct.unpack_from(">I", encoded, here)
    return encoded[offset:here] + bytes(4) + encoded[here + 4 + size :]


def read_tolerantly() -> None:
    """Have pika read the properties of all messages so."""
    spec.props[pika.BasicProperties.INDEX] = TolerantProperties

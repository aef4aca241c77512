"""What other clients send is read, whatever it is (P1, P7): pika ends its connection over what it cannot read."""

from __future__ import annotations

import struct

import pytest
from pika import spec

from fuseline.amqp import loops
from fuseline.amqp.codec import Properties
from fuseline.amqp.tolerant import UNREADABLE, TolerantProperties


def encoded(properties: Properties) -> bytes:
    return b"".join(properties.encode())


def with_header(value: bytes, properties: Properties) -> bytes:
    """With a header `x` of this value, its kind first, in place of its only one, `x`: None."""
    properties.headers = {"x": None}
    table = b"\x01x" + value
    return encoded(properties).replace(b"\0\0\0\x03\x01xV", struct.pack(">I", len(table)) + table)


def nested(levels: int) -> bytes:
    value = b""
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


def test_pika_reads_properties_so() -> None:
    assert loops.SelectLoop in vars(loops).values()
    assert spec.props[spec.BasicProperties.INDEX] is TolerantProperties


@pytest.mark.parametrize(
    "value",
    [
        b"T" + struct.pack(">Q", 2**62),
        b"d" + struct.pack(">d", float("nan")),
        b"d" + struct.pack(">d", float("inf")),
        b"?",
        nested(5000),
    ],
    ids=["time", "nan", "infinity", "kind", "nested"],
)
@pytest.mark.parametrize("content", [None, "application/json"])
def test_headers_that_cannot_be_read_are_left_out_and_everything_else_is_read(
    value: bytes, content: str | None
) -> None:
    sent = Properties(
        content_type=content, content_encoding=content, delivery_mode=2, message_id="m", type="t", timestamp=7
    )
    body = with_header(value, sent)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each is of another kind
        Properties().decode(body)
    found = TolerantProperties()
    found.decode(body)
    assert found.headers is not None
    assert list(found.headers) == [UNREADABLE]
    found.headers = sent.headers
    assert found == sent


def test_texts_that_are_no_utf_8_are_texts() -> None:
    body = encoded(
        Properties(headers={"name": b"\xff"}, message_id="id", correlation_id="other", type="kind")
    )
    found = TolerantProperties()
    found.decode(
        body.replace(b"name", b"n\xffme")
        .replace(b"\x02id", b"\x02i\xff")
        .replace(b"kind", b"\xff\xff\xff\xff")
    )
    assert found.headers == {"n\ufffdme": b"\xff"}
    assert (found.message_id, found.correlation_id, found.type) == ("i\ufffd", "other", "\ufffd" * 4)


def test_what_can_be_read_is_read_as_ever() -> None:
    sent = Properties(headers={"n": 1, "t": "x", "deep": [{"a": [True, None]}]}, reply_to="me", priority=3)
    found = TolerantProperties()
    found.decode(encoded(sent))
    assert found == sent

"""The short way for frequent frames says and reads the same as pika's own, and pika is as it expects it to be."""

from __future__ import annotations

import copy
import socket
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.base_connection import BaseConnection
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils import io_services_utils
from pika.channel import Channel
from pika.connection import Connection

from fuseline.amqp import frames
from fuseline.amqp.codec import Properties
from fuseline.amqp.lean import (
    READ_BYTES,
    READS_AT_ONCE,
    WRITE_BYTES,
    LeanChannel,
    LeanLoop,
    LeanSelectConnection,
)
from fuseline.amqp.tolerant import TolerantProperties

MOST = 1000
short = st.text(max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | short | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=6,
)
properties = st.builds(
    Properties,
    content_type=st.none() | short,
    content_encoding=st.none() | short,
    headers=st.none() | st.dictionaries(short, values, max_size=4),
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    expiration=st.none() | short,
    message_id=st.none() | short,
    timestamp=st.none() | st.integers(0, 2**64 - 1),
    type=st.none() | short,
    user_id=st.none() | short,
    app_id=st.none() | short,
    cluster_id=st.none() | short,
)


def by_pika(channel: int, exchange: str, key: str, mandatory: bool, props: Any, body: bytes) -> bytes:
    parts = [
        frame.Method(channel, spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)),
        frame.Header(channel, len(body), props),
    ]
    parts += [frame.Body(channel, body[start : start + MOST]) for start in range(0, len(body), MOST)]
    return b"".join(part.marshal() for part in parts)


@given(st.integers(1, 2047), short, short, st.booleans(), properties, st.binary(max_size=2 * MOST + 1))
def test_a_message_is_written_as_pika_writes_it(
    channel: int, exchange: str, key: str, mandatory: bool, props: Any, body: bytes
) -> None:
    method = frames.publish_frame(channel, exchange, key, mandatory)
    found = frames.message(method, channel, props, body, MOST)
    assert found == by_pika(channel, exchange, key, mandatory, props, body)


@pytest.mark.parametrize("size", [0, 1, MOST - 1, MOST, MOST + 1, 3 * MOST])
def test_a_body_is_cut_into_frames(size: int) -> None:
    props = Properties(delivery_mode=2, timestamp=7, type="t")
    body = bytes(size)
    found = frames.message(frames.publish_frame(3, "e", "k", True), 3, props, body, MOST)
    assert found == by_pika(3, "e", "k", True, props, body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_id": "x" * 256},
        {"type": "x" * 256},
        {"correlation_id": 7},
        {"delivery_mode": 256},
        {"timestamp": -1},
        {"headers": {"x" * 256: 1}},
        {"headers": {"x": object()}},
        {"headers": [1]},
    ],
    ids=[
        "long id",
        "long type",
        "a number",
        "delivery mode",
        "timestamp",
        "long header name",
        "strange header",
        "list",
    ],
)
def test_what_cannot_be_written_is_told_as_pika_tells_it(wrong: dict[str, Any]) -> None:
    props = Properties(**wrong)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - each is of another kind
        frame.Header(1, 0, props).marshal()
    with pytest.raises(type(theirs.value)) as ours:
        frames.message(b"", 1, props, b"", MOST)
    assert str(ours.value) == str(theirs.value)


@given(st.integers(1, 2047), st.integers(0, 2**63), st.booleans())
def test_an_ack_is_written_as_pika_writes_it(channel: int, tag: int, multiple: bool) -> None:
    assert (
        frames.ack_frame(channel, tag, multiple)
        == frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()
    )


@given(properties)
def test_properties_are_read_as_pika_reads_them(props: Any) -> None:
    encoded = b"".join(props.encode())
    expected = TolerantProperties().decode(encoded)
    for _ in range(2):  # the second time tables are known
        found = frames.read_properties(b"before" + encoded + b"behind", 6, 6 + len(encoded))
        assert type(found) is TolerantProperties
        assert vars(found) == vars(expected)
        if found.headers:  # what a caller does with them is his own business
            found.headers = cast("dict[str, Any]", found.headers)
            found.headers["mine"] = 1


@pytest.mark.parametrize(
    "value",
    [
        b"T" + struct.pack(">Q", 2**62),
        b"T" + struct.pack(">Q", 2**40),
        b"d" + struct.pack(">d", float("nan")),
        b"d" + struct.pack(">d", float("inf")),
        b"D" + struct.pack(">Bi", 255, 1),
        b"?",
        b"S" + struct.pack(">I", 2**31),
        b"A" + struct.pack(">I", 5) + b"A\0\0",
        b"".join(b"A" + struct.pack(">I", 5 * left) for left in reversed(range(5000))),
        b"x" + struct.pack(">I", 3) + b"\xff\xfe\xfd",
    ],
    ids=["time", "late", "nan", "infinity", "decimal", "kind", "size", "cut", "nested", "bytes"],
)
@pytest.mark.parametrize("name", [b"x", b"\xff"])
def test_properties_that_pika_cannot_read_are_read_as_tolerantly(value: bytes, name: bytes) -> None:
    """Whatever it is: an error here would end the connection, and the message would come again (P1, P7)."""
    table = bytes((len(name),)) + name + value
    sent = Properties(
        content_type="c", headers={"x": None}, delivery_mode=2, message_id="m", type="t", timestamp=7
    )
    encoded = b"".join(sent.encode()).replace(b"\0\0\0\x03\x01xV", struct.pack(">I", len(table)) + table)
    expected = TolerantProperties().decode(encoded)
    found = frames.read_properties(encoded, 0, len(encoded))
    assert vars(found) == vars(expected)


@given(short, st.integers(0, 2**63), st.booleans(), short, short)
def test_a_delivery_is_read_as_pika_reads_it(
    tag: str, number: int, again: bool, exchange: str, key: str
) -> None:
    method = spec.Basic.Deliver(tag, number, again, exchange, key)
    encoded = b"".join(method.encode())
    found = frames.read_deliver(b"before" + encoded + b"after", 6, 6 + len(encoded))
    assert vars(found) == vars(spec.Basic.Deliver().decode(encoded))


def test_names_that_are_no_utf_8_stay_bytes() -> None:
    encoded = b"".join(spec.Basic.Deliver("tag", 1, False, "exchange", "xxx").encode()).replace(
        b"xxx", b"\xff\xfe\xfd"
    )
    assert vars(frames.read_deliver(encoded, 0, len(encoded))) == vars(spec.Basic.Deliver().decode(encoded))


# ---- the stream


CALLBACKS = SimpleNamespace(add=lambda *_args, **_more: None)


class Stream(LeanSelectConnection):
    """A connection of which only the stream is there."""

    def __init__(self) -> None:
        self.others: list[Any] = []
        self.bytes_received = self.frames_received = self.bytes_sent = self.frames_sent = 0
        self._channels: dict[int, Any] = {}
        self._out = []
        self.soon: list[Callable[[], None]] = []
        self.flush_soon = self.soon.append
        self._transport: Any = None
        self._body_max_length = MOST
        self.callbacks: Any = CALLBACKS
        self.connection_state = self.CONNECTION_OPEN

    def _process_frame(self, value: Any) -> None:
        self.others.append(value)

    def received(self, encoded: bytes) -> None:
        self._on_data_available(encoded)


def channel_of(stream: Stream, number: int = 1) -> LeanChannel:
    channel = LeanChannel(stream, number, lambda _channel: None)
    stream._channels[number] = channel
    return channel


def delivered(number: int, tag: int, body: bytes, pieces: int = MOST) -> bytes:
    parts: list[Any] = [
        frame.Method(number, spec.Basic.Deliver("consumer", tag, False, "e", "k")),
        frame.Header(number, len(body), Properties(message_id=str(tag), headers={"x-delivery-count": 0})),
    ]
    parts += [frame.Body(number, body[start : start + pieces]) for start in range(0, len(body), pieces)]
    return b"".join(part.marshal() for part in parts)


@pytest.mark.parametrize("step", [1, 2, 7, 8, 100, 10_000])
def test_a_stream_is_read_however_it_is_cut(step: int) -> None:
    stream = Stream()
    channel = channel_of(stream)
    got: list[Any] = []
    channel._consumers["consumer"] = lambda _channel, method, props, body: got.append(
        (method.delivery_tag, props.message_id, body)
    )
    channel._on_confirm = lambda one: got.append((one.method.delivery_tag, one.method.multiple))
    sent = (
        delivered(1, 1, b"one")
        + delivered(1, 2, b"")
        + frame.Method(1, spec.Basic.Ack(5, True)).marshal()
        + frame.Heartbeat().marshal()
        + delivered(1, 3, bytes(2500))
        + frame.Method(1, spec.Basic.Nack(6, False)).marshal()
        + delivered(1, 4, b"last", pieces=2)
    )
    for start in range(0, len(sent), step):
        stream.received(sent[start : start + step])
    assert got == [(1, "1", b"one"), (2, "2", b""), (5, True), (3, "3", bytes(2500)), (4, "4", b"last")]
    assert [type(one) for one in stream.others] == [frame.Heartbeat, frame.Method]
    assert stream.bytes_received == len(sent)
    assert stream.frames_received == 3 + 2 + 1 + 5 + 4
    assert stream._rest == b""


def test_frames_of_two_channels_may_take_turns() -> None:
    stream = Stream()
    got: list[Any] = []
    for number in (1, 2):
        consumers = channel_of(stream, number)._consumers
        consumers["consumer"] = lambda channel, _method, _props, body: got.append(
            (channel.channel_number, body)
        )
    first, second = delivered(1, 1, b"one"), delivered(2, 1, b"two")
    method, end = len(frame.Method(1, spec.Basic.Deliver("consumer", 1, False, "e", "k")).marshal()), 11
    stream.received(first[:method] + second[:-end] + first[method:] + second[-end:])
    assert got == [(1, b"one"), (2, b"two")]
    assert stream.frames_received == 6


def test_messages_that_are_no_deliveries_are_left_to_pika() -> None:
    stream = Stream()
    channel_of(stream)
    parts = [
        frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "e", "k")),
        frame.Header(1, 2, Properties()),
        frame.Body(1, b"{}"),
        frame.Method(1, spec.Basic.Ack(1, False)),  # nobody has asked for confirms
    ]
    stream.received(b"".join(part.marshal() for part in parts))
    assert [type(one) for one in stream.others] == [frame.Method, frame.Header, frame.Body, frame.Method]


def test_a_message_for_a_cancelled_consumer_is_left_to_pika() -> None:
    stream = Stream()
    channel = channel_of(stream)
    left: list[Any] = []
    channel._on_deliver = lambda method, header, body: left.append(
        (method.method.delivery_tag, header.body_size, body)
    )
    stream.received(delivered(1, 1, b"one"))
    channel._consumers["consumer"] = lambda *_args: pytest.fail("it is cancelled")
    channel._cancelled.add("consumer")
    stream.received(delivered(1, 2, b"three"))
    assert left == [(1, 3, b"one"), (2, 5, b"three")]


def test_a_frame_without_its_end_is_an_error() -> None:
    stream = Stream()
    channel_of(stream)
    sent = bytearray(frame.Method(1, spec.Basic.Ack(1, False)).marshal())
    sent[-1] = 0
    with pytest.raises(exceptions.InvalidFrameError):
        stream.received(bytes(sent) + bytes(8))


def test_a_server_of_another_protocol_is_left_to_pika() -> None:
    stream = Stream()
    stream.received(b"AMQP\0\0\x09\x01")
    assert [type(one) for one in stream.others] == [frame.ProtocolHeader]


class Transport:
    """Between a connection and a socket."""

    _STATE_ACTIVE = _state = 1

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted: list[BaseException] = []

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))

    def write(self, encoded: bytes) -> None:
        self.written.append(encoded)

    def _initiate_abort(self, error: BaseException) -> None:
        self.aborted.append(error)


class Socket:
    """Takes `room` bytes."""

    def __init__(self, room: int | OSError) -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.arrived = b""

    def recv(self, size: int) -> bytes:
        if not self.arrived:
            raise BlockingIOError
        found, self.arrived = self.arrived[:size], self.arrived[size:]
        return found

    def send(self, encoded: bytes) -> int:
        if isinstance(self.room, OSError):
            raise self.room
        if not self.room:
            raise BlockingIOError
        taken = encoded[: self.room]
        self.room -= len(taken)
        self.sent.append(taken)
        return len(taken)


def writing(room: int | OSError) -> tuple[Stream, Transport, Socket]:
    stream, transport, plain = Stream(), Transport(), Socket(room)
    stream._transport, stream._socket = transport, plain
    return stream, transport, plain


def deliveries(size: int) -> bytes:
    """So many bytes of them at least."""
    one = delivered(1, 7, bytes(MOST))
    return one * -(-size // len(one))


def test_all_that_has_arrived_is_read_in_one_turn() -> None:
    """Else what a coordinator records at once is what one read brings, however much waits behind it."""
    stream, _transport, plain = writing(0)
    channel_of(stream)
    plain.arrived = deliveries(3 * READ_BYTES)
    size = len(plain.arrived)
    stream._readable()
    assert (plain.arrived, stream.bytes_received) == (b"", size)


def test_a_peer_that_sends_without_end_does_not_keep_the_loop_to_itself() -> None:
    """P1: heartbeats and timers have their turn."""
    stream, _transport, plain = writing(0)
    channel_of(stream)
    plain.arrived = deliveries((READS_AT_ONCE + 2) * READ_BYTES)
    stream._readable()
    assert stream.bytes_received == READS_AT_ONCE * READ_BYTES


def test_nothing_is_read_of_a_connection_that_was_ended_by_what_was_read_before() -> None:
    stream, transport, plain = writing(0)
    channel_of(stream)
    plain.arrived = deliveries(2 * READ_BYTES)[: 2 * READ_BYTES]

    def end(error: BaseException) -> None:
        transport.aborted.append(error)
        transport._state = 2

    transport._initiate_abort = end  # type: ignore[method-assign]
    stream._channels = cast("Any", None)
    stream._readable()
    assert len(transport.aborted) == 1
    assert len(plain.arrived) == READ_BYTES


def test_what_is_sent_in_one_turn_leaves_in_one_write() -> None:
    stream, transport, plain = writing(10_000)
    for number in range(5):
        stream.emit(b"%d" % number)
    assert plain.sent == []
    (flush,) = stream.soon
    flush()
    assert plain.sent == [b"01234"]
    assert transport.written == []
    assert (stream.bytes_sent, stream.frames_sent) == (5, 5)


@pytest.mark.parametrize("room", [0, 3])
def test_what_the_socket_does_not_take_goes_in_order(room: int) -> None:
    stream, transport, plain = writing(room)
    stream.emit(b"abcdef")
    stream.flush()
    plain.room = 100  # yet what waits goes first
    stream.emit(b"ghi")
    stream.flush()
    assert b"".join(plain.sent + transport.written) == b"abcdefghi"
    assert b"".join(plain.sent) == b"abcdef"[:room]


def test_a_broken_socket_ends_the_connection() -> None:
    error = ConnectionResetError()
    stream, transport, _plain = writing(error)
    stream.emit(b"abc")
    stream.flush()
    assert transport.aborted == [error]
    assert transport.written == []


def test_much_does_not_wait_for_the_end_of_the_turn() -> None:
    stream, _transport, plain = writing(10 * WRITE_BYTES)
    stream.emit(bytes(WRITE_BYTES - 1))
    stream.emit(b"x")
    stream.emit(b"y")
    assert [len(one) for one in plain.sent] == [WRITE_BYTES]
    stream.flush()
    assert plain.sent[1:] == [b"y"]


def test_over_tls_the_transport_writes() -> None:
    stream, transport, _plain = writing(100)
    stream._socket = None
    stream.emit(b"abc")
    stream.flush()
    assert transport.written == [b"abc"]


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_large_message_waits_in_pieces(over_tls: bool) -> None:
    """P6: what is left of a piece is copied each time that a part goes out, which over TLS is 16 KiB."""
    stream, transport, plain = writing(10)
    if over_tls:
        stream._socket = None
    body = bytes(range(256)) * 10_000
    stream.emit(body)
    assert max(map(len, transport.written)) == WRITE_BYTES
    assert b"".join(plain.sent + transport.written) == body
    assert len(plain.sent) == (0 if over_tls else 1)


def test_what_is_sent_after_the_end_is_dropped() -> None:
    stream, _transport, plain = writing(100)
    stream.emit(b"abc")
    stream._transport = None
    stream.flush()
    assert plain.sent == []


# ---- the loop


def test_the_end_of_a_turn_comes_after_its_callbacks() -> None:
    loop = LeanLoop()
    told: list[str] = []

    def first() -> None:
        told.append("first")
        loop.at_end(lambda: told.append("end"))
        loop.call_soon(second)

    def second() -> None:
        told.append("second")
        loop.at_end(lambda: told.append("end"))
        loop.call_later(0, loop.stop)

    try:
        loop.at_end(lambda: told.append("before"))  # nothing else makes it turn
        loop.call_soon(first)
        loop.start()
    finally:
        loop.close()
    assert told == ["first", "before", "end", "second", "end"]


def test_what_waits_for_the_end_of_a_turn_makes_it_come() -> None:
    loop = LeanLoop()
    loop.at_end(loop.stop)
    try:
        loop.start()
    finally:
        loop.close()


# ---- pika


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Connection, ["_create_channel", "_process_frame", "_on_data_available", "_output_marshaled_frames"]),
        (BaseConnection, ["_adapter_emit_data", "_proto_connection_made", "_proto_data_received"]),
        (Channel, ["_raise_if_not_open", "_on_deliver", "basic_publish", "basic_ack", "confirm_delivery"]),
        (IOLoop, ["_get_remaining_interval", "process_timeouts", "call_later", "add_callback_threadsafe"]),
        (
            io_services_utils._AsyncPlaintextTransport,
            ["_initiate_abort", "_on_socket_readable", "get_write_buffer_size", "write", "_STATE_ACTIVE"],
        ),
    ],
)
def test_pika_has_what_is_leant_on(owner: type, names: list[str]) -> None:
    assert [name for name in names if not hasattr(owner, name)] == []


def test_pika_keeps_what_is_leant_on() -> None:
    assert issubclass(SelectConnection, BaseConnection)
    assert issubclass(AsyncioConnection, BaseConnection)
    connection: Any = SimpleNamespace(callbacks=CALLBACKS)
    channel = Channel(connection, 1, lambda _channel: None)
    assert isinstance(channel.__dict__["_consumers"], dict)
    assert isinstance(channel.__dict__["_cancelled"], set)
    here, there = socket.socketpair()
    with here, there:
        nothing: Any = SimpleNamespace(set_reader=lambda *_args: None)
        transport: Any = io_services_utils._AsyncPlaintextTransport(here, nothing, nothing)
        assert transport._sock is here
        assert transport._nbio is nothing
        assert transport._state == transport._STATE_ACTIVE
    assert set(vars(copy.copy(Properties()))) == set(frames._UNSET)

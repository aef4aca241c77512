"""pika's connection, with a short way for what every step pays for.

Messages, acks and confirms go between bytes and callbacks without an object and a look into pika's registry for each
frame. What is sent in one turn of the loop leaves in one write, straight to the socket: by default pika asks the loop
when the socket can be written to, and then hands each frame to the system by itself. Everything else (handshake,
channels, declarations, heartbeats, endings, TLS) is pika's own, and so is what the users of a channel see.

This leans on names that pika does not promise; `tests/unit/amqp/test_lean.py` says which.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pika
from pika import frame
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel
from pika.spec import Basic

from fuseline.amqp import frames
from fuseline.amqp.codec import Properties

log = logging.getLogger(__name__)

READ_BYTES: Final = 64 * 1024
READS_AT_ONCE: Final = 8
WRITE_BYTES: Final = 128 * 1024
"""What waits for the end of the turn at most, roughly, and what the transport gets at once."""
MAX_ROUTES: Final = 512
_OTHER_PROTOCOL: Final = ord("A")  # of "AMQP": a server that speaks another version says which one


class LeanChannel(Channel):
    """A channel of one of the connections below."""

    _raise_if_not_open: Callable[[], None]
    _consumers: dict[str, Callable[..., None]]
    _cancelled: set[str]
    _on_deliver: Callable[[Any, Any, bytes], None]

    def __init__(
        self, connection: Any, channel_number: int, on_open_callback: Callable[[Channel], Any]
    ) -> None:
        super().__init__(connection, channel_number, on_open_callback)
        self._routes: dict[tuple[str, str, bool], bytes] = {}
        self._on_confirm: Callable[[Any], None] | None = None
        self._deliver: Basic.Deliver | None = None  # a message that has not come in whole
        self._properties: Properties | None = None
        self._awaited = 0
        self._pieces: list[bytes] = []

    def basic_publish(  # type: ignore[override]
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties | None = None,
        mandatory: bool = False,
    ) -> None:
        """Send a message. Raises as pika's own, with nothing sent."""
        self._raise_if_not_open()
        route = (exchange, routing_key, mandatory)
        method = self._routes.get(route)
        if method is None:
            if len(self._routes) >= MAX_ROUTES:  # reply addresses, for the most part
                self._routes.clear()
            method = frames.publish_frame(self.channel_number, exchange, routing_key, mandatory)
            self._routes[route] = method
        connection: Any = self.connection
        connection.emit(
            frames.message(
                method,
                self.channel_number,
                properties or pika.BasicProperties(),
                body,
                connection._body_max_length,
            )
        )

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge."""
        self._raise_if_not_open()
        connection: Any = self.connection
        connection.emit(frames.ack_frame(self.channel_number, delivery_tag, multiple))

    def confirm_delivery(  # type: ignore[override]
        self, ack_nack_callback: Callable[[Any], None], callback: Callable[[Any], None] | None = None
    ) -> None:
        """Ask for confirms."""
        super().confirm_delivery(ack_nack_callback, callback)
        self._on_confirm = ack_nack_callback

    def take_whole(self, encoded: bytes, start: int, end: int) -> int:
        """Deal with a message, if its method is at `encoded[start:end]` and all of it has come in. Where it ends, else 0.

        Nearly every message comes so: to look at its frames one after the other takes twice as long.
        """
        if frames.INDEX.unpack_from(encoded, start)[0] != frames.DELIVER or self._deliver is not None:
            return 0
        size, number = len(encoded), self.channel_number
        unpack = frames.FRAME.unpack_from
        here = end + 8  # the header's payload
        if here >= size:
            return 0
        kind, channel, length = unpack(encoded, end + 1)
        behind: int = here + length
        if kind != frames.HEADER or channel != number or behind >= size or encoded[behind] != frames.END:
            return 0
        awaited: int = frames.SIZE.unpack_from(encoded, here + 4)[0]
        body, after = b"", behind
        if awaited:
            first = behind + 8
            after = first + awaited
            if after >= size or encoded[after] != frames.END:
                return 0
            if unpack(encoded, behind + 1) != (frames.BODY, number, awaited):
                return 0
            body = encoded[first:after]
        method = frames.read_deliver(encoded, start + 4, end)
        properties = frames.read_properties(encoded, here + 12, behind)
        connection: Any = self.connection
        connection.frames_received += 3 if awaited else 2
        self._hand_on(method, properties, body)
        return after + 1

    def take(self, kind: int, encoded: bytes, start: int, end: int) -> bool:
        """Deal with a frame, if it is one of those that are frequent; its payload is `encoded[start:end]`."""
        if kind == frames.METHOD:
            (index,) = frames.INDEX.unpack_from(encoded, start)
            if index == frames.DELIVER:
                self._deliver = frames.read_deliver(encoded, start + 4, end)
                return True
            if index == frames.ACK and self._on_confirm is not None:
                tag, multiple = frames.TAG.unpack_from(encoded, start + 4)
                self._on_confirm(frame.Method(self.channel_number, Basic.Ack(tag, bool(multiple & 1))))
                return True
            return False
        if self._deliver is None:
            return False
        if kind == frames.HEADER:
            (self._awaited,) = frames.SIZE.unpack_from(encoded, start + 4)
            self._properties = frames.read_properties(encoded, start + 12, end)
            if not self._awaited:
                self._delivered(b"")
            return True
        if kind == frames.BODY:
            piece = encoded[start:end]
            self._awaited -= len(piece)
            if self._awaited > 0:
                self._pieces.append(piece)
            elif self._pieces:
                self._pieces.append(piece)
                self._delivered(b"".join(self._pieces))
            else:
                self._delivered(piece)
            return True
        return False

    def _delivered(self, body: bytes) -> None:
        method, properties = self._deliver, self._properties
        assert method is not None
        assert properties is not None
        self._deliver = self._properties = None
        self._pieces = []
        self._hand_on(method, properties, body)

    def _hand_on(self, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
        consumer = self._consumers.get(str(method.consumer_tag))
        if consumer is None or method.consumer_tag in self._cancelled:
            header = frame.Header(self.channel_number, len(body), properties)
            self._on_deliver(frame.Method(self.channel_number, method), header, body)
        else:
            consumer(self, method, properties, body)


class _Lean:
    """What both kinds of connection have in common. `flush_soon(callback)` calls it at the end of the loop's turn."""

    _transport: Any
    _channels: dict[int, Any]
    _process_frame: Callable[[Any], None]
    flush_soon: Callable[[Callable[[], None]], Any]
    bytes_received: int
    bytes_sent: int
    frames_received: int
    frames_sent: int

    _out: list[bytes]
    _out_bytes = 0
    _rest = b""
    _socket: Any = None

    def emit(self, encoded: bytes) -> None:
        """Send the frames of one message, or one other."""
        self.bytes_sent += len(encoded)
        self.frames_sent += 1
        self._adapter_emit_data(encoded)

    def flush(self) -> None:
        """Send what was gathered in this turn."""
        out, self._out, self._out_bytes = self._out, [], 0
        transport = self._transport
        if not out or transport is None:
            return
        encoded = out[0] if len(out) == 1 else b"".join(out)
        sent = 0
        if self._socket is not None and not transport.get_write_buffer_size() and _is_active(transport):
            try:
                sent = self._socket.send(encoded)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                transport._initiate_abort(error)
                return
        # In pieces: each time that the system takes a part of one, what is left of it is copied.
        for start in range(sent, len(encoded), WRITE_BYTES):
            transport.write(encoded[start : start + WRITE_BYTES])

    # ---- what pika calls

    def _create_channel(self, channel_number: int, on_open_callback: Callable[[Channel], Any]) -> Channel:
        return LeanChannel(self, channel_number, on_open_callback)

    def _adapter_emit_data(self, encoded: bytes) -> None:
        if not self._out:
            self.flush_soon(self.flush)
        self._out.append(encoded)
        self._out_bytes += len(encoded)
        if self._out_bytes >= WRITE_BYTES:
            self.flush()

    def _proto_connection_made(self, transport: Any) -> None:
        self._out = []
        if type(transport) is _AsyncPlaintextTransport:
            plain: Any = transport
            self._socket = plain._sock
            plain._nbio.set_reader(self._socket.fileno(), self._readable)
        super()._proto_connection_made(transport)  # type: ignore[misc]

    def _readable(self) -> None:
        # As long as reads come back full there is more, of which a coordinator can record all at once.
        for _ in range(READS_AT_ONCE):
            if self._read() < READ_BYTES:
                break

    def _read(self) -> int:
        """Take what there is, up to `READ_BYTES`; returns how much it was."""
        transport = self._transport
        if transport is None or not _is_active(transport):
            return 0
        try:
            encoded = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            transport._initiate_abort(error)
            return 0
        if not encoded:
            transport._on_socket_readable()  # which finds the same end, and knows what follows from it
            return 0
        try:
            self._on_data_available(encoded)
        except Exception as error:  # as pika has it: what cannot be read ends the connection
            log.exception("what RabbitMQ sent cannot be dealt with")
            transport._initiate_abort(error)
        return len(encoded)

    def _on_data_available(self, data_in: bytes) -> None:
        self.bytes_received += len(data_in)
        encoded = self._rest + data_in if self._rest else data_in
        size, here = len(encoded), 0
        channels = self._channels
        unpack = frames.FRAME.unpack_from
        while size - here >= 8:
            kind, number, length = unpack(encoded, here)
            start = here + 7
            end = start + length
            if kind != _OTHER_PROTOCOL:
                if end >= size:
                    break
                channel = channels.get(number)
                if channel is not None and encoded[end] == frames.END:
                    if kind == frames.METHOD and (behind := channel.take_whole(encoded, start, end)):
                        here = behind
                        continue
                    if channel.take(kind, encoded, start, end):
                        self.frames_received += 1
                        here = end + 1
                        continue
            consumed, value = frame.decode_frame(encoded[here : end + 1])
            if value is None:
                break
            here += consumed
            self._process_frame(value)
        self._rest = encoded[here:]


def _is_active(transport: Any) -> bool:
    return bool(transport._state == transport._STATE_ACTIVE)


class LeanSelectConnection(_Lean, SelectConnection):
    """On `LeanLoop`, whose `services` pika asks for sockets and timers."""

    def __init__(self, loop: LeanLoop, services: Any, *args: Any) -> None:
        self.flush_soon = loop.at_end
        super().__init__(*args, custom_ioloop=services)  # type: ignore[misc]


class LeanAsyncioConnection(_Lean, AsyncioConnection):
    """On a running asyncio loop."""

    def __init__(self, loop: Any, services: Any, *args: Any) -> None:
        self.flush_soon = loop.call_soon
        super().__init__(*args, custom_ioloop=services)  # type: ignore[misc]


class LeanLoop(IOLoop):
    """pika's loop, where a callback of the loop's own thread costs no wake-up, and a turn has an end."""

    _callbacks: deque[Callable[[], None]]

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        super().__init__()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it after what is read now, or in the next turn; for the loop's thread."""
        self._callbacks.append(callback)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call it at the end of this turn; for the loop's thread."""
        self._ends.append(callback)

    def _get_remaining_interval(self) -> float | None:
        return 0 if self._ends else super()._get_remaining_interval()  # type: ignore[misc]

    def process_timeouts(self) -> None:
        """What the poller calls between two looks at the sockets."""
        super().process_timeouts()
        while self._ends:
            ends, self._ends = self._ends, []
            for end in ends:
                end()

"""One connection through the proxy: two sockets, and a flow of bytes each way."""

from __future__ import annotations

import math
import random
import selectors
import socket
import struct
from collections import deque
from typing import Any, NamedTuple

from fuseline.testing.proxy.conditions import DIRECTIONS, Conditions, Direction

# What the proxy holds in memory for each direction; beyond it, it leaves the rest to the kernel, whose buffer is kept
# small too, so that a frozen or slow way is felt at its other end soon.
_KEPT_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024
KERNEL_BYTES = 64 * 1024
_ABORT = struct.pack("ii", 1, 0)


class Broken(Exception):
    """The socket is of no use any more."""


class _Piece(NamedTuple):
    """Bytes as they arrived; none of them means the end of what one side sends."""

    data: memoryview
    arrived: float
    luck: float


class Target(NamedTuple):
    """Where the server is, as `socket.getaddrinfo` says it."""

    family: socket.AddressFamily
    address: Any


class Flow:
    """What is read from `source` and written to `sink`, which are not blocking."""

    def __init__(
        self, direction: Direction, source: socket.socket, sink: socket.socket, conditions: Conditions
    ) -> None:
        self.direction = direction
        self.source = source
        self.sink = sink
        self.passed_bytes = 0
        self.has_ended = False
        self.sink_is_full = False
        self.is_lost = (
            False  # the sink is gone and its peer cannot be told, so that whatever comes is dropped
        )
        self._conditions = conditions
        self._pieces: deque[_Piece] = deque()
        self._kept = 0
        self._is_read_out = False
        self._sent_until = 0.0

    @property
    def wants_bytes(self) -> bool:
        """Whether there is room for more. A frozen way takes nothing up: what is sent fills the kernel's buffers."""
        return (
            not self._is_read_out
            and self._kept < _KEPT_BYTES
            and self.direction not in self._conditions.frozen
        )

    def read(self, now: float) -> None:
        """Take what has arrived. Raises `Broken`."""
        try:
            data = self.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise Broken from error
        self._is_read_out = not data
        if not self.is_lost:
            self._kept += len(data)
            self._pieces.append(_Piece(memoryview(data), now, random.random()))

    def wait_seconds(self, now: float) -> float:
        """When there may be something to write: 0 is at once, infinite is when something happens."""
        if not self._pieces or self.sink_is_full:
            return math.inf
        head = self._pieces[0]
        return self._conditions.wait_seconds(self.direction, head.arrived, head.luck, self._sent_until, now)

    def write(self, now: float) -> bool:
        """Send what may go by now; true when the connection is to be cut. Raises `Broken`."""
        while self.wait_seconds(now) <= 0:
            piece = self._pieces[0]
            if not piece.data:
                self._pieces.popleft()
                self._end()
                continue
            size = self._conditions.portion(self.direction, len(piece.data))
            try:
                sent = self.sink.send(piece.data[:size])
            except BlockingIOError:
                self.sink_is_full = True
                return False
            except OSError as error:
                raise Broken from error
            self._account(piece, sent, now)
            if self._conditions.sent(self.direction, sent):
                return True
        return False

    def lose(self) -> None:
        """Drop what is kept and whatever comes."""
        self.is_lost = True
        self._pieces.clear()
        self._kept = 0

    def _account(self, piece: _Piece, sent: int, now: float) -> None:
        self.passed_bytes += sent
        self._kept -= sent
        if sent == len(piece.data):
            self._pieces.popleft()
        else:
            self._pieces[0] = piece._replace(data=piece.data[sent:])
        rate = self._conditions.bytes_per_second[self.direction]
        if rate is not None:
            self._sent_until = max(now, self._sent_until) + sent / rate

    def _end(self) -> None:
        self.has_ended = True
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Broken from error


class Connection:
    """A client's connection and the one to the server that belongs to it, which is opened when nothing is frozen."""

    def __init__(
        self,
        client: socket.socket,
        target: Target,
        conditions: Conditions,
        selector: selectors.BaseSelector,
    ) -> None:
        self._address = target.address
        self._client = client
        self._server = socket.socket(target.family, socket.SOCK_STREAM)
        for one in (self._client, self._server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        self._conditions = conditions
        self._selector = selector
        self._state = "new"
        self.was_frozen = False
        self.to_server = Flow("to_server", self._client, self._server, conditions)
        self.to_client = Flow("to_client", self._server, self._client, conditions)

    @property
    def flows(self) -> dict[Direction, Flow]:
        """Both ways."""
        return dict(zip(DIRECTIONS, (self.to_server, self.to_client), strict=True))

    @property
    def is_over(self) -> bool:
        """Whether both sides have said all they had to say."""
        return self.to_server.has_ended and self.to_client.has_ended

    @property
    def has_lost(self) -> bool:
        """Whether bytes were dropped, so that it cannot go on."""
        return self.to_server.is_lost or self.to_client.is_lost

    def happened(self, ready: socket.socket, events: int, now: float) -> None:
        """One of its sockets can be read or written. Raises `Broken`."""
        if self._state == "connecting" and ready is self._server:
            failure = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise Broken(failure)
            self._state = "open"
            return
        incoming, outgoing = (
            (self.to_server, self.to_client) if ready is self._client else (self.to_client, self.to_server)
        )
        if events & selectors.EVENT_WRITE:
            outgoing.sink_is_full = False
        if events & selectors.EVENT_READ and incoming.wants_bytes:
            self._read(incoming, now)

    def advance(self, now: float) -> Direction | None:
        """Do what may be done by now; the direction in which it is to be cut now, or None. Raises `Broken`."""
        if self._conditions.frozen:
            self.was_frozen = True
        elif self._state == "new":
            self._connect()
        if self._state == "open":
            for direction, flow in self.flows.items():
                if self._write(flow, now):
                    return direction
        return None

    def wait_seconds(self, now: float) -> float:
        """When `advance` is to be called again at the latest."""
        if self._state != "open":
            return math.inf
        return min(self.to_server.wait_seconds(now), self.to_client.wait_seconds(now))

    def listen(self) -> None:
        """Tell the selector what to wait for."""
        is_open = self._state == "open"
        reads_server = is_open and self.to_client.wants_bytes
        writes_server = self._state == "connecting" or (is_open and self.to_server.sink_is_full)
        self._register(self._client, is_open and self.to_server.wants_bytes, self.to_client.sink_is_full)
        self._register(self._server, reads_server, writes_server)

    def close(self, *, rst: bool) -> None:
        """Close both sockets; `rst` resets them, so that what is still under way is lost."""
        for one in (self._client, self._server):
            self._register(one, False, False)
            if rst:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            one.close()

    def close_after(self, direction: Direction) -> None:
        """Reset the side that was cut off in its word; the other one gets what had passed, and then the end."""
        for one in (self._client, self._server):
            self._register(one, False, False)
        flow = self.flows[direction]
        flow.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        flow.source.close()
        flow.sink.close()

    def _connect(self) -> None:
        self._state = "connecting"
        try:
            self._server.connect(self._address)
        except BlockingIOError:
            return
        except OSError as error:
            raise Broken from error
        self._state = "open"

    def _read(self, flow: Flow, now: float) -> None:
        try:
            flow.read(now)
        except Broken:
            self._broken(flow.source)

    def _write(self, flow: Flow, now: float) -> bool:
        try:
            return flow.write(now)
        except Broken:
            self._broken(flow.sink)
            return False

    def _broken(self, one: socket.socket) -> None:
        """A peer is gone. The other one is told, unless the way to it is frozen: then it talks to nobody, until thaw."""
        towards = self.to_server if one is self._client else self.to_client
        back = self.to_client if one is self._client else self.to_server
        if towards.direction not in self._conditions.frozen:
            raise Broken
        towards.lose()
        back.lose()

    def _register(self, one: socket.socket, reads: bool, writes: bool) -> None:
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
        known = self._selector.get_map().get(one)
        if known is None and events:
            self._selector.register(one, events, self)
        elif known is not None and not events:
            self._selector.unregister(one)
        elif known is not None and known.events != events:
            self._selector.modify(one, events, self)

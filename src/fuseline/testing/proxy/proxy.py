"""`TcpProxy`: the listening socket, the thread, and what tests call."""

from __future__ import annotations

import contextlib
import math
import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fuseline.testing.proxy.conditions import DIRECTIONS, Conditions, Direction, Where, directions
from fuseline.testing.proxy.connection import KERNEL_BYTES, Broken, Connection, Target
from fuseline.testing.servers.base import LOOPBACK, free_ports

Result = TypeVar("Result")

_BACKLOG: Final = 128
# The thread answers at once; it is a machine that may stand still for so long.
_CALL_SECONDS: Final = 60.0
_NEXT_ADDRESS: Final = re.compile(r",\s*[a-z0-9+]+://")
_ADDRESS_OPTIONS: Final = ("host", "hostaddr", "port")


class TcpProxy:
    """Stands between clients and the server at `target_host`:`target_port`, on a port of 127.0.0.1 of its own.

    `start` and `close`, or a `with` block. All else may be called from any thread while it runs, takes effect before it
    returns, and raises `RuntimeError` when the proxy does not run. Bytes pass unchanged and in order, as far as they
    pass. The proxy holds at most 64 KiB for each direction of a connection and has the kernel keep little more.

    A connection whose server cannot be reached is reset, as one is that the other side resets.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self._conditions = Conditions()
        self._connections: set[Connection] = set()
        self._selector: selectors.BaseSelector | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._address: Target | None = None
        self._is_ending = False
        self._listener: socket.socket | None = None
        self._keeper: socket.socket | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._connections_total = 0
        self._past_bytes: dict[Direction, int] = dict.fromkeys(DIRECTIONS, 0)

    # -- where

    @property
    def host(self) -> str:
        """127.0.0.1."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """The proxy's port; known from the first `start` on and then constant."""
        if not self._port:
            raise RuntimeError("the proxy was not started yet, so it has no port")
        return self._port

    def url(self, url: str) -> str:
        """The same address (`amqp://`, `postgresql://`, `http://`), through the proxy. One address, no list of them.

        Raises `ValueError` when it is not a URL with a host.
        """
        parts = urlsplit(url)
        several = "," in parts.netloc.rpartition("@")[2] or _NEXT_ADDRESS.search(url)
        if not parts.scheme or parts.hostname is None or several:
            raise ValueError("one URL with a host is needed, such as amqp://user:password@host:5672/vhost")
        user, at, _ = parts.netloc.rpartition("@")
        options = parse_qsl(parts.query, keep_blank_values=True)
        kept = [option for option in options if option[0] not in _ADDRESS_OPTIONS]
        query = parts.query if kept == options else urlencode(kept)
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}", query=query))

    # -- life

    def start(self) -> Self:
        """Listen, with everything normal; nothing happens if it runs. Raises `OSError` for an unknown target host."""
        if self._thread is not None:
            return self
        self._port = self._port or free_ports(1)[0]
        self._conditions = Conditions()
        self._is_ending = False
        family, _, _, _, address = socket.getaddrinfo(*self.target, type=socket.SOCK_STREAM)[0]
        self._address = Target(family, address)
        self._selector = selectors.DefaultSelector()
        self._waker = socket.socketpair()
        for one in self._waker:
            one.setblocking(False)
        self._selector.register(self._waker[0], selectors.EVENT_READ)
        # Bound and never listening: it keeps the port from others while connections are refused.
        self._keeper = self._bound()
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"fuseline proxy {self._port}", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Cut all connections, stop listening and end the thread; nothing happens if it does not run."""
        thread = self._thread
        if thread is None:
            return
        with contextlib.suppress(RuntimeError):
            self._call(self._end)
        thread.join(_CALL_SECONDS)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- faults

    def cut(self, rst: bool = True) -> int:
        """Drop all connections now, and say how many. `rst`: as a crash does (reset); else as a server that ends (FIN)."""
        return self._call(lambda: self._cut(list(self._connections), rst=rst))

    def refuse(self) -> None:
        """Refuse new connections. Those that are there go on."""
        self._call(self._refuse)

    def accept(self) -> None:
        """Take new connections again."""
        self._call(self._listen)

    def freeze(self, direction: Where = "both", *, lose: bool = False) -> None:
        """Let nothing through while all sockets stay open, as a dead network does (half-open connections).

        What is sent waits in the kernel's buffers until `thaw`, and once these are full the sender waits. That one side
        has closed is not told to the other. New connections are taken, and reach the server when they are thawed.
        `lose`: connections that met the frost are cut at `thaw`; else they deliver what waited.
        """
        frozen = directions(direction)

        def act() -> None:
            self._conditions.frozen |= set(frozen)
            self._conditions.loses |= lose
            for connection in self._connections:
                connection.was_frozen = True

        self._call(act)

    def thaw(self) -> None:
        """End `freeze`, in both directions."""
        self._call(self._thaw)

    def latency(self, seconds: float, jitter_seconds: float = 0.0) -> None:
        """Deliver everything so much later, each way, and by up to `jitter_seconds` more by chance; never out of order."""
        if seconds < 0 or jitter_seconds < 0:
            raise ValueError("a latency cannot be negative")

        def act() -> None:
            self._conditions.latency_seconds = seconds
            self._conditions.jitter_seconds = jitter_seconds

        self._call(act)

    def throttle(self, bytes_per_second: float | None, direction: Where = "both") -> None:
        """Let each connection have no more than so much, each way; None for no bound. Whoever sends more has to wait."""
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError("bytes_per_second has to be above 0 (freeze lets nothing through)")
        throttled = directions(direction)

        def act() -> None:
            for one in throttled:
                self._conditions.bytes_per_second[one] = bytes_per_second

        self._call(act)

    def cut_after(self, n_bytes: int, direction: Direction = "to_server") -> None:
        """Let `n_bytes` more through in that direction, over all connections; cut the one that carried the last.

        Once: what comes after it passes. The receiver gets those bytes and then the end, the sender is reset.
        """
        if n_bytes < 1 or direction not in DIRECTIONS:
            raise ValueError("cut_after needs n_bytes of 1 or more, and to_server or to_client")

        def act() -> None:
            self._conditions.cut_after[direction] = n_bytes

        self._call(act)

    def heal(self) -> None:
        """Everything normal: accept, thaw, no latency, no bound, no cut to come."""

        def act() -> None:
            # First what is slow, so that what waited goes at once.
            self._conditions.latency_seconds = self._conditions.jitter_seconds = 0.0
            for one in DIRECTIONS:
                self._conditions.bytes_per_second[one] = None
                self._conditions.cut_after[one] = None
            self._thaw()
            self._listen()

        self._call(act)

    # -- counters

    @property
    def connections_open(self) -> int:
        """Clients that are connected now."""
        return self._call(lambda: len(self._connections)) if self._thread is not None else 0

    @property
    def connections_total(self) -> int:
        """Clients that were ever connected."""
        return self._connections_total

    @property
    def bytes_to_server(self) -> int:
        """Bytes that were handed on to the server."""
        return self._passed("to_server")

    @property
    def bytes_to_client(self) -> int:
        """Bytes that were handed on to clients."""
        return self._passed("to_client")

    def _passed(self, direction: Direction) -> int:
        def count() -> int:
            passing = sum(connection.flows[direction].passed_bytes for connection in self._connections)
            return self._past_bytes[direction] + passing

        return count() if self._thread is None else self._call(count)

    # -- calls from other threads

    def _call(self, action: Callable[[], Result]) -> Result:
        future: Future[Result] = Future()
        with self._lock:
            if self._waker is None:
                raise RuntimeError("the proxy does not run")
            self._calls.append((action, future))
            with contextlib.suppress(BlockingIOError):  # it is awake already
                self._waker[1].send(b"\0")
        return future.result(_CALL_SECONDS)

    # -- the proxy's thread

    def _run(self) -> None:
        selector, waker = self._selector, self._waker
        assert selector is not None
        assert waker is not None
        try:
            while not self._is_ending:
                self._turn(selector, waker[0])
        finally:
            self._clear(selector, waker)

    def _turn(self, selector: selectors.BaseSelector, wakeful: socket.socket) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.listen()
        wait = min((connection.wait_seconds(now) for connection in self._connections), default=math.inf)
        events = selector.select(None if wait == math.inf else wait)
        now = time.monotonic()
        for key, mask in events:
            if key.fileobj is wakeful:
                with contextlib.suppress(BlockingIOError):
                    wakeful.recv(4096)
            elif key.data is None:
                self._accept()
            elif key.data in self._connections:
                self._tend(key.data, partial(key.data.happened, key.fileobj, mask, now))
        while self._calls:
            action, future = self._calls.popleft()
            try:
                future.set_result(action())
            except OSError as error:  # the port cannot be had again, say: that is for who called
                future.set_exception(error)
        for connection in list(self._connections):
            self._tend(connection, partial(self._advance, connection, now))

    def _tend(self, connection: Connection, action: Callable[[], None]) -> None:
        try:
            action()
        except Broken:
            self._forget(connection)
            connection.close(rst=True)

    def _advance(self, connection: Connection, now: float) -> None:
        direction = connection.advance(now)
        if direction is not None:
            self._forget(connection)
            connection.close_after(direction)
        elif connection.is_over:
            self._forget(connection)
            connection.close(rst=False)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        assert self._selector is not None
        assert self._address is not None
        self._connections.add(Connection(client, self._address, self._conditions, self._selector))
        self._connections_total += 1

    def _cut(self, connections: list[Connection], *, rst: bool) -> int:
        for connection in connections:
            self._forget(connection)
            connection.close(rst=rst)
        return len(connections)

    def _thaw(self) -> None:
        loses = self._conditions.loses
        self._conditions.frozen.clear()
        self._conditions.loses = False
        gone = [one for one in self._connections if one.has_lost or (loses and one.was_frozen)]
        self._cut(gone, rst=True)
        for connection in self._connections:
            connection.was_frozen = False

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        for direction, flow in connection.flows.items():
            self._past_bytes[direction] += flow.passed_bytes

    def _bound(self) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((LOOPBACK, self._port))
        except OSError:
            one.close()
            raise
        return one

    def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = self._bound()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)  # handed on to what it accepts
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        assert self._selector is not None
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def _refuse(self) -> None:
        if self._listener is not None:
            assert self._selector is not None
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _end(self) -> None:
        self._is_ending = True

    def _clear(self, selector: selectors.BaseSelector, waker: tuple[socket.socket, socket.socket]) -> None:
        """Give everything back, and answer who still asks."""
        self._cut(list(self._connections), rst=True)
        self._refuse()
        if self._keeper is not None:
            self._keeper.close()
        with self._lock:
            self._waker = None
            waiting = list(self._calls)
            self._calls.clear()
        for _, future in waiting:
            future.set_exception(RuntimeError("the proxy was closed"))
        selector.close()
        for one in waker:
            one.close()

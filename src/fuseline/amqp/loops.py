"""The two loops that a link can run on, behind one small interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from pika.adapters.base_connection import BaseConnection
from pika.adapters.select_connection import IOLoop
from pika.connection import Parameters
from pika.exceptions import StreamLostError

from fuseline.amqp.lean import LeanAsyncioConnection, LeanLoop, LeanSelectConnection
from fuseline.amqp.opening import AsyncioServices, SelectServices
from fuseline.amqp.tolerant import read_tolerantly

read_tolerantly()

PikaConnection: TypeAlias = "BaseConnection[Any]"
OnConnection: TypeAlias = Callable[[PikaConnection], None]
OnConnectionError: TypeAlias = Callable[[PikaConnection, BaseException], None]


class Timer(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None:
        """Forget it; nothing happens when it is over already."""


class LoopAdapter(Protocol):
    """What a link needs of a loop. All but `call_soon_threadsafe` is for the loop's thread."""

    def connect(
        self,
        parameters: Parameters,
        on_open: OnConnection,
        on_open_error: OnConnectionError,
        on_close: OnConnectionError,
    ) -> PikaConnection:
        """Begin to open a connection."""

    def abort(self, connection: PikaConnection) -> None:
        """Drop a connection of this loop without asking the server."""

    def flush(self, connection: PikaConnection) -> None:
        """Have what was written to a connection of this loop leave now, not at the end of the turn."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it in `seconds`."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in this turn of the loop or the next, after what is read now."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call it soon on the loop's thread; for any thread."""


def _flush(connection: Any) -> None:
    connection.flush()


def _abort(connection: Any) -> None:
    # pika's own heartbeat check ends a dead connection so; in public it can only close, which waits for an answer.
    connection._terminate_stream(StreamLostError("given up"))


class _SelectTimer:
    def __init__(self, loop: IOLoop, handle: Any) -> None:
        self._loop = loop
        self._handle = handle

    def cancel(self) -> None:
        self._loop.remove_timeout(self._handle)


class SelectLoop:
    """pika's own loop, for a thread of its own: `run()` until `stop()`, then `close()`."""

    def __init__(self) -> None:
        self._loop = LeanLoop()

    def connect(
        self,
        parameters: Parameters,
        on_open: OnConnection,
        on_open_error: OnConnectionError,
        on_close: OnConnectionError,
    ) -> PikaConnection:
        """Begin to open a connection."""
        services = SelectServices(self._loop)
        return LeanSelectConnection(self._loop, services, parameters, on_open, on_open_error, on_close)

    def abort(self, connection: PikaConnection) -> None:
        """Drop a connection of this loop without asking the server."""
        _abort(connection)

    def flush(self, connection: PikaConnection) -> None:
        """Have what was written to a connection of this loop leave now, not at the end of the turn."""
        _flush(connection)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it in `seconds`."""
        return _SelectTimer(self._loop, self._loop.call_later(max(0.0, seconds), callback))

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in this turn of the loop or the next, after what is read now."""
        self._loop.call_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call it soon on the loop's thread; for any thread."""
        self._loop.add_callback_threadsafe(callback)

    def run(self) -> None:
        """Run until `stop` is called; what a callback raises comes out here."""
        self._loop.start()

    def stop(self) -> None:
        """Make `run` return; for the loop's thread."""
        self._loop.stop()

    def close(self) -> None:
        """Give back the loop's file descriptors, after `run` has returned."""
        self._loop.close()


class AsyncioLoop:
    """A running asyncio loop (uvloop or the standard one)."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def connect(
        self,
        parameters: Parameters,
        on_open: OnConnection,
        on_open_error: OnConnectionError,
        on_close: OnConnectionError,
    ) -> PikaConnection:
        """Begin to open a connection."""
        services = AsyncioServices(self._loop)
        return LeanAsyncioConnection(self._loop, services, parameters, on_open, on_open_error, on_close)

    def abort(self, connection: PikaConnection) -> None:
        """Drop a connection of this loop without asking the server."""
        _abort(connection)

    def flush(self, connection: PikaConnection) -> None:
        """Have what was written to a connection of this loop leave now, not at the end of the turn."""
        _flush(connection)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it in `seconds`."""
        return self._loop.call_later(seconds, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in this turn of the loop or the next, after what is read now."""
        self._loop.call_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call it soon on the loop's thread; for any thread."""
        self._loop.call_soon_threadsafe(callback)

"""The HTTP service as a process: uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from fuseline.broker.base import Broker
from fuseline.broker.memory import MemoryBroker
from fuseline.notify import Notifier
from fuseline.web.app import create_app
from fuseline.web.listening import address_of, listen

GRACE_SECONDS = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Says once that it listens, and to the service manager that it stops."""

    def __init__(self, config: uvicorn.Config, address: str, notifier: Notifier) -> None:
        super().__init__(config)
        self._address = address
        self._notifier = notifier

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that an orderly end is none by a signal: the exit code is 0 and the broker gets closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(f"fuseline serves {self._address}\n")
            sys.stdout.flush()
            self._notifier.ready(f"serves {self._address}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.stopping()
        await super().shutdown(sockets)


def serve(
    broker: Broker,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    max_body_bytes: int = 32 * 1024 * 1024,
    grace_seconds: int = GRACE_SECONDS,
    log_level: str = "info",
) -> None:
    """Serve until SIGTERM or SIGINT; requests then have `grace_seconds` to end. The caller closes the broker.

    Prints `fuseline serves http://host:port` once it listens; with port 0 that is the one that was found free. Raises
    `FatalError` when the address cannot be listened on.
    """
    listening = listen(host, port)
    try:
        if isinstance(broker, MemoryBroker):
            broker.start()  # its timers run from now on, not from the first request on
        config = uvicorn.Config(
            create_app(broker, max_body_bytes=max_body_bytes),
            log_level=log_level,
            timeout_graceful_shutdown=grace_seconds,
            server_header=False,
        )
        _Server(config, address_of(listening), Notifier()).run(sockets=[listening])
    finally:
        listening.close()

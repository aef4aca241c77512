"""The HTTP service on a thread of this process: for tests, and for programs that serve besides what else they do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from fuseline.broker.base import Broker
from fuseline.errors import FatalError
from fuseline.web.app import create_app
from fuseline.web.listening import address_of, listen

START_SECONDS = 30.0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]  # handed through as it is
        self.listens.set()


@contextmanager
def serving(
    broker: Broker, host: str = "127.0.0.1", port: int = 0, *, max_body_bytes: int = 32 * 1024 * 1024
) -> Iterator[str]:
    """Serve `broker` while the context is open; gives the address. Port 0: any that is free.

    Raises `FatalError` when the address cannot be listened on.
    """
    with serving_app(create_app(broker, max_body_bytes=max_body_bytes), host, port) as url:
        yield url


@contextmanager
def serving_app(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """As `serving`, with an application of your own."""
    listening = listen(host, port)
    server = _Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, server_header=False))
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="fuseline http", daemon=True
    )
    thread.start()
    try:
        if not server.listens.wait(START_SECONDS):
            raise FatalError(f"the HTTP service did not start within {START_SECONDS:g} s")
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()

"""P1: a peer that is gone as soon as it was reached is an attempt that failed, and no end of the loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.nbio_interface import AbstractIOReference

from fuseline.amqp.opening import AsyncioServices, SelectServices


@pytest.fixture
def gone() -> Iterator[socket.socket]:
    """A socket that was connected, and whose peer has reset it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        peer, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        yield one


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    loop = IOLoop()
    yield loop
    loop.close()


def _begin(services: Any, sock: socket.socket, on_done: Callable[[Any], None]) -> AbstractIOReference:
    under_way: AbstractIOReference = services.create_streaming_connection(
        protocol_factory=lambda: pytest.fail("it is not connected"), sock=sock, on_done=on_done
    )
    return under_way


def test_a_lost_peer_is_told_on_pikas_loop(gone: socket.socket, loop: IOLoop) -> None:
    told: list[object] = []

    def done(what: object) -> None:
        told.append(what)
        loop.stop()

    under_way = _begin(SelectServices(loop), gone, done)
    assert told == []
    loop.start()
    assert [type(one) for one in told] == [OSError]
    assert under_way.cancel() is False


def test_a_lost_peer_is_told_on_a_loop_of_asyncio(gone: socket.socket) -> None:
    async def lose() -> object:
        told = asyncio.get_running_loop().create_future()
        _begin(AsyncioServices(asyncio.get_running_loop()), gone, told.set_result)
        return await told

    assert isinstance(asyncio.run(lose()), OSError)


def test_who_gave_up_is_not_told(gone: socket.socket, loop: IOLoop) -> None:
    """Pika's own deadline may pass in the same turn of the loop: one attempt fails once."""
    told: list[object] = []
    under_way = _begin(SelectServices(loop), gone, told.append)
    assert under_way.cancel() is True
    loop.add_callback_threadsafe(loop.stop)
    loop.start()
    assert told == []


def test_what_is_asked_wrongly_is_said_at_once(gone: socket.socket, loop: IOLoop) -> None:
    with pytest.raises(ValueError, match="server_hostname"):
        SelectServices(loop).create_streaming_connection(
            protocol_factory=lambda: None, sock=gone, on_done=lambda _: None, server_hostname="a"
        )

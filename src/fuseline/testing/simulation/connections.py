"""Connections, both ends: what pika shows to a link, and what the server keeps of it.

Frames of one direction of one connection keep their order, as on TCP; everything else is free to happen in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from fuseline.amqp.standin import ConnectionClosedByClient, StreamLostError
from fuseline.testing.simulation.channels import SimChannel
from fuseline.testing.simulation.queues import SimQueue
from fuseline.testing.simulation.world import Process

if TYPE_CHECKING:
    from fuseline.testing.simulation.server import Server


class SimConnection:
    """The client's end of a connection, and with `server_*` the server's."""

    server_properties: ClassVar[dict[str, str]] = {"product": "RabbitMQ", "version": "3.10.8"}

    def __init__(
        self, server: Server, process: Process, on_open: Any, on_open_error: Any, on_close: Any
    ) -> None:
        self.server = server
        self.world = server.world
        self.process = process
        self.is_open = False
        self._on_open = on_open
        self._on_open_error = on_open_error
        self._on_close = on_close
        self._on_blocked: list[Any] = []
        self._on_unblocked: list[Any] = []
        self.is_cut = False  # no frame leaves any more
        self.client_gone = False
        self.server_gone = True
        self.server_ended = False
        self.is_held = False  # by an alarm
        self.channels: list[SimChannel] = []
        self._up_last = 0.0
        self._down_last = 0.0
        self._stalled: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    # ---- frames

    def send(self, callback: Callable[..., object], *args: Any) -> None:
        """A frame to the server."""
        self.process.effect()
        if self.is_cut:
            return
        world = self.world
        self._up_last = max(self._up_last, world.now + world.latency())
        world.at(self._up_last, self._at_server, callback, args)

    def _at_server(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.server_gone:
            return
        if self._stalled or self.server.stalls(self):
            self._stalled.append((callback, args))
        else:
            callback(*args)

    def flow(self) -> None:
        """The server reads on."""
        while self._stalled and not self.server_gone and not self.server.stalls(self):
            callback, args = self._stalled.pop(0)
            callback(*args)

    def tell(self, callback: Callable[..., object], *args: Any) -> None:
        """A frame to the client."""
        if self.is_cut:
            return
        world = self.world
        self._down_last = max(self._down_last, world.now + world.latency())
        world.at(self._down_last, self._at_client, callback, args, process=self.process)

    def _at_client(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self.client_gone:
            callback(*args)

    # ---- the client's side, as pika has it

    def opened(self) -> None:
        """The handshake is over."""
        self.is_open = True
        self._on_open(self)

    def refused(self, error: BaseException) -> None:
        """It could not be opened."""
        self.client_gone = True
        self._on_open_error(self, error)

    def channel(self, on_open_callback: Callable[[Any], None]) -> SimChannel:
        """Open a channel."""
        channel = SimChannel(self, on_open_callback)
        self.channels.append(channel)
        self.send(channel.server_open)
        return channel

    def add_on_connection_blocked_callback(self, callback: Any) -> None:
        """Called when the server blocks publishers."""
        self._on_blocked.append(callback)

    def add_on_connection_unblocked_callback(self, callback: Any) -> None:
        """Called when it takes messages again."""
        self._on_unblocked.append(callback)

    def blocked(self, is_blocked: bool) -> None:
        """The server says so."""
        for callback in self._on_blocked if is_blocked else self._on_unblocked:
            callback(self, None)

    def close(self) -> None:
        """Say goodbye."""
        if self.is_open:
            self.is_open = False
            self.send(self._goodbye)

    def _goodbye(self) -> None:
        self.tell(self._ended, ConnectionClosedByClient(200, "bye"))
        self.end_at_server()

    def abort(self) -> None:
        """Drop it."""
        self.cut(0.05, 0.0)

    def cut(self, server_after: float, client_after: float) -> None:
        """Nothing gets through any more; each side finds out when it does."""
        if self.is_cut:
            return
        self.is_cut = True
        self.world.later(server_after, self.end_at_server)
        self.world.later(client_after, self._ended, StreamLostError("connection lost"), process=self.process)

    def _ended(self, reason: BaseException) -> None:
        if self.client_gone:
            return
        self.is_open = False
        self.client_gone = True
        self.is_cut = True
        for channel in self.channels:
            channel.closed(reason)
        self._on_close(self, reason)

    # ---- the server's side

    def end_at_server(self) -> None:
        """The server forgets it."""
        if self.server_ended:
            return
        self.server_ended = True
        self.server_gone = True
        self._stalled.clear()
        queues: dict[SimQueue, None] = {}
        for channel in self.channels:
            channel.server_close(queues)
        self.server.forget(self)
        for queue in queues:
            queue.pump()

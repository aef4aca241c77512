"""Publishing channels beside a link's main one, so that a queue that does not answer holds up no other.

RabbitMQ carries out what a channel sends in order, and may wait for over a minute with the first message to a quorum queue
that has no leader. What waits behind it on that channel waits too, whatever its queue.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from fuseline.amqp.connection import Connection
from fuseline.amqp.loops import PikaConnection
from fuseline.amqp.publishing import Publisher
from fuseline.errors import FuselineError

MAX_CHANNELS: Final = 64
"""More routes than this share channels (a connection has 2,047 of them)."""


class Apart:
    """A publisher, and so a channel, for each route: exchange and key. They open at the first message."""

    def __init__(self, make: Callable[[], Publisher], connection: Connection) -> None:
        self._make = make
        self._connection = connection
        self._publishers: list[Publisher] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def of(self, exchange: str, key: str) -> Publisher:
        """The publisher of a route."""
        route = (exchange, key)
        number = self._numbers.get(route)
        if number is not None:
            return self._publishers[number]
        if len(self._publishers) >= MAX_CHANNELS:
            return self._publishers[zlib.crc32(f"{exchange} {key}".encode()) % MAX_CHANNELS]
        publisher = self._make()
        self._numbers[route] = len(self._publishers)
        self._publishers.append(publisher)
        connection = self._connection.pika
        if connection is not None:
            publisher.open(connection)
        return publisher

    @property
    def pending(self) -> int:
        """Messages without an answer."""
        return sum(publisher.pending for publisher in self._publishers)

    def open(self, connection: PikaConnection) -> None:
        """Open all on a new connection."""
        for publisher in self._publishers:
            publisher.open(connection)

    def pump(self) -> None:
        """Send what waits."""
        for publisher in self._publishers:
            publisher.pump()

    def when_idle(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` each time one of them has no message left (None: never)."""
        for publisher in self._publishers:
            publisher.when_idle(callback)

    def fail_all(self, error: FuselineError) -> None:
        """Give up every message."""
        for publisher in self._publishers:
            publisher.fail_all(error)

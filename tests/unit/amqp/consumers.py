"""A consumer on a connection and a loop that stand in for RabbitMQ's."""

from __future__ import annotations

from typing import Any

from fuseline.amqp.consuming import Consumer
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.turn import Turn
from fuseline.clock import ManualClock


def consumer_on(connection: Any, loop: Any, queue: str | PrivateQueue, prefetch: int) -> Consumer:
    """Whose messages nobody looks at."""
    return Consumer(
        queue,
        prefetch,
        lambda _delivery: None,
        None,
        None,
        connection=connection,
        loop=loop,
        turn=Turn(loop),
        clock=ManualClock(),
        limits=LinkLimits(),
    )

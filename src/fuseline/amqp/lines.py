"""All that takes messages over one connection: consumers, and a getter a queue."""

from __future__ import annotations

from collections.abc import Callable

from fuseline.amqp.connection import Connection
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.getting import Getter
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.loops import LoopAdapter
from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import FuselineError


class Lines:
    """Opened anew with each connection. The connection opens with the first of them."""

    def __init__(
        self, connection: Connection, loop: LoopAdapter, turn: Turn, clock: Clock, limits: LinkLimits
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._turn = turn
        self._clock = clock
        self._limits = limits
        self._consumers: list[Consumer] = []
        self._getters: dict[str, Getter] = {}

    def consume(
        self,
        queue: str | PrivateQueue,
        prefetch: int,
        on_message: Callable[[Delivery], None],
        on_batch_end: Callable[[], None] | None,
        on_lost: Callable[[FuselineError], None] | None,
    ) -> Consumer:
        """One more consumer, until it is cancelled."""
        consumer = Consumer(
            queue,
            prefetch,
            on_message,
            on_batch_end,
            on_lost,
            connection=self._connection,
            loop=self._loop,
            turn=self._turn,
            clock=self._clock,
            limits=self._limits,
        )
        self._consumers = [one for one in self._consumers if not one.is_ended]
        self._consumers.append(consumer)
        self._connection.want()
        consumer.open()
        return consumer

    def get(
        self,
        queue: str,
        on_done: Callable[[Delivery | FuselineError | None], None],
        deadline_seconds: float,
    ) -> None:
        """Take one message."""
        getter = self._getters.get(queue)
        if getter is None:
            getter = Getter(queue, self._connection, self._loop, self._turn, self._clock, self._limits)
            self._getters[queue] = getter
        self._connection.want()
        getter.get(on_done, deadline_seconds)

    def open(self) -> None:
        """The connection is there."""
        for consumer in self._consumers:
            consumer.open()
        for getter in self._getters.values():
            getter.open()

    def flush_acks(self) -> None:
        """Have all acknowledgements sent that wait."""
        for consumer in self._consumers:
            consumer.flush_acks()

    def fail_gets(self, error: FuselineError) -> None:
        """Whoever waits for a message gets the error."""
        for getter in self._getters.values():
            getter.fail_all(error)

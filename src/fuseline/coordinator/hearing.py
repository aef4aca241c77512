"""Whether a coordinator can be spoken to: it sends itself a message now and then, by the way that heartbeats take.

That nobody is heard is no proof that nobody speaks. RabbitMQ tells of an alarm only who publishes in it (its
`rabbit_reader`), and a connection over which nothing comes any more is found out after a minute. What comes back was put
behind all that had been said before, and so has been heard: silence counts after that alone (P5).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from fuseline.amqp import codec
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.topology import DEFAULT_EXCHANGE
from fuseline.clock import Clock
from fuseline.errors import FuselineError

ECHO_SECONDS: Final = 5.0
"""Deadline of one message, until RabbitMQ has it; the next one is sent before that."""
MAX_AWAITED: Final = 200
"""Messages of which one still knows when they were sent: on a slow RabbitMQ each takes longer than until the next (P6)."""


class Hearing:
    """Sends to `queue`, this coordinator's own of heartbeats, and knows what comes back of it."""

    def __init__(self, link: Link, clock: Clock, on_heard: Callable[[float], None]) -> None:
        """`on_heard` gets the (monotonic) time at which that was sent which has come back."""
        self._link = link
        self._clock = clock
        self._on_heard = on_heard
        self._numbers = itertools.count(1)
        self._sent: dict[str, float] = {}  # when, by id, oldest first
        self.queue: Consumer | None = None

    def ask(self) -> None:
        """Send one."""
        if self.queue is None:
            return
        message_id = f"echo/{next(self._numbers)}"
        self._sent[message_id] = self._clock.monotonic()
        if len(self._sent) > MAX_AWAITED:
            del self._sent[next(iter(self._sent))]
        properties = codec.properties(codec.ECHO, message_id=message_id, timestamp=self._clock.now())
        properties.delivery_mode = 1
        self._link.publish(
            DEFAULT_EXCHANGE,
            self.queue.queue,
            b"{}",
            properties,
            on_done=_ignore,
            deadline_seconds=ECHO_SECONDS,
            mandatory=False,
        )

    def is_echo(self, delivery: Delivery) -> bool:
        """Whether it is one of them; that is told, unless a later one has come back."""
        if delivery.properties.type != codec.ECHO:
            return False
        message_id = str(delivery.properties.message_id)
        if message_id in self._sent:
            sent_at = self._sent[message_id]
            self._sent = {one: at for one, at in self._sent.items() if at > sent_at}
            self._on_heard(sent_at)
        return True


def _ignore(_error: FuselineError | None) -> None:
    """The next one is on its way soon."""

"""Deliveries, and consumers that are renewed whenever their channel ends."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from pika.channel import Channel
from pika.spec import Basic

from fuseline.amqp.acking import ACK_SECONDS, WINDOW_SHARE, Acks
from fuseline.amqp.codec import Properties
from fuseline.amqp.connection import Connection, back_off
from fuseline.amqp.failures import channel_error
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.loops import LoopAdapter, Timer
from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import BrokerUnavailableError, FuselineError

log = logging.getLogger(__name__)

OnMessage: TypeAlias = "Callable[[Delivery], None]"


class Delivery:
    """One message as it was delivered.

    `tag` counts within the channel, and `generation` tells the channel's lives apart: a delivery of an earlier one is
    stale, has gone back to its queue, and acknowledging it does nothing. `exchange` and `routing_key` are the server's
    word. `redelivered`: somebody may have had it before.
    """

    __slots__ = (
        "body",
        "exchange",
        "generation",
        "line",
        "properties",
        "queue",
        "redelivered",
        "routing_key",
        "tag",
    )

    def __init__(
        self,
        tag: int,
        generation: int,
        body: bytes,
        properties: Properties,
        exchange: str,
        routing_key: str,
        redelivered: bool,
        queue: str,
        line: Line | None,
    ) -> None:
        self.tag = tag
        self.generation = generation
        self.body = body
        self.properties = properties
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.queue = queue
        self.line = line

    @property
    def is_stale(self) -> bool:
        """Whether its channel is gone, so that the message is back in its queue or with somebody else."""
        return self.line is not None and self.line.generation != self.generation

    def __repr__(self) -> str:
        return f"<Delivery {self.tag} of {self.queue!r}, type {self.properties.type!r}{', stale' * self.is_stale}>"


class Line(ABC):
    """A channel of the consuming connection that deliveries belong to, opened again whenever it ends.

    `generation` is the number of the channel's life. Subclasses say what is done with an open channel. `acks_together`
    deliveries are acknowledged together, or fewer after `ACK_SECONDS`.
    """

    acks_together = 1

    def __init__(
        self,
        queue: str,
        connection: Connection,
        loop: LoopAdapter,
        turn: Turn,
        clock: Clock,
        limits: LinkLimits,
    ) -> None:
        self.queue = queue
        self.generation = 0
        self._connection = connection
        self._loop = loop
        self._turn = turn
        self._clock = clock
        self._limits = limits
        self._channel: Channel | None = None
        self._opening: Channel | None = None
        self._is_ended = False
        self._failures = 0
        self._timer: Timer | None = None
        self._acks = Acks()
        self._ack_timer: Timer | None = None

    @property
    def is_ended(self) -> bool:
        """Whether it was given up for good."""
        return self._is_ended

    def open(self) -> None:
        """Open the channel, if the connection is open and it is not; called at each new connection."""
        self._timer = None
        connection = self._connection.pika
        if connection is None or self._opening or self._channel or self._is_ended:
            return
        self._opening = connection.channel(on_open_callback=self._opened)
        self._opening.add_on_close_callback(self._closed)

    def end(self) -> None:
        """Give the channel up for good; what is unacknowledged goes back to its queue."""
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush_acks()
        channel, self._channel = self._channel, None
        self._begin_life()
        if channel is not None and channel.is_open:
            channel.close()

    def ack(self, delivery: Delivery, multiple: bool) -> None:
        """Acknowledge soon, unless stale."""
        if self._channel is not None and self._channel.is_open and delivery.generation == self.generation:
            self._acks.add(delivery.tag, multiple)
            if self._acks.waiting >= self.acks_together:
                self.flush_acks()
            elif self._ack_timer is None:
                self._ack_timer = self._loop.call_later(ACK_SECONDS, self._acks_are_due)

    def nack(self, delivery: Delivery, requeue: bool) -> None:
        """Hand back or dead-letter, unless stale."""
        if self._channel is not None and self._channel.is_open and delivery.generation == self.generation:
            self._connection.traffic.acks += 1
            self._acks.skip(delivery.tag)
            # Not a reject: on 4.3 a nack does not count towards the queue's delivery limit.
            self._channel.basic_nack(delivery.tag, False, requeue)

    def flush_acks(self) -> None:
        """Have all acknowledgements sent that wait."""
        if self._channel is not None and self._channel.is_open:
            for tag, multiple in self._acks.take():
                self._connection.traffic.acks += 1
                self._channel.basic_ack(tag, multiple)

    def _acks_are_due(self) -> None:
        self._ack_timer = None
        self.flush_acks()

    def _begin_life(self) -> None:
        """What was delivered until now is stale: its tags count no more (P4)."""
        self.generation += 1
        self._acks = Acks()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None

    def _delivery(self, method: Any, properties: Properties, body: bytes) -> Delivery:
        self._connection.traffic.delivered += 1
        return Delivery(
            method.delivery_tag,
            self.generation,
            body,
            properties,
            method.exchange,
            method.routing_key,
            method.redelivered,
            self.queue,
            self,
        )

    def _opened(self, channel: Channel) -> None:
        self._opening = None
        if self._is_ended:
            channel.close()
            return
        self._channel = channel
        self._set_up(channel)

    def _closed(self, channel: Channel, reason: Exception) -> None:
        if channel is self._opening:
            self._opening = None
        elif channel is not self._channel:
            return
        self._lost(channel_error(f"queue {self.queue!r}", reason))

    def _lost(self, error: FuselineError) -> None:
        self._channel = None
        self._begin_life()
        self._on_lost(error)
        if self._connection.pika is not None and not self._is_ended:
            delay = back_off(self._failures, self._limits, self._clock)
            self._failures += 1
            log.debug("%s; again in %.2f s", error, delay)
            self._timer = self._loop.call_later(delay, self.open)

    @abstractmethod
    def _set_up(self, channel: Channel) -> None:
        """The channel is open: begin."""

    @abstractmethod
    def _on_lost(self, error: FuselineError) -> None:
        """The channel is gone, and another one will be opened unless the line has ended."""


class Consumer(Line):
    """What `Link.consume` returns."""

    def __init__(
        self,
        queue: str | PrivateQueue,
        prefetch: int,
        on_message: OnMessage,
        on_batch_end: Callable[[], None] | None,
        on_lost: Callable[[FuselineError], None] | None,
        *,
        connection: Connection,
        loop: LoopAdapter,
        turn: Turn,
        clock: Clock,
        limits: LinkLimits,
    ) -> None:
        name = queue if isinstance(queue, str) else queue.name
        super().__init__(name, connection, loop, turn, clock, limits)
        self._private = queue if isinstance(queue, PrivateQueue) else None
        self._prefetch = prefetch
        self.acks_together = max(1, prefetch // WINDOW_SHARE)
        self._on_message = on_message
        self._on_batch_end = on_batch_end
        self._tell_lost = on_lost
        self._inbox: list[Delivery] = []
        self._consumer_tag: str | None = None
        self._is_cancelled = False

    @property
    def is_consuming(self) -> bool:
        """Whether RabbitMQ knows of this consumer right now."""
        return self._consumer_tag is not None

    def cancel(self) -> None:
        """Take no more messages, for good. What was handed over stays held until it is acked or nacked.

        What had arrived but was not handed over goes back to its queue.
        """
        if self._is_cancelled:
            return
        self._is_cancelled = True
        inbox, self._inbox = self._inbox, []
        for delivery in inbox:
            self.nack(delivery, requeue=True)
        if self._channel is None:
            self.end()
        elif self._consumer_tag is not None and self._channel.is_open:
            self._channel.basic_cancel(self._consumer_tag)
        self._consumer_tag = None

    # -- setting up: prefetch, the private queue, then consume

    def _set_up(self, channel: Channel) -> None:
        channel.add_on_cancel_callback(partial(self._cancelled_by_server, channel))
        channel.basic_qos(prefetch_count=self._prefetch, callback=partial(self._declare, channel))

    def _declare(self, channel: Channel, _frame: Any) -> None:
        if channel is not self._channel or not channel.is_open:  # it was ended before the answer came
            return
        if self._private is None:
            self._consume(channel)
            return
        private = self._private
        self.queue = f"{private.name}.{self._clock.token_bytes(4).hex()}"
        last = self._consume_after_binding
        channel.queue_declare(
            self.queue, exclusive=True, auto_delete=True, arguments=dict(private.arguments), callback=_ignore
        )
        for index, (exchange, key) in enumerate(private.bindings, 1):
            callback = partial(last, channel) if index == len(private.bindings) else _ignore
            channel.queue_bind(self.queue, exchange, key, callback=callback)
        if not private.bindings:
            self._consume(channel)

    def _consume_after_binding(self, channel: Channel, _frame: Any) -> None:
        self._consume(channel)

    def _consume(self, channel: Channel) -> None:
        if channel is self._channel and channel.is_open and not self._is_cancelled:
            # pika makes a fresh tag each time; 4.3 ends the connection over one that was used before.
            channel.basic_consume(self.queue, self._received, callback=partial(self._consuming, channel))

    def _consuming(self, channel: Channel, frame: Any) -> None:
        if channel is not self._channel:
            return
        self._failures = 0
        if self._is_cancelled:
            channel.basic_cancel(frame.method.consumer_tag)
        else:
            self._consumer_tag = frame.method.consumer_tag

    # -- messages

    def _received(self, channel: Channel, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
        if channel is not self._channel:
            return
        self._inbox.append(self._delivery(method, properties, body))
        if len(self._inbox) == 1:
            self._turn.add(self._hand_over)

    def _hand_over(self) -> None:
        inbox, self._inbox = self._inbox, []
        for index, delivery in enumerate(inbox):
            if self._is_cancelled:  # by a callback just now
                for rest in inbox[index:]:
                    self.nack(rest, requeue=True)
                break
            if delivery.generation != self.generation:
                continue
            try:
                self._on_message(delivery)
            except BaseException:
                # The caller's mistake goes up; the messages after it are still handed over.
                self._inbox[:0] = inbox[index + 1 :]
                self._turn.add(self._hand_over)
                raise
        if inbox and self._on_batch_end is not None:
            self._on_batch_end()

    # -- endings

    def _cancelled_by_server(self, channel: Channel, frame: Any) -> None:
        """Its queue was deleted, or (4.3) a delivery was held too long.

        A new channel is the clean answer: what was unacknowledged on the old one goes back at once and for certain.
        """
        if channel is not self._channel or frame.method.consumer_tag != self._consumer_tag:
            return
        self.flush_acks()
        self._lost(BrokerUnavailableError(f"RabbitMQ cancelled the consumer of queue {self.queue!r}"))
        channel.close()

    def _on_lost(self, error: FuselineError) -> None:
        self._inbox.clear()
        self._consumer_tag = None
        if self._is_cancelled:
            self._is_ended = True
        if self._tell_lost is not None:
            self._turn.add(partial(self._tell_lost, error))


def _ignore(_frame: Any) -> None:
    """Makes pika wait for the answer before it sends the next method on the channel."""

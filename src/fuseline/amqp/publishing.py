"""Publishing with confirms: every message ends in exactly one answer, before its deadline."""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ChannelClosedByClient
from pika.spec import Basic

from fuseline.amqp.codec import Properties
from fuseline.amqp.connection import Connection, back_off
from fuseline.amqp.failures import answer_error, publish_error
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.loops import LoopAdapter, PikaConnection, Timer
from fuseline.amqp.renewal import Renewal
from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import (
    BrokerBusyError,
    BrokerUnavailableError,
    DeadlineExceededError,
    FuselineError,
    InvalidMessageError,
    UnroutableError,
)

log = logging.getLogger(__name__)

OnDone: TypeAlias = Callable[[FuselineError | None], None]
OnReply: TypeAlias = Callable[[Basic.Deliver, Properties, bytes], None]

# What a message costs in memory beside its body, roughly.
_OVERHEAD_BYTES: Final = 1_000
# Before a channel's first confirm. A queue without a leader holds up its channel, and past 400 messages RabbitMQ stops
# reading what the whole connection sends (credit flow).
_FIRST_WINDOW: Final = 100
# Deadlines that end within this time of each other are dealt with together.
_SWEEP_SECONDS: Final = 0.01
# How long a channel that is to be renewed waits for confirms; what has none then is sent again on the new one.
_RENEW_SECONDS: Final = 1.0


class Message:
    """A message that was taken and has no answer yet. `internal`: its answer is ours and is told at once."""

    __slots__ = (
        "body",
        "deadline",
        "exchange",
        "internal",
        "key",
        "mandatory",
        "on_done",
        "properties",
        "returned",
        "size",
    )

    def __init__(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        mandatory: bool,
        deadline: float,
        on_done: OnDone,
        internal: bool,
    ) -> None:
        self.exchange = exchange
        self.key = key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.deadline = deadline
        self.on_done = on_done
        self.internal = internal
        self.returned: str | None = None
        self.size = len(body) + _OVERHEAD_BYTES  # what it keeps


class Publisher:
    """The publishing channel of a link, and the messages on their way through it.

    Messages wait in `_waiting` until they can be sent, then in `_in_flight` by delivery tag until RabbitMQ confirms. When
    the channel ends those in flight go back to the front of the line: they may have arrived, so they may arrive twice.

    RabbitMQ answers some mistakes (a missing exchange, say) by closing the channel, and does not tell over which message.
    Then those that were in flight are sent again one at a time, until the one that was alone when it happened again is
    known and fails; its neighbours come through. A channel that refused a message is opened anew (`Renewal`).

    Without `on_reply` the channel has no reply address.
    """

    def __init__(
        self,
        connection: Connection,
        loop: LoopAdapter,
        turn: Turn,
        clock: Clock,
        limits: LinkLimits,
        *,
        on_ready: Callable[[], None],
        on_channel_lost: Callable[[], None],
        on_reply: OnReply | None,
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._turn = turn
        self._clock = clock
        self._limits = limits
        self._on_ready = on_ready
        self._on_channel_lost = on_channel_lost
        self._on_reply = on_reply
        self._channel: Channel | None = None
        self._opening_on: PikaConnection | None = None
        self._failures = 0
        self._next_tag = 1
        self._suspects = 0
        self._has_confirmed = False
        self._renewal = Renewal()
        self._renew_timer: Timer | None = None
        self._waiting: deque[Message] = deque()
        self._in_flight: dict[int, Message] = {}
        self._bytes = 0
        self._done: list[tuple[OnDone, FuselineError | None]] = []
        self._sweep_timer: Timer | None = None
        self._sweep_at = 0.0
        self._on_idle: Callable[[], None] | None = None
        self.is_ready = False

    @property
    def pending(self) -> int:
        """Messages without an answer."""
        return len(self._waiting) + len(self._in_flight)

    # -- taking messages

    def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool,
        deadline: float,
        on_done: OnDone,
        internal: bool = False,
    ) -> None:
        """Take a message; `deadline` in the clock's monotonic time."""
        if exchange == DEFAULT_EXCHANGE and key.startswith(REPLY_TO):
            mandatory = False  # RabbitMQ returns such a message even when it has delivered it
        message = Message(exchange, key, body, properties, mandatory, deadline, on_done, internal)
        full = self._limits.max_pending_bytes
        if self.pending >= self._limits.max_pending or (self._bytes and self._bytes + message.size > full):
            self._tell(message, BrokerBusyError(f"{self.pending} messages wait to be sent already"))
            return
        self._bytes += message.size
        if self._can_send() and not self._waiting:
            self._send(message)
        else:
            self._waiting.append(message)
        if self._sweep_timer is None or deadline < self._sweep_at:
            self._arm(deadline)

    def when_idle(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` once when no message is left (None: forget the last one)."""
        self._on_idle = callback
        self._check_idle()

    def fail_all(self, error: FuselineError) -> None:
        """Give up every message."""
        self._forget_renewal()
        messages = [*self._in_flight.values(), *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        for message in messages:
            self._finish(message, error)
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    # -- sending

    def pump(self) -> None:
        """Send what waits, as far as may be in flight."""
        while self._waiting and self._can_send():
            self._send(self._waiting.popleft())

    def _can_send(self) -> bool:
        most = self._limits.max_in_flight
        window = 1 if self._suspects else most if self._has_confirmed else min(most, _FIRST_WINDOW)
        may_send = self.is_ready and self._renew_timer is None and not self._connection.is_blocked
        return may_send and len(self._in_flight) < window

    def _send(self, message: Message) -> None:
        assert self._channel is not None
        try:
            self._channel.basic_publish(
                message.exchange, message.key, message.body, message.properties, message.mandatory
            )
        except (AMQPError, AssertionError, RecursionError, TypeError, ValueError, struct.error) as error:
            # pika marshals all of a message before it sends any, so nothing has gone out.
            told = f"message to exchange {message.exchange[:80]!r}, key {message.key[:80]!r}: {error!r:.200}"
            self._finish(message, InvalidMessageError(told))
            return
        self._connection.traffic.published += 1
        self._in_flight[self._next_tag] = message
        self._next_tag += 1

    # -- answers

    def _confirmed(self, channel: Channel, frame: Any) -> None:
        if channel is not self._channel:
            return
        self._connection.traffic.confirms += 1
        self._has_confirmed = True
        method = frame.method
        tag = method.delivery_tag
        refused = isinstance(method, Basic.Nack)
        if method.multiple:
            tags = []
            for one in self._in_flight:
                if one > tag:
                    break
                tags.append(one)
        else:
            tags = [tag]
        for one in tags:
            message = self._in_flight.pop(one, None)
            if message is None:  # its deadline passed
                continue
            error: FuselineError | None = None
            if refused:
                error = BrokerBusyError(
                    f"a queue of exchange {message.exchange!r}, key {message.key!r}, takes no more messages"
                )
            elif message.returned is not None:
                error = UnroutableError(
                    f"exchange {message.exchange!r}, key {message.key!r}: {message.returned}"
                )
            self._finish(message, error)
        self._failures = 0
        if refused and self._renew_timer is None and self._renewal.is_due(self._clock.monotonic()):
            self._renew_timer = self._loop.call_later(_RENEW_SECONDS, self._renew)
        if self._renew_timer is not None and not self._in_flight:
            self._renew()
        self.pump()

    def _returned(self, channel: Channel, method: Basic.Return, properties: Properties, body: bytes) -> None:
        """A mandatory message reached no queue; the confirm that follows says that it was dealt with."""
        if channel is not self._channel:
            return
        for message in self._in_flight.values():
            if (
                message.returned is None
                and message.exchange == method.exchange
                and message.key == method.routing_key
                and message.properties.message_id == properties.message_id
                and message.body == body
            ):
                message.returned = f"{method.reply_text} ({method.reply_code})"
                return

    def _finish(self, message: Message, error: FuselineError | None) -> None:
        self._bytes -= message.size
        if self._suspects:
            self._suspects -= 1
        self._tell(message, error)
        if self._on_idle is not None:
            self._check_idle()

    def _tell(self, message: Message, error: FuselineError | None) -> None:
        if message.internal:
            message.on_done(error)
            return
        self._done.append((message.on_done, error))
        if len(self._done) == 1:
            self._turn.add(self._tell_all)

    def _tell_all(self) -> None:
        done, self._done = self._done, []
        for index, (on_done, error) in enumerate(done):
            try:
                on_done(error)
            except BaseException:
                # The caller's mistake goes up; the answers after it are still told.
                self._done[:0] = done[index + 1 :]
                if self._done:
                    self._turn.add(self._tell_all)
                raise

    def _check_idle(self) -> None:
        if self._on_idle is not None and not self.pending:
            callback, self._on_idle = self._on_idle, None
            callback()

    # -- deadlines: one timer for all, because almost all ask for the same time

    def _arm(self, deadline: float) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._sweep_at = deadline
        self._sweep_timer = self._loop.call_later(deadline - self._clock.monotonic(), self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        due = self._clock.monotonic() + _SWEEP_SECONDS
        late = [(tag, message) for tag, message in self._in_flight.items() if message.deadline <= due]
        for tag, message in late:
            del self._in_flight[tag]
            self._finish(message, self._why_unconfirmed(message))
        unsent = [message for message in self._waiting if message.deadline <= due]
        if unsent:
            self._waiting = deque(message for message in self._waiting if message.deadline > due)
            for message in unsent:
                self._finish(message, self._why_unsent(message))
        if self.pending:
            deadlines = [message.deadline for message in (*self._in_flight.values(), *self._waiting)]
            self._arm(min(deadlines))
        self.pump()

    def _why_unconfirmed(self, message: Message) -> FuselineError:
        if self._connection.is_blocked:
            return self._blocked_error()
        return DeadlineExceededError(
            f"exchange {message.exchange!r}, key {message.key!r}: RabbitMQ did not confirm in time; it may arrive yet"
        )

    def _why_unsent(self, message: Message) -> FuselineError:
        if self._connection.is_blocked:
            return self._blocked_error()
        if not self.is_ready:
            return self._connection.last_error or BrokerUnavailableError(
                f"RabbitMQ at {self._connection.where}: no connection in time"
            )
        return DeadlineExceededError(
            f"exchange {message.exchange!r}, key {message.key!r}: not sent, {len(self._in_flight)} messages before it"
            " were not confirmed in time"
        )

    @staticmethod
    def _blocked_error() -> BrokerBusyError:
        return BrokerBusyError(
            "RabbitMQ blocks publishers: it is short of memory or disk (rabbitmqctl status)"
        )

    # -- the channel

    def open(self, connection: PikaConnection) -> None:
        """Open the channel on a new connection, unless it is opening there: two would both count from 1."""
        if self._opening_on is not connection:
            self._opening_on = connection
            connection.channel(on_open_callback=self._opened)

    def _renew(self) -> None:
        self._forget_renewal()
        if self._channel is not None and self._channel.is_open:
            log.debug("publishing channel is renewed, because it refused a message")
            self.is_ready = False
            self._channel.close()

    def abandon(self) -> None:
        """Leave the channel to whatever it hangs over; what has no confirm is sent again on a new one."""
        channel = self._channel
        if channel is not None and channel.is_open:
            self._closed(channel, ChannelClosedByClient(0, "abandoned"))
            channel.close()

    def _forget_renewal(self) -> None:
        if self._renew_timer is not None:
            self._renew_timer.cancel()
            self._renew_timer = None

    def _reopen(self) -> None:
        connection = self._connection.pika
        if connection is not None and self._channel is None:
            self.open(connection)

    def _opened(self, channel: Channel) -> None:
        self._opening_on = None
        self._channel = channel
        self._next_tag = 1
        self._has_confirmed = False
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(partial(self._confirmed, channel), callback=self._confirming)

    def _confirming(self, _frame: Any) -> None:
        # Publishing with reply_to and consuming the replies have to share a channel (direct reply-to).
        if self._on_reply is None:
            self._consuming(None)
        elif self._channel is not None and self._channel.is_open:  # else it was given up meanwhile
            self._channel.basic_consume(REPLY_TO, self._reply, auto_ack=True, callback=self._consuming)

    def _reply(self, _channel: Channel, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
        self._connection.traffic.delivered += 1
        assert self._on_reply is not None
        self._on_reply(method, properties, body)

    def _consuming(self, _frame: Any) -> None:
        if self._channel is not None and self._channel.is_open:
            self.is_ready = True
            self._on_ready()
            self.pump()

    def _closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel:
            return
        self._forget_renewal()
        self._channel = None
        self.is_ready = False
        messages = list(self._in_flight.values())
        self._in_flight.clear()
        for message in list(messages):
            if (error := answer_error(message.exchange, message.key, reason)) is not None:
                messages.remove(message)
                self._finish(message, error)
        by_mistake = isinstance(reason, ChannelClosedByBroker)
        if by_mistake and len(messages) == 1:
            guilty = messages.pop()
            self._finish(guilty, publish_error(guilty.exchange, guilty.key, reason))
        elif by_mistake:
            self._suspects = len(messages)
        for message in reversed(messages):
            message.returned = None
            self._waiting.appendleft(message)
        self._on_channel_lost()
        if self._connection.pika is not None:
            log.debug("publishing channel ended: %s", reason)
            delay = back_off(self._failures, self._limits, self._clock) if self._failures else 0.0
            self._failures += 1
            self._loop.call_later(delay, self._reopen)

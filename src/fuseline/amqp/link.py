"""A `Link`: everything a process of ours does with RabbitMQ, as callbacks on one loop.

It is used three ways, which differ in the loop alone: by the coordinator (`loops.SelectLoop`, its main thread), by
`sync.BackgroundLink` (the same in a thread of its own) and by the worker (`loops.AsyncioLoop` on the running loop).

Rules. Every method but `call_soon_threadsafe` is for the loop's thread, and none blocks. A callback given to a method
is called exactly once, later, on the loop's thread, never from inside that method. What a callback raises goes up to
the loop, not into pika, which would close the connection for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from pika.spec import Basic

from fuseline.amqp.apart import Apart
from fuseline.amqp.calls import Calls
from fuseline.amqp.codec import Properties
from fuseline.amqp.connection import Connection, addresses
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.declaring import Errands, Steps, counting, declaring, deleting, verifying
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.lines import Lines
from fuseline.amqp.loops import LoopAdapter, PikaConnection, Timer
from fuseline.amqp.publishing import Publisher
from fuseline.amqp.resources import PrivateQueue, QueueCount, Resource, Verdict
from fuseline.amqp.server import ServerInfo
from fuseline.amqp.traffic import Traffic
from fuseline.amqp.turn import Turn
from fuseline.clock import Clock
from fuseline.errors import BrokerUnavailableError, FuselineError

PublishError: TypeAlias = FuselineError
Result = TypeVar("Result")

_DEFAULT_LIMITS = LinkLimits()


class Link:
    """Two connections to RabbitMQ that come back by themselves: one publishes, one consumes and declares.

    `urls`: one RabbitMQ's addresses, several with commas between, of which each connection takes one by chance and then
    the next in turn. `name` is shown in RabbitMQ's list of connections. The publishing connection opens with
    `start`, the other one at its first use.

    `on_up` is called when the connections in use are open and publishing works, also after each reconnect; `on_down`
    with the reason when that ends; `on_blocked` with True when RabbitMQ blocks publishers (a memory or disk alarm) and
    with False when it goes on; `on_notice` for a message to this link's reply address that answers no `rpc`.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        loop: LoopAdapter,
        *,
        name: str,
        clock: Clock,
        limits: LinkLimits = _DEFAULT_LIMITS,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[FuselineError], None] | None = None,
        on_blocked: Callable[[bool], None] | None = None,
        on_notice: Callable[[Delivery], None] | None = None,
    ) -> None:
        urls = addresses(urls)
        self._loop = loop
        self._clock = clock
        self._limits = limits
        self._tell_up = on_up
        self._tell_down = on_down
        self._tell_blocked = on_blocked
        self._turn = Turn(loop)
        self._thread: int | None = None
        self._closing = False
        self._is_closed = False
        self._on_closed: list[Callable[[], None]] = []
        self._was_up = False
        self._publishing = Connection(
            urls,
            loop,
            clock,
            limits,
            f"{name} (publishing)",
            on_up=self._publishing_up,
            on_down=self._went_down,
            on_blocked=self._blocked,
        )
        self._consuming = Connection(
            urls,
            loop,
            clock,
            limits,
            f"{name} (consuming)",
            on_up=self._consuming_up,
            on_down=self._went_down,
            on_blocked=lambda _blocked: None,
        )
        publisher = partial(Publisher, self._publishing, loop, self._turn, clock, limits)
        self._apart = Apart(
            lambda: publisher(on_ready=lambda: None, on_channel_lost=lambda: None, on_reply=None),
            self._publishing,
        )
        self._publisher = publisher(
            on_ready=self._went_up,
            on_channel_lost=self._channel_lost,
            on_reply=self._replied,
        )
        self._lines = Lines(self._consuming, loop, self._turn, clock, limits)
        self._errands = Errands(self._consuming, loop, self._turn)
        self._calls = Calls(self._publisher, loop, self._turn, clock)
        self._calls.on_notice = on_notice

    # -- state

    @property
    def is_up(self) -> bool:
        """Whether the connections in use are open and publishing works."""
        consuming = not self._consuming.is_wanted or self._consuming.pika is not None
        return self._publisher.is_ready and consuming

    @property
    def is_blocked(self) -> bool:
        """Whether RabbitMQ blocks publishers."""
        return self._publishing.is_blocked

    @property
    def server(self) -> ServerInfo | None:
        """The server of the last connection; None before the first."""
        return self._publishing.server or self._consuming.server

    @property
    def last_error(self) -> FuselineError | None:
        """Why the link is down; None while it is up or before the first try failed."""
        return self._publishing.last_error or self._consuming.last_error

    @property
    def pending_publishes(self) -> int:
        """Messages taken by `publish` and not decided yet."""
        return self._publisher.pending + self._apart.pending

    @property
    def traffic(self) -> Traffic:
        """What went over both connections so far."""
        return self._publishing.traffic + self._consuming.traffic

    # -- life

    def start(self) -> None:
        """Begin to connect."""
        self._thread = threading.get_ident()
        self._publishing.want()

    def close(self, drain_seconds: float, on_closed: Callable[[], None]) -> None:
        """Refuse new calls, wait up to `drain_seconds` for publishes under way, fail the rest, disconnect.

        Unacknowledged deliveries go back to their queues. `on_closed` is called when both connections are closed. Closing
        again is fine.
        """
        self._check_thread()
        if self._is_closed:
            self._turn.add(on_closed)
            return
        self._on_closed.append(on_closed)
        if self._closing:
            return
        self._closing = True
        timer: Timer | None = None

        def drained() -> None:
            if self.pending_publishes:
                return
            self._publisher.when_idle(None)
            self._apart.when_idle(None)
            if timer is not None:
                timer.cancel()
            self._disconnect()

        def late() -> None:
            self._publisher.when_idle(None)
            self._apart.when_idle(None)
            self._disconnect()

        if self.pending_publishes and drain_seconds > 0:
            timer = self._loop.call_later(drain_seconds, late)
            self._publisher.when_idle(drained)
            self._apart.when_idle(drained)
        else:
            self._disconnect()

    # -- publishing

    def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        on_done: Callable[[PublishError | None], None],
        deadline_seconds: float,
        mandatory: bool = True,
        apart: bool = False,
    ) -> None:
        """Send one message and call `on_done(None)` when RabbitMQ has confirmed it, else with the error.

        - `UnroutableError`: no queue is bound for it, or the exchange does not exist.
        - `BrokerBusyError`: the queue refuses (full), publishers are blocked until the deadline, or too many messages
          wait in this link (`LinkLimits`; at once).
        - `BrokerUnavailableError`: no connection until the deadline, or the link is closed.
        - `DeadlineExceededError`: sent, but not confirmed in time. It may still arrive.
        - `AccessRefusedError`: the user may not write there. `InvalidMessageError`: RabbitMQ refuses the message.

        While the connection is away messages wait, up to their deadline. Messages that were sent but not confirmed when
        it broke are sent again, so a message can arrive twice; it cannot get lost. Order is kept within one connection.
        `apart`: on a channel of this exchange and key alone, so that a queue that does not answer holds up no other message.

        A message to a reply address (default exchange, key `amq.rabbitmq.reply-to...`) is never mandatory: RabbitMQ does
        not tell whether the address is still anybody's.
        """
        self._check_thread()
        if self._closing:
            self._turn.add(partial(on_done, _closed_error()))
            return
        publisher = self._apart.of(exchange, key) if apart else self._publisher
        publisher.publish(
            exchange,
            key,
            body,
            properties,
            mandatory=mandatory,
            deadline=self._clock.monotonic() + deadline_seconds,
            on_done=on_done,
        )

    def renew(self, exchange: str, key: str) -> None:
        """Go on on a new channel with what is published `apart` there: the present one may hang for a minute more."""
        self._apart.of(exchange, key).abandon()

    def rpc(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        on_reply: Callable[[Delivery | FuselineError], None],
        deadline_seconds: float,
    ) -> None:
        """Publish a request and wait for its answer (direct reply-to).

        Sets `reply_to` and, where it is None, `correlation_id` of `properties`. The errors are those of `publish`;
        `DeadlineExceededError` also means that nobody answered. After a reconnect the request is sent again, because the
        old reply address is gone: what it asks for must be safe to repeat.
        """
        self._check_thread()
        if self._closing:
            self._turn.add(partial(on_reply, _closed_error()))
            return
        self._calls.call(exchange, key, body, properties, on_reply, deadline_seconds)

    # -- consuming

    def consume(
        self,
        queue: str | PrivateQueue,
        prefetch: int,
        on_message: Callable[[Delivery], None],
        on_batch_end: Callable[[], None] | None = None,
        on_lost: Callable[[FuselineError], None] | None = None,
    ) -> Consumer:
        """Consume `queue` on a channel of its own until `Consumer.cancel`, whatever happens meanwhile.

        Messages that arrived together are handed over one by one, then `on_batch_end` is called once. `on_lost` is called
        each time the channel ends (connection lost, queue deleted or missing, consumer cancelled, delivery held too
        long) with the reason: all its deliveries are stale then and come again. It is renewed with back-off.
        """
        self._check_thread()
        if self._closing:
            raise _closed_error()
        return self._lines.consume(queue, prefetch, on_message, on_batch_end, on_lost)

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Acknowledge (`multiple`: and all before it on its channel). Does nothing for a stale delivery.

        Acknowledgements wait for each other, up to 20 ms or a quarter of the prefetch.
        """
        if delivery.line is not None:
            delivery.line.ack(delivery, multiple)

    def nack(self, delivery: Delivery, *, requeue: bool) -> None:
        """Hand back (`requeue`) or dead-letter one delivery. Does nothing for a stale delivery."""
        if delivery.line is not None:
            delivery.line.nack(delivery, requeue)

    def get(
        self,
        queue: str,
        on_done: Callable[[Delivery | FuselineError | None], None],
        *,
        deadline_seconds: float,
    ) -> None:
        """Take one message, None when there is none. One that arrives after the deadline is handed back."""
        self._check_thread()
        if self._closing:
            self._turn.add(partial(on_done, _closed_error()))
            return
        self._lines.get(queue, on_done, deadline_seconds)

    # -- declaring; each call on a channel of its own, on the consuming connection, which no alarm blocks

    def declare(
        self,
        resources: Sequence[Resource],
        on_done: Callable[[FuselineError | None], None],
        *,
        deadline_seconds: float,
    ) -> None:
        """Declare all, in order; what is there already is left as it is.

        `TopologyError` names a resource that exists with other arguments, `AccessRefusedError` one that may not be declared.
        """
        self._run_errand(lambda: declaring(resources), on_done, deadline_seconds)

    def verify(
        self,
        resources: Sequence[Resource],
        on_done: Callable[[list[Verdict] | FuselineError], None],
        *,
        deadline_seconds: float,
    ) -> None:
        """Compare the server with `resources` and change nothing. A difference is a verdict, not an error."""
        self._run_errand(lambda: verifying(resources), on_done, deadline_seconds)

    def count(
        self,
        queue: str,
        on_done: Callable[[QueueCount | FuselineError | None], None],
        *,
        deadline_seconds: float,
    ) -> None:
        """Ready messages and consumers of a queue; None when it does not exist."""
        self._run_errand(lambda: counting(queue), on_done, deadline_seconds)

    def delete(
        self, queue: str, on_done: Callable[[FuselineError | None], None], *, deadline_seconds: float
    ) -> None:
        """Delete a queue with all that is in it; one that does not exist is no error."""
        self._run_errand(lambda: deleting(queue), on_done, deadline_seconds)

    def flush(self) -> None:
        """Have what was published leave now, not at the end of the loop's turn: for who has nothing to add to it."""
        self._publishing.flush()

    # -- loop

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in `seconds`, unless the timer is cancelled."""
        return self._loop.call_later(seconds, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` when what goes on now is over."""
        self._loop.call_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop's thread; the one method for other threads."""
        self._loop.call_soon_threadsafe(callback)

    # -- inside

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("a link belongs to the thread that started it; use call_soon_threadsafe")

    def _run_errand(
        self,
        steps: Callable[[], Steps[Result]],
        on_done: Callable[[Result | FuselineError], None],
        deadline_seconds: float,
    ) -> None:
        self._check_thread()
        if self._closing:
            self._turn.add(partial(on_done, _closed_error()))
            return
        self._errands.run(steps, on_done, deadline_seconds)

    def _publishing_up(self, connection: PikaConnection) -> None:
        self._publisher.open(connection)
        self._apart.open(connection)

    def _consuming_up(self, _connection: PikaConnection) -> None:
        self._lines.open()
        self._errands.begin()
        self._went_up()

    def _went_up(self) -> None:
        if self.is_up and not self._was_up:
            self._was_up = True
            if self._tell_up is not None:
                self._turn.add(self._tell_up)

    def _went_down(self, error: FuselineError) -> None:
        """Also called for each try that failed: whoever waits for the first connection wants to know why."""
        self._was_up = False
        if self._tell_down is not None:
            self._turn.add(partial(self._tell_down, error))

    def _channel_lost(self) -> None:
        self._calls.channel_lost()

    def _blocked(self, blocked: bool) -> None:
        if not blocked:
            self._publisher.pump()
            self._apart.pump()
        if self._tell_blocked is not None:
            self._turn.add(partial(self._tell_blocked, blocked))

    def _replied(self, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
        self._calls.reply(method, properties, body)

    def _disconnect(self) -> None:
        error = _closed_error()
        self._calls.fail_all(error)
        self._publisher.fail_all(error)
        self._apart.fail_all(error)
        self._lines.flush_acks()
        self._lines.fail_gets(error)
        self._errands.fail(error)
        left = [self._publishing, self._consuming]

        def one_closed(connection: Connection) -> None:
            left.remove(connection)
            if not left:
                self._is_closed = True
                for on_closed in self._on_closed:
                    self._turn.add(on_closed)

        for connection in (self._publishing, self._consuming):
            connection.close(partial(one_closed, connection))


def _closed_error() -> BrokerUnavailableError:
    return BrokerUnavailableError("the link to RabbitMQ is closed")

"""Channels, both ends: what pika shows to a link, and what the server keeps of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.standin import Basic, ChannelClosedByBroker, ChannelClosedByClient
from fuseline.amqp.topology import REPLY_TO
from fuseline.testing.simulation.queues import SimMessage, SimQueue

if TYPE_CHECKING:
    from fuseline.testing.simulation.connections import SimConnection


class Frame:
    """What pika hands to a callback: `frame.method`."""

    __slots__ = ("method",)

    def __init__(self, method: Any) -> None:
        self.method = method


class Method:
    """The fields of any method."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Consuming:
    """One consumer, at the server."""

    __slots__ = ("auto_ack", "callback", "channel", "count", "is_cancelled", "prefetch", "queue", "tag")

    def __init__(self, channel: SimChannel, queue: SimQueue, tag: str, callback: Any) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.callback = callback
        self.prefetch = channel.prefetch
        self.count = 0
        self.is_cancelled = False

    @property
    def has_room(self) -> bool:
        """Whether the server may send it one more."""
        return not self.prefetch or self.count < self.prefetch

    def deliver(self, message: SimMessage) -> None:
        """Send it a message, unacknowledged from now on."""
        channel = self.channel
        channel.tag += 1
        channel.unacked[channel.tag] = (message, self)
        self.count += 1
        if message.redelivered:
            channel.server.history.bit("redelivery")
        method = Method(
            delivery_tag=channel.tag,
            exchange=message.exchange,
            routing_key=message.key,
            redelivered=message.redelivered,
            consumer_tag=self.tag,
        )
        channel.connection.tell(channel.delivered, self.callback, method, message.properties, message.body)


class SimChannel:
    """The client's end of a channel, and with `server_*` the server's."""

    def __init__(self, connection: SimConnection, on_open: Callable[[Any], None]) -> None:
        self.connection = connection
        self.server = connection.server
        self.is_open = False
        self._on_open = on_open
        self._on_close: list[Any] = []
        self._on_return: list[Any] = []
        self._on_cancel: list[Any] = []
        self._on_confirm: Any = None
        self._is_over = False
        # the server's
        self.is_server_open = False
        self.tag = 0
        self.unacked: dict[int, tuple[SimMessage, Consuming]] = {}
        self.consumers: dict[str, Consuming] = {}
        self.prefetch = 0
        self.published = 0
        self._on_empty: Any = None
        self.reply_address: str | None = None
        self.reply_callback: Any = None

    # ---- the client's side, as pika has it

    def add_on_close_callback(self, callback: Any) -> None:
        """Called when it ends."""
        self._on_close.append(callback)

    def add_on_return_callback(self, callback: Any) -> None:
        """Called for a mandatory message that reached no queue."""
        self._on_return.append(callback)

    def add_on_cancel_callback(self, callback: Any) -> None:
        """Called when the server ends a consumer."""
        self._on_cancel.append(callback)

    def confirm_delivery(self, on_confirm: Any, callback: Any) -> None:
        """Ask for confirms."""
        self._on_confirm = on_confirm
        self.connection.send(self._answer, callback, None)

    def basic_publish(
        self, exchange: str, key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> None:
        """Send a message."""
        if properties.type == codec.ASSIGNMENT:
            process = self.connection.process
            process.effect()
            self.server.history.add("sent", process.name, str(properties.message_id))
        self.connection.send(self._server_publish, exchange, key, body, properties, mandatory)

    def basic_consume(self, queue: str, on_message: Any, auto_ack: bool = False, callback: Any = None) -> str:
        """Begin to consume."""
        tag = self.server.new_tag()
        self.connection.send(self._server_consume, queue, tag, on_message, callback)
        return tag

    def basic_qos(self, prefetch_count: int, callback: Any) -> None:
        """Bound what is unacknowledged."""
        self.connection.send(self._server_qos, prefetch_count, callback)

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge."""
        self.connection.send(self._server_ack, tag, multiple)

    def basic_nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Give back, or refuse."""
        self.connection.send(self._server_nack, tag, requeue)

    def basic_cancel(self, tag: str) -> None:
        """End a consumer."""
        self.connection.send(self._server_cancel, tag)

    def exchange_declare(
        self, name: str, kind: str, *, passive: bool = False, durable: bool = True, callback: Any = None
    ) -> None:
        """Declare."""
        self.connection.send(self._server_declare, self.server.declare_exchange, (name, kind), callback)

    def queue_declare(
        self,
        name: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Any = None,
        callback: Any = None,
    ) -> None:
        """Declare, or with `passive` count."""
        owner = self.connection if exclusive else None
        wanted = None if passive else (arguments or {})
        self.connection.send(self._server_declare, self.server.declare_queue, (name, wanted, owner), callback)

    def queue_delete(self, queue: str, callback: Any = None) -> None:
        """Delete a queue with what is in it."""
        self.connection.send(self._server_delete, queue, callback)

    def add_callback(self, callback: Any, _replies: Any, one_shot: bool = True) -> None:
        """What `basic_get` calls when there is nothing; there is no other use of it here."""
        self._on_empty = callback

    def basic_get(self, queue: str, _callback: Any) -> None:
        """Ask for a message, and get none: what has just come is for consumers here."""
        self.connection.send(self._server_get, queue)

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", callback: Any = None) -> None:
        """Bind."""
        self.connection.send(self._server_declare, self.server.bind, (queue, exchange, routing_key), callback)

    def close(self) -> None:
        """Close."""
        if self.is_open:
            self.is_open = False
            self.connection.send(self._server_closes, None)

    def closed(self, reason: BaseException) -> None:
        """It has ended."""
        if self._is_over:
            return
        self._is_over = True
        self.is_open = False
        for callback in self._on_close:
            callback(self, reason)

    def delivered(self, callback: Any, method: Any, properties: Properties, body: bytes) -> None:
        """A message came."""
        if self.is_open:
            callback(self, method, properties, body)

    def _opened(self) -> None:
        if not self._is_over:
            self.is_open = True
            self._on_open(self)

    def _call(self, callback: Any, *args: Any) -> None:
        if callback is not None and self.is_open:
            callback(*args)

    def _confirmed(self, tag: int, is_taken: bool) -> None:
        if self.is_open and self._on_confirm is not None:
            self._on_confirm(Frame(Basic.Ack(tag, False) if is_taken else Basic.Nack(tag, False)))

    def _returned(self, method: Any, properties: Properties, body: bytes) -> None:
        if self.is_open:
            for callback in self._on_return:
                callback(self, method, properties, body)

    def _cancelled(self, tag: str) -> None:
        if self.is_open:
            for callback in self._on_cancel:
                callback(Frame(Method(consumer_tag=tag)))

    # ---- the server's side

    def server_open(self) -> None:
        """It is open here."""
        self.is_server_open = True
        self.connection.tell(self._opened)

    def _answer(self, callback: Any, method: Any) -> None:
        if self.is_server_open:
            self.connection.tell(self._call, callback, Frame(method))

    def _server_declare(self, declare: Any, args: tuple[Any, ...], callback: Any) -> None:
        if not self.is_server_open:
            return
        answer = declare(*args)
        if isinstance(answer, tuple):
            self.server_fail(*answer)
        else:
            self.connection.tell(self._call, callback, Frame(answer))

    def _server_delete(self, queue: str, callback: Any) -> None:
        self.server.delete_queue(queue, "deleted by a client")
        self._answer(callback, None)

    def _server_get(self, queue: str) -> None:
        if queue in self.server.queues:
            self._answer(self._on_empty, None)
        elif self.is_server_open:
            self.server_fail(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")

    def _server_qos(self, prefetch: int, callback: Any) -> None:
        self.prefetch = prefetch
        self._answer(callback, None)

    def _server_publish(
        self, exchange: str, key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> None:
        if not self.is_server_open:
            return
        self.published += 1
        tag = self.published
        if properties.reply_to == REPLY_TO:
            properties = copy.copy(properties)
            properties.reply_to = self.reply_address
        self.server.hold(self.connection)
        answer = self.server.publish(exchange, key, body, properties, self.connection.process.name)
        if answer == "missing":
            self.server_fail(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")
            return
        if answer == "unroutable" and mandatory:
            method = Method(exchange=exchange, routing_key=key, reply_text="NO_ROUTE", reply_code=312)
            self.connection.tell(self._returned, method, properties, body)
        self.connection.tell(self._confirmed, tag, answer != "refused")

    def _server_consume(self, queue: str, tag: str, on_message: Any, callback: Any) -> None:
        if not self.is_server_open:
            return
        if queue == REPLY_TO:
            self.reply_address = self.server.new_reply_address(self)
            self.reply_callback = on_message
        else:
            found = self.server.queues.get(queue)
            if found is None:
                self.server_fail(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")
                return
            consumer = Consuming(self, found, tag, on_message)
            self.consumers[tag] = consumer
            found.consumers.append(consumer)
        self.connection.tell(self._call, callback, Frame(Method(consumer_tag=tag)))
        if queue != REPLY_TO:
            self.server.queues[queue].pump()

    def _server_ack(self, tag: int, multiple: bool) -> None:
        if not self.is_server_open:
            return
        tags = [one for one in self.unacked if one <= tag] if multiple else [tag]
        if tag not in self.unacked:
            self.server.history.add("protocol", self.connection.process.name, f"ack of unknown tag {tag}")
            self.server_fail(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
            return
        queues: dict[SimQueue, None] = {}
        for one in tags:
            message, consumer = self.unacked.pop(one)
            consumer.count -= 1
            consumer.queue.settled(message, self.connection.process.name)
            queues[consumer.queue] = None
        for queue in queues:
            queue.pump()

    def _server_nack(self, tag: int, requeue: bool) -> None:
        if not self.is_server_open:
            return
        if tag not in self.unacked:
            self.server.history.add("protocol", self.connection.process.name, f"nack of unknown tag {tag}")
            self.server_fail(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
            return
        message, consumer = self.unacked.pop(tag)
        consumer.count -= 1
        if requeue:
            consumer.queue.back(message, counts=self.server.counts_nacks)
        else:
            consumer.queue.reject(message)
        consumer.queue.pump()

    def _server_cancel(self, tag: str) -> None:
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            consumer.is_cancelled = True
            if consumer in consumer.queue.consumers:
                consumer.queue.consumers.remove(consumer)

    def server_cancels(self, consumer: Consuming) -> None:
        """Its queue was deleted."""
        self.consumers.pop(consumer.tag, None)
        self.connection.tell(self._cancelled, consumer.tag)

    def server_fail(self, code: int, text: str) -> None:
        """The server closes it over a mistake."""
        self._server_closes(ChannelClosedByBroker(code, text))

    def _server_closes(self, reason: BaseException | None) -> None:
        if not self.is_server_open:
            return
        queues: dict[SimQueue, None] = {}
        self.server_close(queues)
        self.connection.tell(self.closed, reason or ChannelClosedByClient(0, "closed"))
        for queue in queues:
            queue.pump()

    def server_close(self, queues: dict[SimQueue, None]) -> None:
        """Forget it; what was unacknowledged goes back. Adds the queues that got something to `queues`."""
        self.is_server_open = False
        if self.reply_address is not None:
            self.server.replies.pop(self.reply_address, None)
        for consumer in self.consumers.values():
            if consumer in consumer.queue.consumers:
                consumer.queue.consumers.remove(consumer)
        self.consumers.clear()
        for message, consumer in reversed(self.unacked.values()):
            consumer.queue.back(message)
            queues[consumer.queue] = None
        self.unacked.clear()

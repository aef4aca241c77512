"""One RabbitMQ, as far as this system uses it, with the faults that it is allowed to have."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fuseline.amqp.codec import Properties
from fuseline.amqp.standin import AMQPConnectionError
from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO
from fuseline.testing.simulation.channels import Method, SimChannel
from fuseline.testing.simulation.connections import SimConnection
from fuseline.testing.simulation.queues import SimQueue
from fuseline.testing.simulation.told import told
from fuseline.testing.simulation.world import Process, World


class SimExchange:
    """One exchange and its bindings, (key, queue name)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bindings: list[tuple[str, str]] = []


class Server:
    """Exchanges, queues, connections. Versions of RabbitMQ differ in the flags."""

    def __init__(self, world: World) -> None:
        chance = world.random.random
        self.world = world
        self.history = world.history
        self.requeues_in_front = chance() < 0.7
        self.counts_nacks = chance() < 0.5
        self.delivery_limit = 3 if chance() < 0.6 else 1_000_000
        self.chance_of_duplicates = 0.0
        self.chance_of_loss = 0.0  # of what is not persistent
        self.exchanges: dict[str, SimExchange] = {}
        self.queues: dict[str, SimQueue] = {}
        self.connections: list[SimConnection] = []
        self.all_connections: list[SimConnection] = []
        self.replies: dict[str, SimChannel] = {}
        self.is_up = True
        self.is_frozen = False
        self.is_alarmed = False
        self.is_refusing = False
        self._tags = 0

    def chance(self) -> bool:
        """Whether a duplicate happens now."""
        return self.world.random.random() < self.chance_of_duplicates

    # ---- connections

    def connect(self, process: Process, on_open: Any, on_open_error: Any, on_close: Any) -> SimConnection:
        """A process connects."""
        connection = SimConnection(self, process, on_open, on_open_error, on_close)
        self.all_connections.append(connection)
        self.world.later(4 * self.world.latency(), self._accept, connection)
        return connection

    def _accept(self, connection: SimConnection) -> None:
        if not connection.process.is_alive:
            return
        if not self.is_up:
            self.world.later(0.001, connection.refused, AMQPConnectionError(), process=connection.process)
            return
        connection.server_gone = False
        self.connections.append(connection)
        connection.tell(connection.opened)

    def forget(self, connection: SimConnection) -> None:
        """A connection is gone: its own queues go with it."""
        if connection in self.connections:
            self.connections.remove(connection)
        for queue in [queue for queue in self.queues.values() if queue.owner is connection]:
            self.delete_queue(queue.name, "exclusive")

    def process_died(self, process: Process) -> None:
        """Its sockets are closed by the kernel: soon, and what was sent before may still arrive."""
        for connection in [one for one in self.connections if one.process is process]:
            connection.cut(0.006 * self.world.random.random(), 0.0)

    def stalls(self, connection: SimConnection) -> bool:
        """Whether the server does not read from it right now."""
        return self.is_frozen or (self.is_alarmed and connection.is_held)

    def flow(self) -> None:
        """Read on where nothing stands against it any more."""
        for connection in list(self.connections):
            connection.flow()

    def set_alarm(self, is_alarmed: bool) -> None:
        """Short of memory: who publishes is blocked, and told so; who does not hears of nothing."""
        self.is_alarmed = is_alarmed
        if is_alarmed:
            return
        for connection in self.connections:
            if connection.is_held:
                connection.is_held = False
                connection.tell(connection.blocked, False)
        self.flow()

    def hold(self, connection: SimConnection) -> None:
        """It has published in an alarm: RabbitMQ takes that, and reads no more from it (as its `rabbit_reader` does)."""
        if self.is_alarmed and not connection.is_held:
            connection.is_held = True
            connection.tell(connection.blocked, True)

    def crash(self) -> None:
        """Down: connections are gone, and all that is not persistent."""
        self.is_up = False
        self.is_alarmed = self.is_frozen = False
        for connection in list(self.connections):
            connection.is_cut = True
            connection.end_at_server()
            connection.is_cut = False
            connection.cut(0.0, 0.01 * self.world.random.random())
        for queue in self.queues.values():
            queue.drop_transient()

    def recover(self) -> None:
        """Up again."""
        self.is_up = True
        for queue in list(self.queues.values()):
            queue.pump()

    # ---- resources. Each answers with the method of the declare-ok, or (code, text) of the refusal

    def declare_exchange(self, name: str, kind: str) -> Any:
        """Declare an exchange."""
        found = self.exchanges.setdefault(name, SimExchange(kind))
        if found.kind != kind:
            return (406, f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}'")
        return Method()

    def declare_queue(
        self, name: str, arguments: Mapping[str, Any] | None, owner: SimConnection | None
    ) -> Any:
        """Declare a queue, or count it (`arguments` None)."""
        found = self.queues.get(name)
        if found is None:
            if arguments is None:
                return (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
            found = self.queues[name] = SimQueue(self, name, arguments, owner)
        elif arguments is not None and found.arguments != dict(arguments):
            return (406, f"PRECONDITION_FAILED - inequivalent arg for queue '{name}'")
        return Method(message_count=len(found.ready), consumer_count=len(found.consumers))

    def bind(self, queue: str, exchange: str, key: str) -> Any:
        """Bind a queue."""
        if queue not in self.queues or exchange not in self.exchanges:
            return (404, f"NOT_FOUND - '{queue}' or '{exchange}'")
        bindings = self.exchanges[exchange].bindings
        if (key, queue) not in bindings:
            bindings.append((key, queue))
        return Method()

    def delete_queue(self, name: str, why: str) -> None:
        """Delete a queue with all that is in it."""
        queue = self.queues.pop(name)
        if queue.owner is None:
            queue.purge(why)
            for channel in [channel for one in self.connections for channel in one.channels]:
                for message, holder in channel.unacked.values():
                    if holder.queue is queue:
                        self.history.add_each("lost", "server", name, message.what, why)
        queue.is_deleted = True
        queue.ready.clear()
        for exchange in self.exchanges.values():
            exchange.bindings = [one for one in exchange.bindings if one[1] != name]
        for consumer in queue.consumers:
            consumer.channel.server_cancels(consumer)
        queue.consumers.clear()

    # ---- messages

    def route(self, exchange: str, key: str) -> list[SimQueue] | None:
        """The queues that a message goes to; None when there is no such exchange."""
        if exchange == DEFAULT_EXCHANGE:
            return [self.queues[key]] if key in self.queues else []
        found = self.exchanges.get(exchange)
        if found is None:
            return None
        if found.kind == "fanout":
            return [self.queues[name] for _, name in found.bindings]
        return [self.queues[name] for bound, name in found.bindings if bound == key]

    def publish(self, exchange: str, key: str, body: bytes, properties: Properties, who: str) -> str:
        """Take a message: `taken`, `refused`, `unroutable` or `missing` (the exchange)."""
        if exchange == DEFAULT_EXCHANGE and key.startswith(REPLY_TO):
            channel = self.replies.get(key)
            if (
                channel is not None
                and self.chance_of_loss
                and self.world.random.random() < self.chance_of_loss
            ):
                self.history.fault("transient message lost", who, str(properties.type))
            elif channel is not None:
                method = Method(exchange="", routing_key=key, redelivered=False, delivery_tag=1)
                channel.connection.tell(channel.delivered, channel.reply_callback, method, properties, body)
            return "taken"
        queues = self.route(exchange, key)
        if queues is None:
            return "missing"
        if not queues:
            for _, name in told(properties, body):
                self.history.add("unroutable", who, name)
            return "unroutable"
        is_durable = properties.delivery_mode == 2
        if self.is_refusing and is_durable:
            self.history.bit("publish refused")
            for _, name in told(properties, body):
                self.history.add("refuses", who, name)
            return "refused"
        if not is_durable and self.chance_of_loss and self.world.random.random() < self.chance_of_loss:
            self.history.fault("transient message lost", who, str(properties.type))
            return "taken"
        for queue in queues:
            if is_durable:
                self.history.add_each("queued", who, queue.name, told(properties, body))
                if self.chance_of_duplicates and self.chance():
                    self.history.fault("duplicate", who, str(properties.message_id))
                    self.history.add_each("queued", who, queue.name, told(properties, body))
                    queue.publish(body, copy.copy(properties), exchange, key)
            queue.publish(body, properties, exchange, key)
        return "taken"

    def new_reply_address(self, channel: SimChannel) -> str:
        """An address of this channel."""
        self._tags += 1
        address = f"{REPLY_TO}.{self._tags}"
        self.replies[address] = channel
        return address

    def new_tag(self) -> str:
        """A consumer tag that nobody had before."""
        self._tags += 1
        return f"ctag{self._tags}"

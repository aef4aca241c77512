"""The harness's own hands on RabbitMQ, on plain pika: queues that listen, messages that are let in, counts."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from fuseline.amqp.topology import Topology
from fuseline.model.schema import WorkflowSchema

DEAD: Final = "harness.dead"
EVENTS: Final = "harness.events"
COPIES: Final = "harness.copies"
_TRIES: Final = 8

Value = TypeVar("Value")


class Taps:
    """Every call opens a connection of its own, tries the next address where one is away, and closes it."""

    def __init__(self, urls: Sequence[str], topology: Topology, schemas: Sequence[WorkflowSchema]) -> None:
        self._urls = itertools.cycle(urls)
        self._topology = topology
        self._schemas = schemas

    @contextlib.contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        parameters = pika.URLParameters(next(self._urls))
        parameters.socket_timeout = parameters.stack_timeout = 5
        parameters.blocked_connection_timeout = 10
        parameters.client_properties = {"connection_name": "harness"}
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(AMQPError):
                connection.close()

    def _do(self, action: Callable[[BlockingChannel], Value], *, until_declared: bool = False) -> Value:
        for left in reversed(range(_TRIES)):
            try:
                with self._channel() as channel:
                    return action(channel)
            except ChannelClosedByBroker:
                if not (until_declared and left):
                    raise
                time.sleep(0.5)
            except (AMQPError, OSError):
                if not left:
                    raise
                time.sleep(0.5)
        raise AssertionError("unreachable")

    def listen(self) -> None:
        """Declare the harness's queues. Copies of reports are the last few hundred; events as many as come."""

        def declare(channel: BlockingChannel) -> None:
            t = self._topology
            channel.queue_declare(DEAD, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(DEAD, t.dead_exchange)
            channel.queue_declare(EVENTS, durable=True)
            channel.queue_bind(EVENTS, t.events_exchange, "#")
            channel.queue_declare(COPIES, durable=True, arguments={"x-max-length": 300})
            for schema in self._schemas:
                channel.queue_bind(COPIES, t.reports_exchange(schema.workflow_id))

        # A worker counts as alive before its coordinator has declared what it asked for.
        self._do(declare, until_declared=True)

    def publish(self, exchange: str, key: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Publish and wait for the confirm."""
        self.publish_all([(exchange, key, body, properties)])

    def publish_all(self, messages: Sequence[tuple[str, str, bytes, pika.BasicProperties]]) -> None:
        """Publish each and wait for its confirm; what broke off is done again from the beginning."""

        def send(channel: BlockingChannel) -> None:
            channel.confirm_delivery()
            for exchange, key, body, properties in messages:
                channel.basic_publish(exchange, key, body, properties)

        self._do(send)

    def count(self, queue: str) -> int | None:
        """Messages that wait in a queue; None when there is no such queue."""

        def look(channel: BlockingChannel) -> int | None:
            try:
                return channel.queue_declare(queue, passive=True).method.message_count
            except ChannelClosedByBroker:
                return None

        return self._do(look)

    def names(self) -> list[str]:
        """All queues that Fuseline has for good."""
        t = self._topology
        base = [t.reports_queue, t.commands_queue, t.dead_queue, t.parked_queue]
        return base + [t.steps_queue(one.workflow_id, one.version) for one in self._schemas]

    def counts(self) -> dict[str, int | None]:
        """Of all of Fuseline's queues."""
        return {name: self.count(name) for name in self.names()}

    def is_empty(self, queue: str, seconds: float) -> bool:
        """Whether nothing waits in it, within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.count(queue):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True

    def delete(self, queue: str) -> int | None:
        """Delete a queue; how many messages went with it."""
        return self._do(lambda channel: channel.queue_delete(queue).method.message_count)

    def purge(self, queue: str) -> int | None:
        """Purge a queue; how many messages went; None when there is no such queue."""

        def purge(channel: BlockingChannel) -> int | None:
            try:
                return channel.queue_purge(queue).method.message_count
            except ChannelClosedByBroker:
                return None

        return self._do(purge)

    def take(
        self, queue: str, limit: int = 1_000_000
    ) -> list[tuple[pika.spec.Basic.GetOk, pika.BasicProperties, bytes]]:
        """What waits in a queue, taken out."""

        def get(channel: BlockingChannel) -> list[Any]:
            found = []
            for method, properties, body in channel.consume(queue, inactivity_timeout=1.0):
                if method is None:
                    break
                found.append((method, properties, body))
                if len(found) >= limit:
                    break
            if found:
                channel.basic_ack(found[-1][0].delivery_tag or 0, multiple=True)
            channel.cancel()
            return found

        return self._do(get)

    def take_copies(self) -> list[tuple[str, bytes, pika.BasicProperties]]:
        """The last reports and claims: (exchange, body, properties), as the workers sent them."""
        try:
            taken = self.take(COPIES)
        except ChannelClosedByBroker:  # it is on a node that is away
            return []
        return [(method.exchange or "", body, properties) for method, properties, body in taken]

    def leases(self, seconds: float) -> dict[str, list[Any]]:
        """What workers say in their heartbeats that they hold, listened to for so long; the last word of each."""
        return {worker_id: beat["leases"] for worker_id, (_, beat) in self._beats(seconds).items()}

    def addresses(self, seconds: float) -> list[str]:
        """Where workers can be told something, by their heartbeats; good as long as their channels are."""
        return [str(properties.reply_to) for properties, _ in self._beats(seconds).values()]

    def _beats(self, seconds: float) -> dict[str, tuple[pika.BasicProperties, dict[str, Any]]]:
        def hear(channel: BlockingChannel) -> dict[str, tuple[pika.BasicProperties, dict[str, Any]]]:
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, self._topology.heartbeats_exchange)
            heard: dict[str, tuple[pika.BasicProperties, dict[str, Any]]] = {}
            until = time.monotonic() + seconds
            for _, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.5):
                if properties is not None and body is not None:
                    beat = json.loads(body)
                    heard[beat["worker_id"]] = properties, beat
                if time.monotonic() > until:
                    break
            return heard

        return self._do(hear)

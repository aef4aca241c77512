"""Queues as RabbitMQ keeps them: unacknowledged deliveries, redelivery, TTL at the head, limits, dead letters."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fuseline.amqp.codec import Properties
from fuseline.testing.simulation.told import told

if TYPE_CHECKING:
    from fuseline.testing.simulation.channels import Consuming
    from fuseline.testing.simulation.connections import SimConnection
    from fuseline.testing.simulation.server import Server


class SimMessage:
    """One message in one queue."""

    __slots__ = ("body", "deliveries", "exchange", "expires_at", "key", "properties", "redelivered")

    def __init__(
        self, body: bytes, properties: Properties, exchange: str, key: str, expires_at: float | None
    ) -> None:
        self.body = body
        self.properties = properties
        self.exchange = exchange
        self.key = key
        self.expires_at = expires_at
        self.redelivered = False
        self.deliveries = 0

    @property
    def what(self) -> list[tuple[str, str]]:
        """(type, message_id) of all that is in it."""
        return told(self.properties, self.body)


class SimQueue:
    """One queue. `owner`: the connection of an exclusive queue."""

    def __init__(
        self, server: Server, name: str, arguments: Mapping[str, Any], owner: SimConnection | None
    ) -> None:
        self.server = server
        self.name = name
        self.arguments = dict(arguments)
        self.owner = owner
        self.ready: deque[SimMessage] = deque()
        self.consumers: list[Consuming] = []
        self.unacked = 0
        self.is_deleted = False
        self._turn = 0
        self._watching: float | None = None  # when the head is looked at again
        self._ttl = self.arguments.get("x-message-ttl")
        self._dlx: str | None = self.arguments.get("x-dead-letter-exchange")
        self._dead_key: str | None = self.arguments.get("x-dead-letter-routing-key")
        self._limit: int | None = self.arguments.get("x-delivery-limit")
        if self._limit is not None and ".steps." in name:
            self._limit = min(self._limit, server.delivery_limit)  # an operator's policy may be lower

    def publish(self, body: bytes, properties: Properties, exchange: str, key: str) -> None:
        """Take a message."""
        seconds: float | None = None
        if properties.expiration is not None:
            seconds = int(properties.expiration) / 1000
        if self._ttl is not None:
            seconds = self._ttl / 1000 if seconds is None else min(seconds, self._ttl / 1000)
        expires_at = None if seconds is None else self.server.world.now + seconds
        self.ready.append(SimMessage(body, properties, exchange, key, expires_at))
        self.pump()

    def pump(self) -> None:
        """Hand out what can be handed out; only the head expires."""
        now = self.server.world.now
        while self.ready and not self.is_deleted:
            head = self.ready[0]
            if head.expires_at is not None and head.expires_at <= now:
                self.ready.popleft()
                self.dead_letter(head, "expired")
                continue
            consumer = self._next_consumer()
            if consumer is None:
                break
            self.ready.popleft()
            self.unacked += 1
            consumer.deliver(head)
        if self.ready and (at := self.ready[0].expires_at) is not None and self._watching != at:
            self._watching = at
            self.server.world.at(at, self._look, at)

    def _look(self, at: float) -> None:
        if self._watching == at:
            self._watching = None
            self.pump()

    def _next_consumer(self) -> Consuming | None:
        consumers = self.consumers
        for offset in range(len(consumers)):
            index = (self._turn + offset) % len(consumers)
            if consumers[index].has_room:
                self._turn = index + 1
                return consumers[index]
        return None

    def settled(self, message: SimMessage, who: str) -> None:
        """A consumer acknowledged it."""
        self.unacked -= 1
        if not self.is_deleted:
            self.server.history.add_each("settled", who, self.name, message.what)

    def back(self, message: SimMessage, *, counts: bool = True) -> None:
        """A delivery came back."""
        self.unacked -= 1
        if self.is_deleted:
            return
        message.redelivered = True
        if counts:
            message.deliveries += 1
        if self._limit is not None and message.deliveries > self._limit:
            self.dead_letter(message, "delivery_limit")
        elif self.server.requeues_in_front:
            self.ready.appendleft(message)
        else:
            self.ready.append(message)

    def reject(self, message: SimMessage) -> None:
        """A consumer refused it."""
        self.unacked -= 1
        if not self.is_deleted:
            self.dead_letter(message, "rejected")

    def dead_letter(self, message: SimMessage, reason: str) -> None:
        """It goes to the dead-letter exchange, or is gone."""
        history = self.server.history
        if self._dlx is None:
            if message.properties.delivery_mode == 2:
                why = f"{reason}, and no dead-letter exchange"
                history.add_each("lost", "server", self.name, message.what, why)
            return
        history.bit(f"dead letter: {reason}")
        headers: dict[str, Any] = dict(message.properties.headers or {})
        deaths: list[dict[str, Any]] = [dict(death) for death in headers.get("x-death") or ()]
        key = message.key if self._dead_key is None else self._dead_key
        targets = self.server.route(self._dlx, key) or []
        for target in targets:
            if reason != "rejected" and _is_cycle(target.name, deaths):
                history.add_each("lost", "server", self.name, message.what, "dropped by RabbitMQ as a cycle")
                continue
            properties = copy.copy(message.properties)
            properties.expiration = None
            headers["x-death"] = _died(deaths, self.name, reason, message)
            properties.headers = dict(headers)
            history.add_each("dead", "server", self.name, message.what, reason)
            history.add_each("queued", "server", target.name, message.what)
            target.publish(message.body, properties, self._dlx, key)
            if self.server.chance_of_duplicates and self.server.chance():
                history.fault("duplicate", "server", f"dead letter {message.what[0][1]}")
                history.add_each("queued", "server", target.name, message.what)
                target.publish(message.body, copy.copy(properties), self._dlx, key)

    def purge(self, why: str) -> int:
        """Drop what is ready; how many that were."""
        count = len(self.ready)
        for message in self.ready:
            self.server.history.add_each("lost", "server", self.name, message.what, why)
        self.ready.clear()
        return count

    def drop_transient(self) -> None:
        """The server restarts: what is not persistent is gone."""
        self.ready = deque(one for one in self.ready if one.properties.delivery_mode == 2)


def _died(deaths: list[dict[str, Any]], queue: str, reason: str, message: SimMessage) -> list[dict[str, Any]]:
    """`x-death` after one more death, newest first, one entry a (queue, reason)."""
    same = [death for death in deaths if death["queue"] == queue and death["reason"] == reason]
    others = [death for death in deaths if death not in same]
    count = 1 + sum(death["count"] for death in same)
    entry = {
        "queue": queue,
        "reason": reason,
        "count": count,
        "exchange": message.exchange,
        "routing-keys": [message.key],
    }
    return [entry, *others]


def _is_cycle(queue: str, deaths: list[dict[str, Any]]) -> bool:
    """Whether RabbitMQ before 4.0.1 drops it: it was dead-lettered from the target before, and nobody rejected it since."""
    for index, death in enumerate(deaths):
        if death["queue"] == queue:
            return all(one["reason"] != "rejected" for one in deaths[: index + 1])
    return False

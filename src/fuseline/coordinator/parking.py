"""Messages that nobody can read or place are kept for people, whatever they are like: what cannot be parked would hold up
all others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.parked import EXCHANGE, PART, REASON, headers_to_keep
from fuseline.amqp.topology import DEFAULT_EXCHANGE, Topology
from fuseline.clock import Clock
from fuseline.errors import CallerError, FuselineError

log = logging.getLogger(__name__)

PUBLISH_SECONDS: Final = 20.0
"""Deadline of one try of whatever leaves a coordinator. A step's row keeps a timer, so an assignment that never gets out is
offered again by the sweep; what is parked or put back is tried again after `RETRY_SECONDS`.
"""
RETRY_SECONDS: Final = 5.0
PART_BYTES: Final = 512 * 1024
"""Of a message that RabbitMQ takes no longer as a whole: its limit was larger then, or it is another RabbitMQ now."""


class Parking:
    """Publishes to the queue of parked messages."""

    def __init__(self, link: Link, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._queue = topology.parked_queue
        self._clock = clock

    def park(self, delivery: Delivery, reason: str, on_done: Callable[[], None]) -> None:
        """Keep it. Tried until it is safe: the delivery is acked after `on_done`.

        What RabbitMQ refuses is sent without the sender's headers, and what it refuses then in parts and without anything
        else of the sender's.
        """
        log.error("parked a message from %r: %s", delivery.exchange, reason)
        said: dict[str, Any] = {REASON: reason[:2000], EXCHANGE: delivery.exchange}
        was = delivery.properties
        kind = str(was.type or "unknown")

        def in_parts() -> None:
            parts = [
                delivery.body[start : start + PART_BYTES]
                for start in range(0, len(delivery.body), PART_BYTES)
            ] or [b""]
            left = len(parts)
            whole = self._clock.new_id()

            def kept() -> None:
                nonlocal left
                left -= 1
                if not left:
                    on_done()

            for number, part in enumerate(parts, 1):
                headers = {**said, PART: f"{number} of {len(parts)} of {whole}"}
                self._send(part, self._properties("unknown", None, None, headers), kept, None)

        def without_headers() -> None:
            properties = self._properties(kind, was.message_id, was.correlation_id, said)
            self._send(delivery.body, properties, on_done, in_parts)

        headers = headers_to_keep(was.headers) | said
        properties = self._properties(kind, was.message_id, was.correlation_id, headers)
        self._send(delivery.body, properties, on_done, without_headers if headers != said else in_parts)

    def _properties(
        self, kind: str, message_id: str | None, correlation_id: str | None, headers: dict[str, Any]
    ) -> Properties:
        return codec.properties(
            kind,
            message_id=message_id or self._clock.new_id(),
            timestamp=self._clock.now(),
            correlation_id=correlation_id,
            headers=headers,
        )

    def _send(
        self,
        body: bytes,
        properties: Properties,
        on_done: Callable[[], None],
        if_refused: Callable[[], None] | None,
    ) -> None:
        def published(error: FuselineError | None) -> None:
            if error is None:
                on_done()
            elif isinstance(error, CallerError) and if_refused is not None:
                log.warning("a message is parked with less of what came with it: %s", error)
                if_refused()
            else:
                log.error("cannot park a message, trying again: %s", error)
                self._link.call_later(RETRY_SECONDS, send)

        def send() -> None:
            self._link.publish(
                DEFAULT_EXCHANGE,
                self._queue,
                body,
                properties,
                on_done=published,
                deadline_seconds=PUBLISH_SECONDS,
                apart=True,
            )

        send()

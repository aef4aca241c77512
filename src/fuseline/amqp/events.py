"""Run and step events as they happen, for the web side and `runs watch`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from fuseline.amqp.codec import MAX_WRAPPED_NESTING, PROBE, decode
from fuseline.amqp.connection import addresses, back_off, first_of, parameters_of
from fuseline.amqp.failures import connection_error
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.topology import Topology
from fuseline.clock import Clock, SystemClock
from fuseline.errors import BrokerUnavailableError, InvalidMessageError

log = logging.getLogger(__name__)

_DEFAULT_LIMITS = LinkLimits()
_PREFETCH = 100
# A watcher that does not keep up loses the oldest events, not the server its memory.
_MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its `data` as it was published, and the routing key it came with."""

    key: str
    data: dict[str, Any] = field(hash=False)


class EventStream:
    """Subscribes to the events of one run, one workflow, or all; an async iterator of `Event`, and None after a gap.

        async with EventStream(url, topology, workflow_id="ingest") as events:
            async for event in events:
                ...

    Entering it waits until the subscription stands (`BrokerUnavailableError` after `deadline_seconds`), so that what
    happens from then on is seen. A lost connection is made again; since events may have been missed meanwhile, the
    iterator then yields None once, and whoever keeps a picture reads it anew. `observer` is the RabbitMQ user whose
    permission the queue's name has to fit.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        topology: Topology,
        *,
        workflow_id: str | None = None,
        instance_id: str | None = None,
        event: str | None = None,
        observer: str | None = None,
        deadline_seconds: float = 10.0,
        clock: Clock | None = None,
        limits: LinkLimits = _DEFAULT_LIMITS,
    ) -> None:
        self._urls = addresses(urls)
        self._parameters = [parameters_of(url, "events", limits) for url in self._urls]
        self._topology = topology
        self._patterns = topology.events_patterns(workflow_id, instance_id, event)
        self._observer = observer
        self._deadline_seconds = deadline_seconds
        self._clock = clock or SystemClock()
        self._limits = limits
        # The prefetch bounds it: what is not taken out is not acknowledged.
        self._inbox: asyncio.Queue[AbstractIncomingMessage | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._error: BrokerUnavailableError | None = None

    async def __aenter__(self) -> Self:
        subscribed = asyncio.Event()
        self._task = asyncio.create_task(self._subscribe_forever(subscribed))
        self._task.add_done_callback(self._broke)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await subscribed.wait()
        except TimeoutError:
            await self.close()
            raise self._error or BrokerUnavailableError("no connection to RabbitMQ in time") from None
        except asyncio.CancelledError:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event | None]:
        while True:
            message = await self._inbox.get()
            if message is None:
                yield None
                continue
            if isinstance(message, BaseException):
                raise message
            if not message.channel.is_closed:
                await message.ack()
            if message.type == PROBE:
                continue
            try:
                data = decode(message.body, nesting=MAX_WRAPPED_NESTING)
                if not isinstance(data, dict):
                    raise InvalidMessageError(f"an event is a JSON object, not {type(data).__name__}")
            except InvalidMessageError as error:
                log.warning("event with key %r: %s", message.routing_key, error)
                continue
            yield Event(message.routing_key or "", data)

    async def close(self) -> None:
        """Unsubscribe and disconnect."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _subscribe_forever(self, subscribed: asyncio.Event) -> None:
        failures = 0
        for attempt in itertools.count(first_of(self._urls, self._clock)):
            index = attempt % len(self._urls)
            try:
                await self._subscribe(self._urls[index], subscribed)
                failures = 0
            except (AMQPError, OSError) as error:
                parameters = self._parameters[index]
                self._error = connection_error(f"{parameters.host}:{parameters.port}", error)
                log.debug("events: %s", self._error)
            await asyncio.sleep(back_off(failures, self._limits, self._clock))
            failures += 1

    async def _subscribe(self, url: str, subscribed: asyncio.Event) -> None:
        """Until the connection is lost. Not aio-pika's robust kind: on 4.3 that dies of its own consumer tags."""
        connection = await aio_pika.connect(url, timeout=self._limits.connect_timeout_seconds)
        try:
            lost = asyncio.Event()
            connection.close_callbacks.add(lambda *_: lost.set())
            channel = await connection.channel()
            channel.close_callbacks.add(lambda *_: lost.set())
            await channel.set_qos(prefetch_count=_PREFETCH)
            observer = self._observer or self._user(url)
            name = f"{self._topology.observers_queue(observer)}.{self._clock.token_bytes(8).hex()}"
            queue = await channel.declare_queue(
                name, exclusive=True, auto_delete=True, arguments={"x-max-length": _MAX_WAITING}
            )
            for pattern in self._patterns:
                await queue.bind(self._topology.events_exchange, pattern)
            await queue.consume(self._received)
            if subscribed.is_set():
                self._inbox.put_nowait(None)
            subscribed.set()
            await lost.wait()
        finally:
            await connection.close()

    def _broke(self, task: asyncio.Task[None]) -> None:
        """It only ends by a mistake of ours, and whoever iterates must not wait for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._inbox.put_nowait(error)

    async def _received(self, message: AbstractIncomingMessage) -> None:
        self._inbox.put_nowait(message)

    def _user(self, url: str) -> str:
        credentials = self._parameters[self._urls.index(url)].credentials
        return str(getattr(credentials, "username", "guest"))

"""A link for asyncio code: the worker. The same `Link`, on the running loop, with awaitable calls beside the callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar

from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.link import Link
from fuseline.amqp.loops import AsyncioLoop
from fuseline.amqp.resources import PrivateQueue, QueueCount, Resource, Verdict
from fuseline.amqp.server import ServerInfo
from fuseline.clock import Clock, SystemClock
from fuseline.errors import DeadlineExceededError, FuselineError

Result = TypeVar("Result")

_DEFAULT_LIMITS = LinkLimits()


class AsyncLink:
    """A `Link` on the running asyncio loop. Made, used and closed on that loop; it connects at once.

    The awaitable calls raise the errors that `Link` describes for them. Cancelling one stops the waiting, not what was
    sent. `link` is the link itself, for callbacks without a future per message.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        name: str,
        clock: Clock | None = None,
        limits: LinkLimits = _DEFAULT_LIMITS,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[FuselineError], None] | None = None,
        on_blocked: Callable[[bool], None] | None = None,
        on_notice: Callable[[Delivery], None] | None = None,
    ) -> None:
        self._up = asyncio.Event()
        self._tell_up = on_up
        self._tell_down = on_down
        self.link = Link(
            urls,
            AsyncioLoop(),
            name=name,
            clock=clock or SystemClock(),
            limits=limits,
            on_up=self._went_up,
            on_down=self._went_down,
            on_blocked=on_blocked,
            on_notice=on_notice,
        )
        self.link.start()

    async def connect(self, deadline_seconds: float) -> ServerInfo:
        """Wait until the link is up, and say what server it is."""
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._up.wait()
        except TimeoutError:
            raise self.link.last_error or DeadlineExceededError("no connection to RabbitMQ in time") from None
        assert self.link.server is not None
        return self.link.server

    async def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        deadline_seconds: float,
        mandatory: bool = True,
    ) -> None:
        """Send one message; return when RabbitMQ has confirmed it."""
        future: _Outcome[None] = _Outcome()
        self.link.publish(
            exchange,
            key,
            body,
            properties,
            on_done=future.done,
            deadline_seconds=deadline_seconds,
            mandatory=mandatory,
        )
        await future.wait()

    async def rpc(
        self, exchange: str, key: str, body: bytes, properties: Properties, *, deadline_seconds: float
    ) -> Delivery:
        """Send a request and return its answer."""
        future: _Outcome[Delivery] = _Outcome()
        self.link.rpc(
            exchange, key, body, properties, on_reply=future.done, deadline_seconds=deadline_seconds
        )
        return await future.wait()

    async def get(self, queue: str, *, deadline_seconds: float) -> Delivery | None:
        """Take one message, or None when there is none."""
        future: _Outcome[Delivery | None] = _Outcome()
        self.link.get(queue, future.done, deadline_seconds=deadline_seconds)
        return await future.wait()

    async def declare(self, resources: Sequence[Resource], *, deadline_seconds: float) -> None:
        """Declare all, in order."""
        future: _Outcome[None] = _Outcome()
        self.link.declare(resources, future.done, deadline_seconds=deadline_seconds)
        await future.wait()

    async def verify(self, resources: Sequence[Resource], *, deadline_seconds: float) -> list[Verdict]:
        """Compare the server with `resources`, changing nothing."""
        future: _Outcome[list[Verdict]] = _Outcome()
        self.link.verify(resources, future.done, deadline_seconds=deadline_seconds)
        return await future.wait()

    async def count(self, queue: str, *, deadline_seconds: float) -> QueueCount | None:
        """Ready messages and consumers of a queue; None when it does not exist."""
        future: _Outcome[QueueCount | None] = _Outcome()
        self.link.count(queue, future.done, deadline_seconds=deadline_seconds)
        return await future.wait()

    def consume(
        self,
        queue: str | PrivateQueue,
        prefetch: int,
        on_message: Callable[[Delivery], None],
        on_batch_end: Callable[[], None] | None = None,
        on_lost: Callable[[FuselineError], None] | None = None,
    ) -> Consumer:
        """Consume a queue; see `Link.consume`."""
        return self.link.consume(queue, prefetch, on_message, on_batch_end, on_lost)

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Acknowledge. Nothing happens to a stale delivery."""
        self.link.ack(delivery, multiple=multiple)

    def nack(self, delivery: Delivery, *, requeue: bool) -> None:
        """Hand back or dead-letter. Nothing happens to a stale delivery."""
        self.link.nack(delivery, requeue=requeue)

    async def close(self, drain_seconds: float = 5.0) -> None:
        """Wait for publishes under way and disconnect."""
        future: _Outcome[None] = _Outcome()
        self.link.close(drain_seconds, lambda: future.done(None))
        await future.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def _went_up(self) -> None:
        self._up.set()
        if self._tell_up is not None:
            self._tell_up()

    def _went_down(self, error: FuselineError) -> None:
        self._up.clear()
        if self._tell_down is not None:
            self._tell_down(error)


class _Outcome(Generic[Result]):
    """What a link's callback will say, whether or not somebody still waits for it."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Result | FuselineError] = asyncio.get_running_loop().create_future()

    def done(self, outcome: Result | FuselineError) -> None:
        """The callback."""
        if not self._future.done():
            self._future.set_result(outcome)

    async def wait(self) -> Result:
        """The result; raises the error."""
        outcome = await self._future
        if isinstance(outcome, FuselineError):
            raise outcome
        return outcome

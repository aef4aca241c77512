"""What the tests of the AMQP layer share: the same blocking calls on both kinds of loop, and looking from outside."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

import pika
import uvloop
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from fuseline.amqp import codec
from fuseline.amqp.aio import AsyncLink
from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.resources import Exchange, PrivateQueue, Queue, QueueCount, Resource, Verdict
from fuseline.amqp.server import ServerInfo
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.clock import SystemClock
from fuseline.errors import FuselineError

CLOCK = SystemClock()
SECONDS = 20.0
"""For waits that end long before."""

Result = TypeVar("Result")


def props(message_type: str = codec.REPORT, **more: Any) -> Properties:
    """Properties of a message of ours."""
    return codec.properties(message_type, message_id=CLOCK.new_id(), timestamp=CLOCK.now(), **more)


class AnyLink(Protocol):
    """What `BackgroundLink` and `ThreadedAsyncLink` have in common."""

    @property
    def link(self) -> Link: ...
    def connect(self, deadline_seconds: float) -> ServerInfo: ...
    def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        deadline_seconds: float,
        mandatory: bool = True,
    ) -> None: ...
    def rpc(
        self, exchange: str, key: str, body: bytes, properties: Properties, *, deadline_seconds: float
    ) -> Delivery: ...
    def get(self, queue: str, *, deadline_seconds: float) -> Delivery | None: ...
    def declare(self, resources: Sequence[Resource], *, deadline_seconds: float) -> None: ...
    def verify(self, resources: Sequence[Resource], *, deadline_seconds: float) -> list[Verdict]: ...
    def count(self, queue: str, *, deadline_seconds: float) -> QueueCount | None: ...
    def close(self, drain_seconds: float = 5.0) -> None: ...


class ThreadedAsyncLink:
    """An `AsyncLink` on a uvloop in a thread, so that one test speaks to both kinds."""

    def __init__(self, url: str | Sequence[str], **options: Any) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def make() -> AsyncLink:
            return AsyncLink(url, **options)

        self._link = self._run(make())

    def _run(self, call: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(60)

    @property
    def link(self) -> Link:
        return self._link.link

    def close(self, drain_seconds: float = 5.0) -> None:
        if self._loop.is_closed():
            return
        self._run(self._link.close(drain_seconds))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._link, name)
        return lambda *args, **options: self._run(method(*args, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def make_link(kind: str, url: str | Sequence[str], **options: Any) -> AnyLink:
    """A link on the loop `kind` (select or asyncio), whose calls block."""
    options.setdefault("name", "test")
    link: AnyLink = BackgroundLink(url, **options) if kind == "select" else ThreadedAsyncLink(url, **options)
    return link


def on_thread(link: AnyLink, call: Callable[[Link], Result]) -> Result:
    """Run `call` on the link's thread and return its value."""
    answers: queue.Queue[Result] = queue.Queue()
    link.link.call_soon_threadsafe(lambda: answers.put(call(link.link)))
    return answers.get(timeout=SECONDS)


class Taker:
    """A consumer that keeps what it is given: deliveries, ends of batches (None) and losses, in order."""

    def __init__(
        self, link: AnyLink, source: str | PrivateQueue, prefetch: int = 10, ack: bool = False
    ) -> None:
        self.events: queue.Queue[Delivery | FuselineError | None] = queue.Queue()
        self._link = link
        self._ack = ack
        self.consumer = on_thread(
            link,
            lambda one: one.consume(
                source, prefetch, self._took, lambda: self.events.put(None), self.events.put
            ),
        )

    def _took(self, delivery: Delivery) -> None:
        if self._ack:
            self._link.link.ack(delivery)
        self.events.put(delivery)

    def delivery(self) -> Delivery:
        """The next delivery; what else happened before is skipped."""
        while not isinstance(event := self.events.get(timeout=SECONDS), Delivery):
            pass
        return event

    def loss(self) -> FuselineError:
        """The next loss."""
        while not isinstance(event := self.events.get(timeout=SECONDS), FuselineError):
            pass
        return event

    def ack(self, delivery: Delivery, multiple: bool = False) -> None:
        on_thread(self._link, lambda one: one.ack(delivery, multiple=multiple))


class Burst:
    """Many publishes at once, and what became of each."""

    def __init__(self, link: AnyLink, deadline_seconds: float = SECONDS) -> None:
        self._link = link
        self._deadline_seconds = deadline_seconds
        self._count = 0
        self._answers: queue.Queue[tuple[int, FuselineError | None]] = queue.Queue()

    def publish(self, messages: Sequence[tuple[str, str, bytes]], mandatory: bool = True) -> None:
        """Hand (exchange, key, body) messages to the link in one turn of its loop."""
        first = self._count
        self._count += len(messages)

        def run(link: Link) -> None:
            for index, (exchange, key, body) in enumerate(messages, first):
                link.publish(
                    exchange,
                    key,
                    body,
                    props(),
                    on_done=lambda error, index=index: self._answers.put((index, error)),  # type: ignore[misc]
                    deadline_seconds=self._deadline_seconds,
                    mandatory=mandatory,
                )

        on_thread(self._link, run)

    def answers(self) -> list[FuselineError | None]:
        """What became of each message, in the order of publishing; each is answered once."""
        found: dict[int, FuselineError | None] = {}
        for _ in range(self._count):
            index, error = self._answers.get(timeout=SECONDS + self._deadline_seconds)
            assert index not in found
            found[index] = error
        assert self._answers.empty()
        return [found[index] for index in range(self._count)]


@contextmanager
def outside(url: str) -> Iterator[BlockingChannel]:
    """A channel of somebody else, to look and to do damage."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def delete_all(url: str, queues: Sequence[str], exchanges: Sequence[str]) -> None:
    """Remove what a test declared."""
    with outside(url) as channel:
        for name in queues:
            channel.queue_delete(name)
        for name in exchanges:
            channel.exchange_delete(name)


def delete_topology(url: str, topology: Topology, versions: Iterable[tuple[str, str]]) -> None:
    """Remove what was declared for an installation and for these workflow versions."""
    resources = topology.base_resources()
    for key in versions:
        resources += topology.workflow_resources(*key)
    delete_all(
        url,
        [one.name for one in resources if isinstance(one, Queue)],
        [one.name for one in resources if isinstance(one, Exchange)],
    )


def drain(url: str, source: str) -> list[bytes]:
    """Take everything out of a queue."""
    bodies: list[bytes] = []
    with outside(url) as channel:
        while True:
            method, _, body = channel.basic_get(source, auto_ack=True)
            if method is None:
                return bodies
            bodies.append(bytes(body or b""))


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for what happens in another process, which nobody tells us of."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def exists(url: str, name: str) -> bool:
    """Whether there is such a queue."""
    try:
        with outside(url) as channel:
            channel.queue_declare(name, passive=True)
    except ChannelClosedByBroker:
        return False
    return True

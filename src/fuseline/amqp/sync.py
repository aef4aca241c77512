"""A link for ordinary blocking code: `AmqpBroker`, command line tools, tests."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from fuseline.amqp.codec import Properties
from fuseline.amqp.connection import addresses, parameters_of
from fuseline.amqp.consuming import Consumer, Delivery
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.link import Link
from fuseline.amqp.loops import SelectLoop
from fuseline.amqp.resources import PrivateQueue, QueueCount, Resource, Verdict
from fuseline.amqp.server import ServerInfo
from fuseline.clock import Clock, SystemClock
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, FuselineError

Result = TypeVar("Result")

_DEFAULT_LIMITS = LinkLimits()
# The link itself ends every call at its deadline. This much later the thread must be dead.
_GRACE_SECONDS = 5.0
_CLOSE_SECONDS = 10.0


@dataclass(eq=False)
class _Running:
    """A link with its loop and thread, and the calls that wait for it."""

    link: Link
    loop: SelectLoop
    thread: threading.Thread
    waiting: set[Future[Any]] = field(default_factory=set)
    is_over: bool = False


class BackgroundLink:
    """A `Link` on a loop in a daemon thread, with calls that block up to a deadline and are safe from any thread.

    Each call raises the errors that `Link` describes for it. The thread starts with the first call. After a fork the
    child has a link of its own, which connects anew at its first call; deliveries taken before the fork are the
    parent's. Callbacks (`on_notice`, `on_up`, `on_down`, consumers') run on the link's thread and must not block.

    Raises `CallerError` when a URL is no AMQP address.
    """

    _lock: threading.Lock
    _running: _Running | None

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
        self._urls = addresses(urls)
        for url in self._urls:
            parameters_of(url, name, limits)
        self._name = name
        self._clock = clock or SystemClock()
        self._limits = limits
        self._callbacks: dict[str, Any] = {
            "on_up": on_up,
            "on_down": on_down,
            "on_blocked": on_blocked,
            "on_notice": on_notice,
        }
        self._is_closed = False
        self._forget()
        _alive.add(self)

    # -- calls

    def connect(self, deadline_seconds: float) -> ServerInfo:
        """Wait until the link is up, and say what server it is. Other calls connect by themselves."""

        def begin(link: Link, done: Callable[[ServerInfo | FuselineError], None]) -> None:
            waits = self._clock.monotonic() + deadline_seconds

            def look() -> None:
                if link.is_up and link.server is not None:
                    done(link.server)
                elif self._clock.monotonic() >= waits:
                    done(link.last_error or BrokerUnavailableError("no connection to RabbitMQ in time"))
                else:
                    link.call_later(0.01, look)

            look()

        return self._call(begin, deadline_seconds)

    def publish(
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

        def begin(link: Link, done: Callable[[FuselineError | None], None]) -> None:
            link.publish(
                exchange,
                key,
                body,
                properties,
                on_done=done,
                deadline_seconds=deadline_seconds,
                mandatory=mandatory,
            )

        self._call(begin, deadline_seconds)

    def rpc(
        self, exchange: str, key: str, body: bytes, properties: Properties, *, deadline_seconds: float
    ) -> Delivery:
        """Send a request and return its answer."""
        return self.begin_rpc(exchange, key, body, properties, deadline_seconds=deadline_seconds)()

    def begin_rpc(
        self, exchange: str, key: str, body: bytes, properties: Properties, *, deadline_seconds: float
    ) -> Callable[[], Delivery]:
        """Send a request without waiting; what is returned waits for its answer and returns it, or raises."""

        def begin(link: Link, done: Callable[[Delivery | FuselineError], None]) -> None:
            link.rpc(exchange, key, body, properties, on_reply=done, deadline_seconds=deadline_seconds)

        return self._begin(begin, deadline_seconds)

    def get(self, queue: str, *, deadline_seconds: float) -> Delivery | None:
        """Take one message, or None when there is none."""

        def begin(link: Link, done: Callable[[Delivery | FuselineError | None], None]) -> None:
            link.get(queue, done, deadline_seconds=deadline_seconds)

        return self._call(begin, deadline_seconds)

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Acknowledge, without waiting. Nothing happens to a stale delivery."""
        self._cast(lambda link: link.ack(delivery, multiple=multiple))

    def nack(self, delivery: Delivery, *, requeue: bool) -> None:
        """Hand back or dead-letter, without waiting. Nothing happens to a stale delivery."""
        self._cast(lambda link: link.nack(delivery, requeue=requeue))

    def consume(
        self,
        queue: str | PrivateQueue,
        prefetch: int,
        on_message: Callable[[Delivery], None],
        on_batch_end: Callable[[], None] | None = None,
        on_lost: Callable[[FuselineError], None] | None = None,
    ) -> Callable[[], None]:
        """Consume a queue; the callbacks run on the link's thread. Call what is returned to stop."""
        consumers: list[Consumer] = []
        self._cast(
            lambda link: consumers.append(link.consume(queue, prefetch, on_message, on_batch_end, on_lost))
        )
        return lambda: self._cast(lambda _link: consumers[0].cancel())

    def declare(self, resources: Sequence[Resource], *, deadline_seconds: float) -> None:
        """Declare all, in order."""

        def begin(link: Link, done: Callable[[FuselineError | None], None]) -> None:
            link.declare(resources, done, deadline_seconds=deadline_seconds)

        self._call(begin, deadline_seconds)

    def verify(self, resources: Sequence[Resource], *, deadline_seconds: float) -> list[Verdict]:
        """Compare the server with `resources`, changing nothing."""

        def begin(link: Link, done: Callable[[list[Verdict] | FuselineError], None]) -> None:
            link.verify(resources, done, deadline_seconds=deadline_seconds)

        return self._call(begin, deadline_seconds)

    def count(self, queue: str, *, deadline_seconds: float) -> QueueCount | None:
        """Ready messages and consumers of a queue; None when it does not exist."""

        def begin(link: Link, done: Callable[[QueueCount | FuselineError | None], None]) -> None:
            link.count(queue, done, deadline_seconds=deadline_seconds)

        return self._call(begin, deadline_seconds)

    @property
    def link(self) -> Link:
        """The link itself, for code that runs on its thread (`call_soon_threadsafe` gets it there)."""
        return self._started().link

    # -- life

    def close(self, drain_seconds: float = 5.0) -> None:
        """Wait for publishes under way, disconnect, end the thread. Calls that wait are ended; more are refused."""
        with self._lock:
            self._is_closed = True
            running, self._running = self._running, None
        _alive.discard(self)
        if running is None:
            return
        link, loop, thread = running.link, running.loop, running.thread
        if thread is threading.current_thread():
            raise RuntimeError("a callback on the link's thread cannot wait for that thread to end")
        link.call_soon_threadsafe(lambda: link.close(drain_seconds, loop.stop))
        thread.join(drain_seconds + _CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside

    def _forget(self) -> None:
        """Begin with nothing. In a forked child neither the lock nor the thread of the parent is of any use."""
        self._lock = threading.Lock()
        self._running = None

    def _started(self) -> _Running:
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailableError("the link to RabbitMQ is closed")
            if self._running is None:
                self._running = self._start()
            return self._running

    def _start(self) -> _Running:
        loop = SelectLoop()
        link = Link(
            self._urls, loop, name=self._name, clock=self._clock, limits=self._limits, **self._callbacks
        )
        thread = threading.Thread(
            target=lambda: self._run(running), name=f"fuseline {self._name}", daemon=True
        )
        running = _Running(link, loop, thread)
        thread.start()
        return running

    def _run(self, running: _Running) -> None:
        running.link.start()
        try:
            running.loop.run()
        except BaseException:
            # A callback raised, which is for the thread's hook to tell. The next call starts a new link.
            self._retire(running)
            running.link.close(0, running.loop.stop)
            running.loop.run()
            raise
        finally:
            self._retire(running)
            with self._lock:
                running.is_over = True
            running.loop.close()
            for future in running.waiting:
                future.set_result(BrokerUnavailableError("the link's thread ended"))

    def _retire(self, running: _Running) -> None:
        with self._lock:
            if self._running is running:
                self._running = None

    def _cast(self, action: Callable[[Link], Any]) -> None:
        link = self._started().link
        link.call_soon_threadsafe(lambda: action(link))

    def _call(
        self,
        begin: Callable[[Link, Callable[[Result | FuselineError], None]], None],
        deadline_seconds: float,
    ) -> Result:
        return self._begin(begin, deadline_seconds)()

    def _begin(
        self,
        begin: Callable[[Link, Callable[[Result | FuselineError], None]], None],
        deadline_seconds: float,
    ) -> Callable[[], Result]:
        future: Future[Result | FuselineError] = Future()
        running = self._started()
        if running.thread is threading.current_thread():
            raise RuntimeError("a callback on the link's thread cannot wait for that thread; use `link`")

        def done(outcome: Result | FuselineError) -> None:
            with self._lock:
                running.waiting.discard(future)
            future.set_result(outcome)

        with self._lock:
            if running.is_over:
                raise BrokerUnavailableError("the link's thread ended")
            running.waiting.add(future)
        running.link.call_soon_threadsafe(lambda: begin(running.link, done))

        def result() -> Result:
            try:
                outcome = future.result(deadline_seconds + _GRACE_SECONDS)
            except FutureTimeoutError:
                raise DeadlineExceededError("the link's thread does not answer") from None
            if isinstance(outcome, FuselineError):
                raise outcome
            return outcome

        return result


_alive: weakref.WeakSet[BackgroundLink] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_alive):
        link._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""`Worker`: one class over every broker. It finds out how to get its steps from what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final, Protocol

from fuseline import broker as brokers
from fuseline.amqp.connection import addresses
from fuseline.amqp.topology import Topology
from fuseline.amqp.traffic import Traffic
from fuseline.broker.amqp import AmqpBroker
from fuseline.broker.base import Broker
from fuseline.broker.lane import lane_of
from fuseline.clock import Clock, SystemClock
from fuseline.errors import CallerError
from fuseline.notify import Notifier
from fuseline.settings import Settings
from fuseline.worker.amqp_source import AmqpSource
from fuseline.worker.child_main import child_main
from fuseline.worker.executors import Executor, LoopExecutor, ProcessExecutor, ThreadExecutor
from fuseline.worker.executors.loops import new_event_loop
from fuseline.worker.lane_source import LaneSource
from fuseline.worker.options import ExecutorName, Options
from fuseline.worker.pull import PullSource
from fuseline.worker.reports import Sealer
from fuseline.worker.slots import Slots
from fuseline.worker.workflows import WorkflowCatalog, WorkflowLike

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_IDLE_SECONDS_AMQP: Final = 1.0
_IDLE_SECONDS_PULL: Final = 0.2


class _Source(Protocol):
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Amqp:
    """Where the queues are."""

    urls: list[str]
    topology: Topology


class Worker:
    """Executes steps of `workflows` until it is stopped.

    `broker_or_url`: `amqp://` (several with commas between) or an `AmqpBroker`, whose queues it consumes; `http://` of a
    Fuseline service; or any `Broker`. `workflows`: `Workflow` objects, or `module:attribute` texts.

    `concurrency` steps run at once; by default as many as suit the `executor` ("thread", "process", "async"; see
    `Options`). `drain_seconds`: how long it finishes what it has when it is stopped. What is not given comes from
    `settings`, which come from the environment.

    Raises `LoadError` for a workflow that cannot be loaded, `CallerError` for other arguments that make no sense.
    """

    def __init__(
        self,
        broker_or_url: Broker | str,
        workflows: WorkflowLike | Iterable[WorkflowLike],
        *,
        concurrency: int | None = None,
        executor: ExecutorName = "thread",
        drain_seconds: float | None = None,
        topology: Topology | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        settings = settings or Settings()
        self._clock = clock or SystemClock()
        self._notifier = notifier or Notifier({})
        self._options = Options.of(
            settings, concurrency=concurrency, executor=executor, drain_seconds=drain_seconds
        )
        self._target = _target(broker_or_url, topology or Topology(settings.prefix, settings.queue_type))
        self.worker_id = self._clock.new_id()
        # A broker that is asked for steps gives the worker an id of its own.
        own_id = self.worker_id if isinstance(self._target, _Amqp) else None
        self._sealer = Sealer(self._clock, settings.max_message_bytes, own_id)
        self._catalog = WorkflowCatalog.of(workflows, self._sealer)
        self._targets = self._catalog.targets() if executor == "process" else []
        self._lock = threading.Lock()
        self._source: _Source | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0

    def run(self) -> int:
        """Work until SIGTERM, SIGINT or `stop`; returns how many attempts were executed.

        The first signal lets it finish what it has, the second ends it at once. Signals are handled where Python lets
        them be: on the main thread. Raises `SchemaConflictError` when a workflow version is known with another graph,
        and `FatalError` when it cannot go on.
        """
        with self._handling_signals():
            return self._run(None)

    def run_until_idle(self, idle_seconds: float | None = None) -> int:
        """Work until no step has come and none has run for `idle_seconds`: for tests and scripts.

        By default that is as long as a successor needs to come round: 1 s over AMQP, else 0.2 s.
        """
        if idle_seconds is None:
            idle_seconds = _IDLE_SECONDS_AMQP if isinstance(self._target, _Amqp) else _IDLE_SECONDS_PULL
        return self._run(idle_seconds)

    @property
    def traffic(self) -> Traffic:
        """What it has exchanged with RabbitMQ while it runs; nothing over other brokers. Any thread may ask."""
        source = self._source
        return source.traffic if isinstance(source, AmqpSource) else Traffic()

    def stop(self) -> None:
        """Make `run` finish what it has and return; at the second call, at once. From any thread."""
        with self._lock:
            self._stops += 1
            source, loop = self._source, self._loop
            if source is None:
                return
            if loop is None:
                source.stop()
            else:
                loop.call_soon_threadsafe(source.stop)

    # ---- inside

    def _run(self, idle_seconds: float | None) -> int:
        loops = LoopExecutor()
        slots = Slots(self._options.concurrency, self._sync_executor(), loops)
        try:
            slots.prepare()
            if isinstance(self._target, _Amqp):
                return self._run_amqp(self._target, slots, idle_seconds)
            return self._run_pull(self._target, slots, idle_seconds)
        finally:
            self._catalog.end(loops.run)
            slots.close()

    def _sync_executor(self) -> Executor:
        if self._options.executor == "process":
            args = (self._targets, self._sealer.max_bytes, self._sealer.worker_id)
            return ProcessExecutor(child_main, args, self._sealer, self._options.concurrency)
        return ThreadExecutor()

    def _run_amqp(self, target: _Amqp, slots: Slots, idle_seconds: float | None) -> int:
        source = AmqpSource(
            target.urls,
            target.topology,
            self._catalog,
            slots,
            self._sealer,
            self._options,
            self._clock,
            self._notifier,
            self.worker_id,
        )
        with asyncio.Runner(loop_factory=new_event_loop) as runner, self._running(source, runner.get_loop()):
            return runner.run(source.run(idle_seconds))

    def _run_pull(self, target: Broker | str, slots: Slots, idle_seconds: float | None) -> int:
        broker = brokers.HttpBroker(target) if isinstance(target, str) else target
        rest = self._catalog, slots, self._sealer, self._options, self._clock, self._notifier
        lane = lane_of(broker)
        source = PullSource(broker, *rest) if lane is None else LaneSource(lane, *rest)
        try:
            with self._running(source, None):
                return source.run(idle_seconds)
        finally:
            if broker is not target:
                broker.close()

    @contextlib.contextmanager
    def _running(self, source: _Source, loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
        with self._lock:
            self._source, self._loop = source, loop
            for _ in range(self._stops):  # before it ran
                source.stop()
        try:
            yield
        finally:
            with self._lock:
                self._source = self._loop = None
                self._stops = 0

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(_number: int, _frame: FrameType | None) -> None:
            # Not here: the handler may have interrupted whoever holds the lock.
            threading.Thread(target=self.stop, name="fuseline stop").start()

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _target(broker_or_url: Broker | str, topology: Topology) -> _Amqp | Broker | str:
    if isinstance(broker_or_url, AmqpBroker):
        url = broker_or_url.url
        return _Amqp(addresses(url), broker_or_url.topology)
    if isinstance(broker_or_url, Broker):
        return broker_or_url
    scheme = str(broker_or_url).partition("://")[0].lower()
    if scheme in ("amqp", "amqps"):
        return _Amqp(addresses(broker_or_url), topology)
    if scheme in ("http", "https"):
        return broker_or_url
    raise CallerError(f"{broker_or_url!r} is neither a Broker nor an amqp:// or http:// URL")

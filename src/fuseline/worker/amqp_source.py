"""The worker on RabbitMQ: connects, registers, consumes until it is told to stop, drains."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from fuseline.amqp.aio import AsyncLink
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.topology import Topology
from fuseline.amqp.traffic import Traffic
from fuseline.amqp.wire import ControlKind, ControlNotice, read
from fuseline.clock import Clock
from fuseline.errors import FuselineError, InvalidMessageError, RetryableError
from fuseline.notify import Notifier
from fuseline.worker.attempts import Attempts
from fuseline.worker.catalog import Catalog
from fuseline.worker.intake import Intake
from fuseline.worker.options import Options
from fuseline.worker.outgoing import Outgoing
from fuseline.worker.reports import Sealer
from fuseline.worker.slots import Slots

log = logging.getLogger(__name__)

REGISTER_SECONDS: Final = (1.0, 30.0)
"""The first pause before a coordinator that did not answer is asked again, and the longest."""
HAND_BACK_SECONDS: Final = 5.0
HAND_BACK_NOW_SECONDS: Final = 1.0


class AmqpSource:
    """One worker's life on a RabbitMQ. Made anywhere, then `run` on a loop; `stop` is for that loop's thread."""

    def __init__(
        self,
        urls: str | Sequence[str],
        topology: Topology,
        catalog: Catalog,
        slots: Slots,
        sealer: Sealer,
        options: Options,
        clock: Clock,
        notifier: Notifier,
        worker_id: str,
        limits: LinkLimits | None = None,
    ) -> None:
        self._urls = urls
        self._topology = topology
        self._catalog = catalog
        self._slots = slots
        self._clock = clock
        self._options = options
        self._notifier = notifier
        self._limits = limits or LinkLimits()
        self.worker_id = worker_id
        self._sealer = sealer
        self._stopping: asyncio.Event | None = None
        self._now: asyncio.Event | None = None
        self._changed: asyncio.Event | None = None
        self._stops = 0
        self._fatal: FuselineError | None = None
        self._attempts: Attempts | None = None
        self._outgoing: Outgoing | None = None
        self._is_reregistering = False
        self._traffic: Callable[[], Traffic] = Traffic
        self.is_ready = False

    @property
    def traffic(self) -> Traffic:
        """What it exchanged with RabbitMQ so far; any thread may ask."""
        return self._traffic()

    def stop(self) -> None:
        """Drain and leave; at the second call, at once."""
        self._stops += 1
        if self._stopping is not None and self._now is not None:
            (self._stopping if self._stops == 1 else self._now).set()

    async def run(self, idle_seconds: float | None = None) -> int:
        """Work until `stop`, or until nothing came and nothing ran for `idle_seconds`; returns how many attempts ran.

        Raises `SchemaConflictError` when a workflow version is known with another graph, and `FatalError`s. A RabbitMQ
        or a coordinator that is away is waited for.
        """
        self._stopping, self._now, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if self._stops:
            self._stopping.set()
        if self._stops > 1:
            self._now.set()
        link = AsyncLink(
            self._urls,
            name=f"fuseline worker {self.worker_id}",
            clock=self._clock,
            limits=self._limits,
            on_up=self._came_up,
            on_down=self._went_down,
            on_blocked=self._blocked,
            on_notice=self._noticed,
        )
        self._traffic = lambda: link.link.traffic
        self._outgoing = Outgoing(link.link, self._topology, self._clock, self.worker_id)
        self._attempts = attempts = Attempts(
            self._catalog,
            self._slots,
            self._outgoing,
            self._sealer,
            self._options,
            self._clock,
            self.worker_id,
            on_change=self._changed.set,
            on_fatal=self._give_up,
            on_missing=self._reregister,
            on_abandoned=lambda: self._notifier.status(self._slots.told()),
        )
        queues = [self._topology.steps_queue(*key) for key in self._catalog.keys]
        attempts.intake = Intake(link.link, queues, attempts.receive, attempts.pump, attempts.lost)
        helpers: list[asyncio.Task[None]] = []
        try:
            if await self._register():
                attempts.intake.resize(self._options.concurrency)
                helpers = [asyncio.create_task(one) for one in self._helpers(attempts, idle_seconds)]
                self._serving()
                await self._stopping.wait()
        finally:
            self._notifier.stopping()
            await self._drain(attempts)
            for helper in helpers:
                helper.cancel()
            attempts.close()
            self._outgoing.is_closed = True
            await link.close(0.0 if self._stops > 1 else 5.0)
        if self._fatal is not None:
            raise self._fatal
        return attempts.executed

    # ---- registering

    async def _register(self) -> bool:
        """Make the worker known; False when it is told to stop before anybody answered."""
        assert self._stopping is not None
        assert self._outgoing is not None
        args = self._registration()
        pause = REGISTER_SECONDS[0]
        while not self._stopping.is_set():
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._outgoing.ask("register", args, partial(_settle, answer), self._options.call_seconds)
            outcome = await _first(answer, self._stopping.wait())
            if outcome is None:
                break
            if not isinstance(outcome, FuselineError):
                return True
            if not isinstance(outcome, RetryableError):
                raise outcome
            log.warning("waiting for a coordinator, asking again in %.0f s: %s", pause, outcome)
            self._notifier.status(f"waiting for a coordinator: {outcome}")
            await _first(asyncio.sleep(pause, True), self._stopping.wait())
            pause = min(pause * 2, REGISTER_SECONDS[1])
        return False

    def _registration(self) -> dict[str, Any]:
        return {
            "workflows": [schema.model_dump(mode="json") for schema in self._catalog.schemas],
            "worker_id": self.worker_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def _reregister(self) -> None:
        """A queue was deleted: registering makes a coordinator declare it. Without an answer the next loss asks again."""
        if self._outgoing is not None and not self._is_reregistering and not self._stops:
            self._is_reregistering = True
            self._outgoing.ask(
                "register", self._registration(), self._reregistered, self._options.call_seconds
            )

    def _reregistered(self, outcome: Any | FuselineError) -> None:
        self._is_reregistering = False
        if isinstance(outcome, FuselineError):
            log.warning("a queue is gone, and no coordinator has declared it yet: %s", outcome)

    def _serving(self) -> None:
        names = ", ".join(f"{workflow_id} {version}" for workflow_id, version in self._catalog.keys)
        log.info("worker %s executes %s", self.worker_id, names, extra={"worker_id": self.worker_id})
        self.is_ready = True
        self._beat()
        self._notifier.ready(f"executing steps of {names}")

    # ---- what goes on beside

    def _helpers(self, attempts: Attempts, idle_seconds: float | None) -> list[Any]:
        helpers = [self._keep_beating()]
        if self._notifier.watchdog_seconds is not None:
            helpers.append(self._feed_watchdog(self._notifier.watchdog_seconds))
        if idle_seconds is not None:
            helpers.append(self._stop_when_idle(attempts, idle_seconds))
        return helpers

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat_seconds)
            self._beat()

    def _beat(self) -> None:
        assert self._outgoing is not None
        assert self._attempts is not None
        self._outgoing.beat(self._catalog.keys, self._attempts.held.leases(), self._options.heartbeat_seconds)

    async def _feed_watchdog(self, seconds: float) -> None:
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(seconds)

    async def _stop_when_idle(self, attempts: Attempts, idle_seconds: float) -> None:
        quiet_since = self._clock.monotonic()
        while (left := quiet_since + idle_seconds - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(left, idle_seconds / 4))
            if len(attempts.held) or not attempts.intake.is_consuming:
                quiet_since = self._clock.monotonic()
            quiet_since = max(quiet_since, attempts.last_activity)
        self.stop()

    # ---- RabbitMQ comes and goes, coordinators speak

    def _came_up(self) -> None:
        if self.is_ready:
            log.info("connected to RabbitMQ again")
            self._beat()  # the address of the old channel is gone, and a stop notice may have been sent to it

    def _went_down(self, error: FuselineError) -> None:
        if self._stopping is not None and not self._stopping.is_set():
            log.warning("no connection to RabbitMQ: %s", error)

    def _blocked(self, blocked: bool) -> None:
        log.warning(
            "RabbitMQ %s", "blocks publishers (a memory or disk alarm)" if blocked else "takes messages again"
        )

    def _noticed(self, delivery: Delivery) -> None:
        try:
            notice = read(ControlNotice, delivery.body)
        except InvalidMessageError as error:
            log.warning("a control notice cannot be read: %s", error)
            return
        if notice.worker_id is not None and notice.worker_id != self.worker_id:
            return
        if notice.kind is ControlKind.DRAIN:
            log.info("told to drain")
            if not self._stops:
                self.stop()
        elif self._attempts is not None:
            self._attempts.stop_meant(notice)

    def _give_up(self, error: FuselineError) -> None:
        log.error("the worker cannot go on: %s", error)
        self._fatal = self._fatal or error
        if not self._stops:
            self.stop()

    # ---- leaving

    async def _drain(self, attempts: Attempts) -> None:
        """Finish what runs within the grace time, hand back the rest."""
        attempts.drain()
        if len(attempts.held):
            log.info("finishing %d steps within %.0f s", len(attempts.held), self._options.drain_seconds)
        await self._until_empty(attempts, self._options.drain_seconds)
        attempts.hand_back()
        assert self._now is not None
        # A second call to stop leaves no more time than the hand-back itself needs.
        hurry = self._now.is_set()
        self._now.clear()
        await self._until_empty(attempts, HAND_BACK_NOW_SECONDS if hurry else HAND_BACK_SECONDS)

    async def _until_empty(self, attempts: Attempts, seconds: float) -> None:
        assert self._changed is not None
        assert self._now is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while len(attempts.held) and not self._now.is_set() and loop.time() < deadline:
            self._changed.clear()
            await _first(self._changed.wait(), self._now.wait(), asyncio.sleep(deadline - loop.time(), True))


def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    if not answer.done():
        answer.set_result(outcome)


async def _first(*waits: Awaitable[Any]) -> Any:
    """The outcome of the first that ends, None unless it is the first argument; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()

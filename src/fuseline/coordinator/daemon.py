"""The coordinator: takes reports, records them, queues what follows. One thread, one loop; storage is called on it.

Every call to storage is bounded by the storage's own timeouts, which are shorter than AMQP's heartbeat (ADR 0005).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.loops import SelectLoop, Timer
from fuseline.amqp.topology import Topology
from fuseline.amqp.traffic import Traffic
from fuseline.amqp.wire import Heartbeat, read
from fuseline.clock import Clock, SteadyClock
from fuseline.coordinator.answering import Answering
from fuseline.coordinator.bundles import slices_of
from fuseline.coordinator.commands import Commands
from fuseline.coordinator.declared import Declared
from fuseline.coordinator.decoding import read_dead_letter, read_report, read_spoilt_report
from fuseline.coordinator.early import EarlyReports
from fuseline.coordinator.hearing import Hearing
from fuseline.coordinator.intake import Intake
from fuseline.coordinator.mending import Mending
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import FEW, Pipeline
from fuseline.coordinator.reading import Source
from fuseline.coordinator.recording import Recording
from fuseline.coordinator.timers import Timers
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine import Rules
from fuseline.errors import (
    FuselineError,
    InvalidMessageError,
    RetryableError,
    StorageUnavailableError,
    TopologyError,
)
from fuseline.ledger import Ledger
from fuseline.notify import Notifier
from fuseline.storage.base import RuntimeStorage

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 10.0
STORAGE_RETRY_SECONDS = (0.2, 5.0)
WORK_SECONDS = 1.0
"""How long batches follow each other before RabbitMQ's heartbeats and the watchdog have their turn."""


class Coordinator:
    """Serves one topology with one storage until `stop`. Several may share a PostgreSQL database.

    `loop` is for simulations: what stands in for the loop, and so for RabbitMQ. So is `few`: see `Pipeline`.
    Raises `SecondCoordinatorError` from `run` when the storage admits no other, `TopologyError` when RabbitMQ has an
    exchange or queue of ours with other arguments.
    """

    def __init__(
        self,
        storage: RuntimeStorage,
        url: str | Sequence[str],
        *,
        topology: Topology | None = None,
        clock: Clock | None = None,
        rules: Rules | None = None,
        batch: int = 500,
        notifier: Notifier | None = None,
        on_ready: Callable[[], None] | None = None,
        loop: SelectLoop | None = None,
        few: int = FEW,
    ) -> None:
        self.clock = clock or SteadyClock()
        self.coordinator_id = f"{socket.gethostname()}-{os.getpid()}-{self.clock.new_id()[-6:]}"
        self.topology = topology or Topology()
        self.storage = storage
        self.ledger = Ledger(storage, self.clock, rules)
        self._batch = batch
        self._notifier = notifier or Notifier({})
        self._on_ready = on_ready
        self._loop = loop or SelectLoop()
        self._url = url
        self._link = Link(
            url,
            self._loop,
            name=f"fuseline coordinator {self.coordinator_id}",
            clock=self.clock,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self._book = WorkerBook(self.clock, self.ledger.rules.lease_seconds)
        self._declared = Declared(self._link, self.topology)
        self._mending = Mending(self._link, self._declared, self.topology, self.clock, self._link_that_asks)
        self._outbox = Outbox(self._link, self.topology, self.clock, self._declared.again, self._mending.mend)
        self._pipeline = Pipeline(self.ledger, self._outbox, self._book, few)
        self._answering = Answering(
            Commands(self.ledger, storage, self.clock),
            self._pipeline,
            self._outbox,
            self._declared,
            self.topology,
            self._wait_for_storage,
            self._look_at_timers,
        )
        self._hearing = Hearing(self._link, self.clock, self._heard)
        self._timers = Timers(
            self._link,
            self.ledger,
            self._pipeline,
            self._book,
            self.topology,
            self._wait_for_storage,
            self._is_catching_up,
            self._hearing.ask,
            lambda: self._storage_retry is not None,
        )
        self._pipeline.on_failed = self._look_at_timers
        self._pipeline.on_under_way = self._finish_soon
        early = EarlyReports(self._pipeline, self._outbox, self._link.call_later, self._look_at_timers)
        self._recording = Recording(self._pipeline, self._outbox, early, self._wait_for_storage)
        self._reports: list[Source] | None = None
        self._asked: Intake | None = None
        self._beats: list[Delivery] = []
        self._storage_retry: Timer | None = None
        self._finishing: Timer | None = None
        self._storage_delay = STORAGE_RETRY_SECONDS[0]
        self._storage_lost_at: float | None = None
        self._stopping = self._is_declaring = False
        self._fatal: BaseException | None = None

    def _link_that_asks(self, on_down: Callable[[FuselineError], None]) -> Link:
        name = f"fuseline coordinator {self.coordinator_id} (asking)"
        return Link(self._url, self._loop, name=name, clock=self.clock, on_down=on_down)

    @property
    def traffic(self) -> Traffic:
        """What it exchanged with RabbitMQ so far; any thread may ask."""
        return self._link.traffic

    # ---- life

    def run(self) -> None:
        """Serve until `stop`; raises what made it impossible to go on."""
        self.storage.claim_coordinator(self.coordinator_id)
        self._link.start()
        self._link.call_later(HOUSEKEEPING_SECONDS, self._keep_house)
        if self._notifier.watchdog_seconds is not None:
            self._link.call_later(self._notifier.watchdog_seconds, self._feed_watchdog)
        try:
            self._loop.run()
        finally:
            self._loop.close()
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Finish what is under way and make `run` return; from any thread or signal handler, twice is once."""
        self._link.call_soon_threadsafe(self._begin_stop)

    def _begin_stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._notifier.stopping()
        log.info("stopping")
        self._pipeline.finish()
        for source in self._reports or ():
            source.intake.cancel()
        if self._asked is not None:
            self._asked.cancel()
        self._timers.stop()
        self._outbox.stop()
        self._mending.stop()
        self._link.close(5.0, self._loop.stop)

    def _fail(self, error: BaseException) -> None:
        self._fatal = error
        self._begin_stop()

    # ---- RabbitMQ comes and goes

    def _came_up(self) -> None:
        """Connected, for the first time or again. What is there already is left as it is, so declaring again is cheap."""
        self._book.listen_anew()
        self._declare()

    def _declare(self) -> None:
        self._declared.forget()
        try:
            known = [stored.schema.key for stored in self.storage.list_schemas()]
        except StorageUnavailableError as error:
            log.warning("storage is away: %s", error)
            self._link.call_later(STORAGE_RETRY_SECONDS[1], self._declare)
            return
        self._is_declaring = True
        self._declared.declare_base(known, partial(self._base_declared, len(known)))

    def _base_declared(self, versions: int, error: FuselineError | None) -> None:
        self._is_declaring = False
        if self._stopping:
            return
        if isinstance(error, RetryableError):
            log.warning("cannot declare the topology yet: %s", error)
            if self._link.is_up:
                self._link.call_later(1.0, self._declare)
            return
        if error is not None:
            self._fail(error)
            return
        if self._reports is None:
            self._consume()
        self._timers.wake_anew()
        server = self._link.server
        log.info(
            "ready: %d workflow versions, RabbitMQ %s", versions, "?" if server is None else server.version
        )
        self._notifier.ready(f"serving {versions} workflow versions")
        if self._on_ready is not None:
            self._on_ready()

    def _consume(self) -> None:
        t = self.topology
        self._reports = [
            Source(
                Intake(self._link, t.reports_queue, self._batch, self._flush, self._lost, slices_of),
                partial(read_report, topology=t),
                lambda delivery, reason: read_spoilt_report(delivery, t, reason),
            ),
            Source(
                Intake(self._link, t.dead_queue, self._batch, self._flush, self._lost, slices_of),
                read_dead_letter,
            ),
        ]
        self._asked = Intake(self._link, t.commands_queue, self._batch, self._answer, self._lost)
        self._hearing.queue = self._link.consume(
            t.heartbeats_queue(self.coordinator_id), self._batch, self._beats.append, self._take_beats
        )

    def _lost(self, error: FuselineError) -> None:
        """A queue of ours is gone while the connection is there: somebody deleted it. Its consumer comes back by itself."""
        if isinstance(error, TopologyError) and not self._is_declaring and not self._stopping:
            log.warning("%s; declaring the topology again", error)
            self._declare()

    def _went_down(self, error: FuselineError) -> None:
        if not self._stopping:
            log.warning("RabbitMQ is away: %s", error)
            self._notifier.status(f"RabbitMQ is away: {error}")

    # ---- what arrives

    def _flush(self) -> None:
        until = self.clock.monotonic() + WORK_SECONDS
        while self._storage_retry is None and not self._stopping and self._reports is not None:
            if self.clock.monotonic() > until:
                self._link.call_later(0.0, self._flush)
                break
            if not self._recording.record(self._reports, self._batch):
                break
        self._timers.look()
        self.storage.catch_up()

    def _finish_soon(self) -> None:
        """In the loop's next turn: what has arrived by then is read before that."""
        if self._finishing is None:
            self._finishing = self._link.call_later(0.0, self._finish)

    def _finish(self) -> None:
        self._finishing = None
        self._pipeline.finish()

    def _is_catching_up(self) -> bool:
        return self._recording.is_behind or any(len(source.intake) for source in self._reports or ())

    def _wait_for_storage(self, error: StorageUnavailableError) -> None:
        """Take nothing more until storage is back: the messages wait in RabbitMQ, the workers go on."""
        if self._storage_retry is not None:
            return
        now = self.clock.monotonic()
        if self._storage_lost_at is None or now - self._storage_lost_at > 2 * STORAGE_RETRY_SECONDS[1]:
            self._storage_delay = STORAGE_RETRY_SECONDS[0]
        self._storage_lost_at = now
        log.warning("storage is away, trying again in %.1f s: %s", self._storage_delay, error)
        self._notifier.status(f"storage is away: {error}")
        self._storage_retry = self._link.call_later(self._storage_delay, self._try_storage)
        self._storage_delay = min(self._storage_delay * 2, STORAGE_RETRY_SECONDS[1])

    def _try_storage(self) -> None:
        """A read that succeeds proves little: a full disk can be read. What waits to be written is the proof."""
        self._storage_retry = None
        try:
            self.storage.next_due()
        except StorageUnavailableError as error:
            self._wait_for_storage(error)
            return
        self._timers.wake_anew()
        self._flush()
        self._answer()
        if self._storage_retry is None:
            log.info("storage is back")
            self._notifier.status("serving")

    def _look_at_timers(self) -> None:
        self._timers.look()

    def _answer(self) -> None:
        if self._asked is None:
            return
        until = self.clock.monotonic() + WORK_SECONDS

        def is_enough() -> bool:
            return self._storage_retry is not None or self.clock.monotonic() > until

        while self._storage_retry is None and not self._stopping:
            if is_enough():
                self._link.call_later(0.0, self._answer)
                return
            if not self._answering.answer(self._asked, self._batch, is_enough):
                return

    # ---- heartbeats, timers, housekeeping

    def _heard(self, sent_at: float) -> None:
        self._timers.heard(sent_at)

    def _take_beats(self) -> None:
        beats, self._beats[:] = list(self._beats), []
        for delivery in beats:
            if self._hearing.is_echo(delivery):
                continue
            try:
                self._book.beat(read(Heartbeat, delivery.body), delivery.properties.reply_to)
            except InvalidMessageError as error:
                log.warning("a heartbeat cannot be read: %s", error)
        if beats:
            self._link.ack(beats[-1], multiple=True)

    def _keep_house(self) -> None:
        """Every few seconds, and only when there is something: save who was seen, compare new leases with storage."""
        if self._stopping:
            return
        self._link.call_later(HOUSEKEEPING_SECONDS, self._keep_house)
        if self._storage_retry is not None:
            return
        try:
            self._timers.keep_house()
        except StorageUnavailableError as error:
            self._wait_for_storage(error)

    def _feed_watchdog(self) -> None:
        self._notifier.watchdog()
        seconds = self._notifier.watchdog_seconds
        if seconds is not None and not self._stopping:
            self._link.call_later(seconds, self._feed_watchdog)

"""The worker over any `Broker`: threads that ask for steps, quietly when there are none (P8)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from fuseline.broker.base import Broker
from fuseline.clock import Clock
from fuseline.errors import (
    CallerError,
    FatalError,
    RetryableError,
    StaleReportError,
    UnknownRunError,
    UnknownWorkerError,
)
from fuseline.model.messages import Cause, StepAssignment, StepReport
from fuseline.notify import Notifier
from fuseline.worker.catalog import Catalog
from fuseline.worker.executing import Execution
from fuseline.worker.logs import ids
from fuseline.worker.options import Options
from fuseline.worker.reports import Sealer, crashed
from fuseline.worker.slots import EXHAUSTED_SECONDS, Slots

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = (0.02, 1.0)
"""Pause after the first time that there was no step, and the longest one."""
RETRY_SECONDS: Final = (0.2, 10.0)

Result = TypeVar("Result")


class PullSource:
    """`concurrency` threads, of which one at a time asks for a step; who gets one lets the next ask and executes it.

    The broker is called from several threads: `get_step` by one at a time, `report_step` by many, `keep_alive` by one
    more. A broker that does not stand that is for `ProcessEngine`, which calls from one thread alone.
    """

    def __init__(
        self,
        broker: Broker,
        catalog: Catalog,
        slots: Slots,
        sealer: Sealer,
        options: Options,
        clock: Clock,
        notifier: Notifier,
    ) -> None:
        self._broker = broker
        self._catalog = catalog
        self._slots = slots
        self._sealer = sealer
        self._options = options
        self._clock = clock
        self._notifier = notifier
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._registering = threading.Lock()
        self._wake = threading.Event()  # somebody should ask now: a report went out, or it is time to leave
        self._stopping = threading.Event()
        self._leaving = threading.Event()  # at once
        self._done = threading.Event()
        self._executions: set[Execution] = set()
        self._busy = 0
        self._quiet_since = 0.0
        self._idle_seconds: float | None = None
        self._failure: BaseException | None = None
        self._stops = 0
        self.worker_id = ""
        self.executed = 0

    def stop(self) -> None:
        """Finish what runs and leave; at the second call, at once. From any thread and from signal handlers."""
        self._stops += 1
        self._stopping.set()
        if self._stops > 1:
            self._leaving.set()
        self._wake.set()

    def run(self, idle_seconds: float | None = None) -> int:
        """Work until `stop`, or until nothing came and nothing ran for `idle_seconds`; returns how many attempts ran.

        Raises what the broker raises, but for `RetryableError`, which is waited out.
        """
        self._idle_seconds = idle_seconds
        self._slots.on_freed(self._wake.set)
        if not self._register():
            return 0
        log.info("worker %s takes steps", self.worker_id, extra={"worker_id": self.worker_id})
        self._notifier.ready(f"worker {self.worker_id} takes steps")
        self._quiet_since = self._clock.monotonic()
        threads = [
            threading.Thread(
                target=self._guard, args=(self._work,), name=f"fuseline worker {index}", daemon=True
            )
            for index in range(self._options.concurrency)
        ]
        keeper = threading.Thread(
            target=self._guard, args=(self._keep_alive,), name="fuseline keep-alive", daemon=True
        )
        for thread in (*threads, keeper):
            thread.start()
        self._wait_for_stop()
        self._notifier.stopping()
        self._leave(threads)
        self._done.set()
        keeper.join()
        if self._failure is not None:
            raise self._failure
        return self.executed

    # ---- the life of it

    def _register(self, instead_of: str | None = None) -> bool:
        """A worker id, or a new one for the one that the broker has forgotten; False when it is time to leave."""
        with self._registering:
            if instead_of is not None and self.worker_id != instead_of:
                return True  # another thread was faster
            found = self._patiently(lambda: self._broker.register_worker(self._catalog.schemas))
            if found is None:
                return False
            self.worker_id = found
            return True

    def _patiently(self, call: Callable[[], Result]) -> Result | None:
        """`call`, repeated while the broker is away; None when it is time to leave."""
        pause = RETRY_SECONDS[0]
        while not self._stopping.is_set():
            try:
                return call()
            except RetryableError as error:
                log.warning("the broker is away, trying again in %.1f s: %s", pause, error)
                self._notifier.status(f"the broker is away: {error}")
            self._stopping.wait(pause)
            pause = min(pause * 2, RETRY_SECONDS[1])
        return None

    def _wait_for_stop(self) -> None:
        seconds = self._notifier.watchdog_seconds
        while not self._stopping.wait(seconds):
            self._notifier.watchdog()

    def _leave(self, threads: list[threading.Thread]) -> None:
        """Wait for what runs, within the grace time; what is left over is abandoned, and its holder's time runs out."""
        self._wake.set()
        deadline = self._clock.monotonic() + self._options.drain_seconds
        while any(thread.is_alive() for thread in threads):
            left = deadline - self._clock.monotonic()
            if left <= 0 or self._leaving.wait(min(left, 0.05)):
                break
        self._leaving.set()
        with self._lock:
            left_over = list(self._executions)
        for execution in left_over:
            log.warning(
                "step %s is left unfinished", execution.assignment.step_name, extra=ids(execution.assignment)
            )
            execution.abandon()
        for thread in threads:
            thread.join(5.0)

    def _guard(self, body: Callable[[], None]) -> None:
        """What nobody expects ends the worker, and `run` raises it."""
        try:
            body()
        except BaseException as error:
            self._failure = self._failure or error
            log.exception("the worker cannot go on")
            self.stop()

    def _keep_alive(self) -> None:
        while not self._done.wait(self._options.heartbeat_seconds):
            worker_id = self.worker_id
            try:
                self._broker.keep_alive(worker_id)
            except UnknownWorkerError:
                log.warning("the broker has forgotten worker %s, registering again", worker_id)
                self._register(worker_id)
            except RetryableError as error:
                log.warning("a keep-alive is lost: %s", error)

    # ---- one thread of many

    def _work(self) -> None:
        while (assignment := self._ask()) is not None:
            try:
                self._execute(assignment)
            finally:
                with self._lock:
                    self._busy -= 1
                    self._quiet_since = self._clock.monotonic()
                self._wake.set()  # its successors may be queued by now

    def _ask(self) -> StepAssignment | None:
        """The next step, counted as busy; None when it is time to leave."""
        with self._asking:
            pause = IDLE_SECONDS[0]
            self._wait_for_place()
            while not self._stopping.is_set():
                self._wake.clear()
                worker_id = self.worker_id
                try:
                    assignment = self._patiently(lambda: self._broker.get_step(self.worker_id))
                except UnknownWorkerError:
                    log.warning("the broker has forgotten worker %s, registering again", worker_id)
                    self._register(worker_id)
                    continue
                if assignment is not None:
                    with self._lock:
                        self._busy += 1
                    return assignment
                left = self._idle_left()
                if left is not None and left <= 0:
                    self.stop()
                    break
                woken = self._wake.wait(pause if left is None else min(pause, left))
                pause = IDLE_SECONDS[0] if woken else min(pause * 2, IDLE_SECONDS[1])
            return None

    def _idle_left(self) -> float | None:
        """Seconds until the worker counts as idle; None when it may not, or not now."""
        with self._lock:
            if self._idle_seconds is None or self._busy:
                return None
            return self._quiet_since + self._idle_seconds - self._clock.monotonic()

    def _wait_for_place(self) -> None:
        """Abandoned bodies may have taken all places."""
        freed, since = -1, 0.0
        while self._slots.free <= 0 and not self._stopping.is_set():
            if freed != self._slots.freed:
                freed, since = self._slots.freed, self._clock.monotonic()
                log.warning("%s", self._slots.told())
                self._notifier.status(self._slots.told())
            if self._slots.is_exhausted and self._clock.monotonic() - since >= EXHAUSTED_SECONDS:
                raise FatalError(f"{self._slots.told()}: no place is left")
            self._wake.clear()
            self._wake.wait(0.5)

    def _execute(self, assignment: StepAssignment) -> None:
        execution = Execution(assignment)
        with self._lock:
            self._executions.add(execution)
        if self._leaving.is_set():
            execution.abandon()
        try:
            sealed = execution.run(self._catalog, self._slots, self._sealer, self._clock)
        finally:
            with self._lock:
                self._executions.discard(execution)
        if sealed is not None:
            with self._lock:
                self.executed += 1
            self._report(assignment, sealed.plain())

    def _report(self, assignment: StepAssignment, report: StepReport) -> None:
        pause = RETRY_SECONDS[0]
        while True:
            worker_id = self.worker_id
            try:
                report_to(self._broker, worker_id, assignment, report, self._sealer)
            except UnknownWorkerError:
                if not self._register(worker_id):
                    return
                continue
            except RetryableError as error:
                log.warning("a report is not taken yet: %s", error, extra=ids(assignment))
            else:
                return
            if self._leaving.wait(pause):
                return
            pause = min(pause * 2, RETRY_SECONDS[1])


def report_to(
    broker: Broker, worker_id: str, assignment: StepAssignment, report: StepReport, sealer: Sealer
) -> None:
    """Report once. Raises `RetryableError` and `UnknownWorkerError`; what is stale or refused for good is settled here."""
    try:
        broker.report_step(worker_id, report.model_copy(update={"worker_id": worker_id}))
    except UnknownWorkerError:
        raise
    except StaleReportError as error:
        log.debug("a report is stale: %s", error, extra=ids(assignment))
    except UnknownRunError as error:
        log.warning("a report is of no known run: %s", error, extra=ids(assignment))
    except CallerError as error:
        if report.error is not None:
            log.error("a report is refused: %s", error, extra=ids(assignment))
            return
        # Such as a result over the broker's own limit of size: a report that says so is short.
        log.warning("a result is refused: %s", error, extra=ids(assignment))
        failed = sealer.seal(crashed(assignment, error, Cause.INVALID), report.started_at)
        report_to(broker, worker_id, assignment, failed.plain(), sealer)

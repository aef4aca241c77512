"""The worker beside a broker in its own process: one thread exchanges reports for steps, many in one commit, and sleeps
while there is nothing to do (P8)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from fuseline.broker.lane import Lane
from fuseline.broker.ready import Fence, fence
from fuseline.clock import Clock
from fuseline.errors import (
    CallerError,
    FatalError,
    RetryableError,
    UnknownWorkerError,
)
from fuseline.model.messages import StepAssignment
from fuseline.notify import Notifier
from fuseline.worker import asking
from fuseline.worker.catalog import Catalog
from fuseline.worker.lane_attempts import Attempt, Deadlines, refused
from fuseline.worker.logs import ids
from fuseline.worker.options import Options
from fuseline.worker.pull import RETRY_SECONDS
from fuseline.worker.reports import Sealed, Sealer, timed_out
from fuseline.worker.slots import EXHAUSTED_SECONDS, Slots

log = logging.getLogger(__name__)

MAX_EXCHANGED: Final = 500
"""Reports, and steps, that go into one exchange (P6)."""

Result = TypeVar("Result")


class LaneSource:
    """What is decided here is decided on the thread that calls `run`, or on the loop of the async bodies.

    There it is when the last body on the loop has ended: a commit keeps no body waiting then, and a chain of async steps
    needs no other thread. `_turn` is held by who decides. One more thread keeps the worker alive.
    """

    def __init__(
        self,
        lane: Lane,
        catalog: Catalog,
        slots: Slots,
        sealer: Sealer,
        options: Options,
        clock: Clock,
        notifier: Notifier,
    ) -> None:
        self._lane = lane
        self._catalog = catalog
        self._slots = slots
        self._sealer = sealer
        self._options = options
        self._clock = clock
        self._notifier = notifier
        self._inbox: SimpleQueue[tuple[Attempt, Sealed] | None] = SimpleQueue()
        self._of_loop: deque[tuple[Attempt, Sealed]] = deque()
        self._is_posted = False  # `_go_on_here` will look into it
        self._turn = threading.Lock()
        self._waits_until: float | None = (
            None  # for the inbox, this long (monotonic); None: it looks by itself
        )
        self._is_exchanging = False
        self._may_be_ready = True
        self._stops = 0
        self._done = threading.Event()
        self._held: dict[Fence, Attempt] = {}
        self._ended: list[Attempt] = []
        self._deadlines = Deadlines()
        self._ends_when_idle = False
        self._quiet_since = 0.0
        self._exhausted_since: tuple[int, float] | None = None
        self._failure: BaseException | None = None
        self.worker_id = ""
        self.executed = 0

    def stop(self) -> None:
        """Finish what runs and leave; at the second call, at once. From any thread and from signal handlers."""
        self._stops += 1
        self._inbox.put(None)

    def run(self, idle_seconds: float | None = None) -> int:
        """Work until `stop`, or until nothing came and nothing ran for `idle_seconds`; returns how many attempts ran.

        Raises what the broker raises, but for `RetryableError`, which is waited out.
        """
        self._ends_when_idle = idle_seconds is not None
        self._slots.on_freed(self._freed)
        if not self._register():
            return 0
        log.info("worker %s takes steps", self.worker_id, extra={"worker_id": self.worker_id})
        self._notifier.ready(f"worker {self.worker_id} takes steps")
        keeper = threading.Thread(target=self._keep_alive, name="fuseline keep-alive", daemon=True)
        keeper.start()
        try:
            with self._turn:
                self._work(idle_seconds)
                self._notifier.stopping()
                self._drain()
        except BaseException:
            log.exception("the worker cannot go on")
            raise
        finally:
            self._stops = max(2, self._stops)
            for attempt in list(self._held.values()):
                self._abandon(attempt)
            self._lane.on_ready(self.worker_id, None)
            self._done.set()
            keeper.join()
        if self._failure is not None:
            raise self._failure
        return self.executed

    # ---- the life of it

    def _register(self) -> bool:
        """Get a worker id, a new one if there was one before; False when it is time to leave."""
        found = self._patiently(lambda: self._lane.register_worker(self._catalog.schemas))
        if found is None:
            return False
        if self.worker_id:
            self._lane.on_ready(self.worker_id, None)
        self.worker_id = found
        self._lane.on_ready(found, self._woken)
        self._may_be_ready = True
        return True

    def _patiently(self, call: Callable[[], Result]) -> Result | None:
        """`call`, repeated while the broker is away; None when it is time to leave."""
        pause = RETRY_SECONDS[0]
        while not self._stops:
            try:
                return call()
            except RetryableError as error:
                self._tell_away(error, pause)
            self._pause(pause)
            pause = min(pause * 2, RETRY_SECONDS[1])
        return None

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until somebody wants the worker to leave, once more; what ends meanwhile is taken."""
        until, stops = self._clock.monotonic() + seconds, self._stops
        while self._stops == stops and (left := until - self._clock.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._take(self._inbox.get(timeout=left))
        self._take_all()
        self._end_what_is_late()

    def _tell_away(self, error: RetryableError, pause: float) -> None:
        log.warning("the broker is away, trying again in %.1f s: %s", pause, error)
        self._notifier.status(f"the broker is away: {error}")

    def _keep_alive(self) -> None:
        while not self._done.wait(self._options.heartbeat_seconds):
            try:
                self._lane.keep_alive(self.worker_id, holds=list(self._held))
            except UnknownWorkerError as error:
                log.warning("a keep-alive is refused, the next exchange registers again: %s", error)
                self._woken()
            except RetryableError as error:
                log.warning("a keep-alive is lost: %s", error)
            except BaseException as error:
                log.exception("the worker cannot go on")
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """What nobody expects ends the worker, and `run` raises it."""
        self._failure = self._failure or error
        self.stop()

    # ---- from other threads

    def _woken(self) -> None:
        """Steps may be ready."""
        self._may_be_ready = True
        if self._waits_until is not None and not self._is_exchanging:
            self._inbox.put(None)

    def _ended_on_loop(self, attempt: Attempt, sealed: Sealed) -> None:
        self._of_loop.append((attempt, sealed))
        if not self._is_posted:  # after all that end in this round of the loop
            self._is_posted = True
            asyncio.get_running_loop().call_soon(self._go_on_here)

    def _go_on_here(self) -> None:
        """On the loop of the async bodies: exchange at once if none of them has to wait for it."""
        self._is_posted = False
        if not self._turn.acquire(blocking=False):
            self._inbox.put(None)
            return
        try:
            if not self._went_on():
                self._inbox.put(None)
        except BaseException as error:
            log.exception("the worker cannot go on")
            self._fail(error)
        finally:
            self._turn.release()

    def _went_on(self) -> bool:
        """False: the other thread is to look what is to be done."""
        self._take_all()
        if self._stops or len(self._held) > len(self._ended):
            return False
        try:
            if self._ended and not self._exchanged(min(self._places(), MAX_EXCHANGED)):
                return False
        except RetryableError as error:
            log.debug("an exchange is tried again: %s", error)
            return False
        if (next_at := self._deadlines.next_at) is not None and next_at < (self._waits_until or next_at):
            return False
        if self._ends_when_idle and not self._held:  # which the other thread has to wait for from now on
            return False
        return not self._ended and not (self._may_be_ready and self._slots.free > 0)

    def _freed(self) -> None:
        self._inbox.put(None)

    # ---- on the one thread

    def _work(self, idle_seconds: float | None) -> None:
        watchdog = self._notifier.watchdog_seconds
        self._quiet_since = self._clock.monotonic()
        while not self._stops:
            free = self._places()
            if self._ended or (self._may_be_ready and free):
                self._exchange(free)
                self._gather(0.0)
                continue
            left = self._idle_left(idle_seconds)
            if left is not None and left <= 0:
                return
            waits = [one for one in (left, watchdog, None if free else EXHAUSTED_SECONDS) if one is not None]
            self._gather(min(waits, default=None))
            self._watch()

    def _idle_left(self, idle_seconds: float | None) -> float | None:
        """Seconds until the worker counts as idle; None when it may not, or not now."""
        if idle_seconds is None or self._held:
            return None
        return self._quiet_since + idle_seconds - self._clock.monotonic()

    def _places(self) -> int:
        """How many more steps may run. Raises `FatalError` when abandoned bodies keep all places for good."""
        free = max(0, self._slots.free)
        if not self._slots.is_exhausted:
            self._exhausted_since = None
        elif self._exhausted_since is None or self._exhausted_since[0] != self._slots.freed:
            self._exhausted_since = self._slots.freed, self._clock.monotonic()
            log.warning("%s", self._slots.told())
            self._notifier.status(self._slots.told())
        elif self._clock.monotonic() - self._exhausted_since[1] >= EXHAUSTED_SECONDS:
            raise FatalError(f"{self._slots.told()}: no place is left")
        return free

    def _gather(self, seconds: float | None) -> None:
        """Take what has ended; wait for it, or for somebody who wakes this thread, up to so long (None: for ever)."""
        if (next_at := self._deadlines.next_at) is not None:
            left = max(0.0, next_at - self._clock.monotonic())
            seconds = left if seconds is None else min(seconds, left)
        self._take_all()
        if seconds != 0.0 and not self._ended:
            self._waits_until = math.inf if seconds is None else self._clock.monotonic() + seconds
            # Whoever found steps ready before that was said has not put anything in.
            if not (self._may_be_ready and self._slots.free > 0 and not self._stops):
                self._turn.release()
                try:
                    item = self._inbox.get(timeout=seconds)
                except Empty:
                    item = None
                finally:
                    self._turn.acquire()
                self._take(item)
            self._waits_until = None
            self._take_all()
        self._end_what_is_late()

    def _take_all(self) -> None:
        while self._of_loop:
            self._take(self._of_loop.popleft())
        while not self._inbox.empty():
            self._take(self._inbox.get_nowait())

    def _take(self, item: tuple[Attempt, Sealed] | None) -> None:
        if item is not None and item[0].sealed is None:
            attempt, attempt.sealed = item[0], item[1]
            self._ended.append(attempt)
            self._slots.end()
            self.executed += 1

    def _end_what_is_late(self) -> None:
        if self._deadlines.next_at is None:
            return
        now = self._clock.monotonic()
        for attempt in self._deadlines.passed(now):
            if attempt.is_asked_about:
                self._take((attempt, self._timed_out(attempt)))
            elif attempt.running is not None and attempt.running.stop():
                log.warning("step %s timed out", attempt.assignment.step_name, extra=ids(attempt.assignment))
                if attempt.job.timed_out is None:
                    self._take((attempt, self._timed_out(attempt)))
                else:
                    # Its place stays taken until the policies have had their say, which goes the way of any outcome.
                    attempt.is_asked_about = True
                    self._deadlines.set(attempt, now + asking.OPINION_SECONDS)
                    asking.ask(attempt.job.timed_out, self._done_with(attempt))

    def _timed_out(self, attempt: Attempt) -> Sealed:
        return self._sealer.seal(timed_out(attempt.assignment), attempt.started_at)

    def _done_with(self, attempt: Attempt) -> Callable[[Sealed], None]:
        return lambda sealed: self._inbox.put((attempt, sealed))

    def _start(self, assignment: StepAssignment) -> None:
        started_at = self._clock.now()
        job = self._catalog.job(assignment, started_at)
        attempt = self._held[fence(assignment)] = Attempt(assignment, job, started_at)
        done = partial(self._ended_on_loop, attempt) if job.is_async else self._done_with(attempt)
        attempt.running = self._slots.start(job, done)
        if assignment.timeout_seconds is not None:
            self._deadlines.set(attempt, self._clock.monotonic() + assignment.timeout_seconds)

    # ---- exchanges

    def _exchange(self, free: int) -> None:
        """Hand over what has ended, however long the broker is away, and start what comes for it."""
        pause = RETRY_SECONDS[0]
        while True:
            try:
                if self._exchanged(min(free, MAX_EXCHANGED)):
                    return
            except RetryableError as error:
                self._tell_away(error, pause)
                self._watch()
                self._pause(pause)
                if self._stops:
                    return
                pause = min(pause * 2, RETRY_SECONDS[1])
                continue
            log.warning("the broker has forgotten worker %s, registering again", self.worker_id)
            if not self._register():
                return

    def _exchanged(self, wanted: int) -> bool:
        """Hand over what has ended, and start what comes for it; False: the broker does not know this worker.

        Raises `RetryableError` when the broker is away. Either way what has ended is still to be handed over.
        """
        reports, self._ended = self._ended[:MAX_EXCHANGED], self._ended[MAX_EXCHANGED:]
        self._may_be_ready = False  # before it is asked: what becomes ready meanwhile says so
        self._is_exchanging = True
        try:
            told = self._lane.exchange(self.worker_id, [one.told() for one in reports], wanted)
        except BaseException as error:
            self._ended = reports + self._ended
            self._may_be_ready = True
            if not isinstance(error, UnknownWorkerError):
                raise
            return False
        finally:
            self._is_exchanging = False
        self._settle(reports, told.refusals)
        if len(told.assignments) >= wanted > 0:
            self._may_be_ready = True
        for assignment in told.assignments:
            self._start(assignment)
        return True

    def _watch(self) -> None:
        if self._notifier.watchdog_seconds is not None:
            self._notifier.watchdog()

    def _settle(self, reports: Sequence[Attempt], refusals: Sequence[CallerError | None]) -> None:
        for attempt, refusal in zip(reports, refusals, strict=True):
            if refusal is not None and (other := refused(attempt, refusal, self._sealer)) is not None:
                attempt.sealed = other
                self._ended.append(attempt)
                continue
            del self._held[fence(attempt.assignment)]
        self._quiet_since = self._clock.monotonic()

    # ---- leaving

    def _drain(self) -> None:
        """Wait for what runs, within the grace time; what is left over is abandoned, and its holder's time runs out."""
        deadline = self._clock.monotonic() + self._options.drain_seconds
        pause = 0.0
        while self._held and self._stops < 2:
            if self._ended:
                pause = self._hand_over(pause)
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            if self._held:
                if self._ended:
                    self._pause(min(left, pause))
                else:
                    self._gather(left)

    def _hand_over(self, pause: float) -> float:
        """Report once. Returns how long to wait before the next time."""
        try:
            if not self._exchanged(0):
                self._lane.on_ready(self.worker_id, None)
                self.worker_id = self._lane.register_worker(self._catalog.schemas)
        except RetryableError as error:
            log.warning("%d reports are not taken yet: %s", len(self._ended), error)
            return min(max(pause * 2, RETRY_SECONDS[0]), RETRY_SECONDS[1])
        return 0.0

    def _abandon(self, attempt: Attempt) -> None:
        if attempt.sealed is None:
            log.warning(
                "step %s is left unfinished", attempt.assignment.step_name, extra=ids(attempt.assignment)
            )
            if attempt.running is not None:
                attempt.running.stop()
            self._slots.end()

"""What becomes of each delivery: checked, started, claimed, reported, acknowledged. All on the loop's thread.

The rules that keep an attempt from being lost or executed twice here:

- A delivery is acknowledged when the report is confirmed, or when a claim is: until then RabbitMQ has it too (P4).
- A delivery of an attempt that runs or reports here is tied to that, never executed beside it.
- A delivery that somebody may have had before is checked with the coordinator first.
- An attempt whose delivery went back while it runs is claimed at once: it is held by nothing then (P5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.stopped import StoppedRuns
from fuseline.amqp.wire import ControlNotice, as_model
from fuseline.clock import Clock
from fuseline.errors import CallerError, FatalError, FuselineError, InvalidMessageError, TopologyError
from fuseline.model.messages import StepAssignment
from fuseline.worker import asking
from fuseline.worker.catalog import Catalog
from fuseline.worker.checking import Checker
from fuseline.worker.claiming import ClaimTimer
from fuseline.worker.fusing import Fusing
from fuseline.worker.intake import Intake
from fuseline.worker.leases import Held, Holdings, Phase
from fuseline.worker.logs import ids
from fuseline.worker.mailbox import Mailbox
from fuseline.worker.options import Options
from fuseline.worker.outgoing import Outgoing
from fuseline.worker.places import Places
from fuseline.worker.reports import Sealed, Sealer, cancelled, crashed, timed_out
from fuseline.worker.slots import Slots

log = logging.getLogger(__name__)

RESIZE_SECONDS: Final = 0.2


class Attempts:
    """The attempts of one worker.

    `on_change` is called when one leaves, `on_fatal` when the worker cannot go on, `on_missing` when a queue is gone.
    """

    def __init__(
        self,
        catalog: Catalog,
        slots: Slots,
        outgoing: Outgoing,
        sealer: Sealer,
        options: Options,
        clock: Clock,
        worker_id: str,
        *,
        on_change: Callable[[], None],
        on_fatal: Callable[[FuselineError], None],
        on_missing: Callable[[], None] = lambda: None,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._catalog = catalog
        self._slots = slots
        self._outgoing = outgoing
        self._sealer = sealer
        self._options = options
        self._clock = clock
        self._worker_id = worker_id
        self._on_change = on_change
        self._on_fatal = on_fatal
        self._on_missing = on_missing
        self._outcomes: Mailbox[tuple[Held, Sealed] | None] = Mailbox(
            self._loop, self._take_outcome, self._outcomes_taken
        )
        self._fusing = Fusing(catalog.schemas, options.fusion_hops, options.fusion_seconds, clock)
        self._checker = Checker(outgoing, self._is_current, self._is_over)
        self._waiting: list[Held] = []
        self._stopped = StoppedRuns()
        self._resize_timer: asyncio.TimerHandle | None = None
        self._places = Places(self._loop, slots, on_fatal, on_abandoned, self.pump)
        self._is_draining = False
        self.held = Holdings(remembered=max(1000, 8 * options.concurrency * len(catalog.keys)))
        self._claims = ClaimTimer(
            self._loop,
            clock,
            self.held,
            lambda: self._waiting,
            options.claim_after_seconds,
            self._claim,
            self._hand_back_waiting,
        )
        self.intake: Intake
        self.executed = 0
        self.last_activity = clock.monotonic()
        slots.on_freed(lambda: self._outcomes.post(None))

    # ---- deliveries come

    def receive(self, delivery: Delivery) -> None:
        """One assignment; `pump` follows."""
        self.last_activity = self._clock.monotonic()
        try:
            assignment = as_model(StepAssignment, codec.parse(delivery.body))
        except InvalidMessageError as error:
            log.error("an assignment cannot be read, the coordinator will park it: %s", error)
            self.intake.nack(delivery, requeue=False)
            return
        key = (assignment.instance_id, assignment.step_name, assignment.attempt)
        known = self.held.get(key)
        if known is not None and known.continued_from is not None:
            # What a report takes is in no queue: the report did not count, and this is the attempt that does.
            self._lose(known)
            known = None
        if known is not None:
            self._tie(known, delivery)
        elif self.held.is_finished(assignment) or assignment in self._stopped:
            self.intake.ack(delivery)
        elif not self._catalog.knows(assignment):
            # Rejected, so that the coordinator hears of it. Requeued, it would come back here for ever.
            log.error("an assignment of %s is not for this worker", key, extra=ids(assignment))
            self.intake.nack(delivery, requeue=False)
        elif self._is_draining:
            self.intake.nack(delivery, requeue=True)
        else:
            held = Held(
                assignment,
                delivery,
                self._clock.monotonic(),
                Phase.WAITING,
                must_claim=delivery.properties.expiration is not None,
            )
            self.held.add(held)
            if delivery.redelivered:
                held.phase = Phase.CHECKING
                self._checker.check(held)
            else:
                self._waiting.append(held)

    def _tie(self, held: Held, delivery: Delivery) -> None:
        """The same attempt again: after a reconnect, or offered again by a coordinator that missed it."""
        log.debug("delivered again while it is here", extra=ids(held.assignment))
        if held.is_leased:
            self.intake.ack(delivery)
        else:
            # The latest is the one to keep: an older one may have been deleted with its queue.
            self._ack(held)
            held.delivery = delivery
            held.is_settled = False

    def _is_current(self, held: Held) -> None:
        held.phase = Phase.WAITING
        # Whoever had it before may have been killed by it. From the second time on each holder is known, so that a step
        # which kills its workers before they claim it is counted too: classic queues count no deliveries.
        held.must_claim = True
        self._waiting.append(held)
        self.pump()

    def _is_over(self, held: Held) -> None:
        self._ack(held)
        self._leave(held, finished=True)

    def lost(self, error: FuselineError) -> None:
        """A channel ended: its deliveries are back in their queues."""
        log.warning("%s", error)
        if isinstance(error, TopologyError):
            self._on_missing()  # the consumer comes back by itself when the queue does
        elif isinstance(error, FatalError):
            self._on_fatal(error)  # the user may not read the queue: asking again changes nothing
        for held in self.held:
            if not held.delivery.is_stale or held.is_leased:
                continue
            if held.phase in (Phase.WAITING, Phase.CHECKING):
                self._leave(held, finished=False)
            elif held.phase is Phase.RUNNING and not held.is_claiming:
                self._claim(held)
        self._waiting = [held for held in self._waiting if not held.is_gone]

    # ---- starting

    def pump(self) -> None:
        """Start what waits, as far as there are places."""
        # Before anything starts: other threads take it up at once, and would have to wait for this one to pause.
        self._claims.arm()
        self._places.look()
        while self._waiting and self._slots.free > 0:
            held = self._waiting.pop(0)
            if held.must_claim:
                held.phase = Phase.CLAIMING
                self._slots.keep()
                self._claim(held)
            else:
                self._start(held)

    def _start(self, held: Held) -> None:
        assignment = held.assignment
        held.phase = Phase.RUNNING
        held.started_at = self._clock.now()
        job = self._catalog.job(assignment, held.started_at)
        held.timed_out = job.timed_out
        held.running = self._slots.start(job, lambda sealed: self._outcomes.post((held, sealed)))
        if assignment.timeout_seconds is not None:
            held.timer = self._loop.call_later(assignment.timeout_seconds, self._time_out, held)

    # ---- claims

    def _claim(self, held: Held) -> None:
        if held.is_leased:  # since it was gone on with; now it is one of those that take long
            self.held.lease(held)
            self._resize_soon()
            return
        held.is_claiming = True
        claim = held.claim(self._worker_id)

        def wanted() -> bool:
            return not held.is_gone and held.phase in (Phase.CLAIMING, Phase.RUNNING)

        self._outgoing.claim(claim, wanted, partial(self._claimed, held))

    def _claimed(self, held: Held, error: FuselineError | None) -> None:
        held.is_claiming = False
        if error is not None:
            self._on_fatal(error)
            return
        if held.is_gone:
            return
        self.held.lease(held)
        self._ack(held)
        self._resize_soon()
        if held.phase is Phase.CLAIMING:
            self._slots.end()
            if self._is_draining:
                self._release(held)
            else:
                self._start(held)

    def _resize_soon(self) -> None:
        if self._resize_timer is None and not self._is_draining:
            self._resize_timer = self._loop.call_later(RESIZE_SECONDS, self._resize)

    def _resize(self) -> None:
        self._resize_timer = None
        if self._is_draining:
            return
        self._places.tell()
        room = max(0, self._options.concurrency - self.held.leased - self._slots.abandoned)
        for held in self._waiting[room * len(self._catalog.keys) :]:
            self._hand_back_waiting(held)
        self.intake.resize(room)

    def _hand_back_waiting(self, held: Held) -> None:
        self._waiting.remove(held)
        self._nack(held)
        self._leave(held, finished=False)

    # ---- endings

    def _take_outcome(self, item: tuple[Held, Sealed] | None) -> None:
        if item is None:  # an abandoned body has ended
            self._resize_soon()
            return
        held, sealed = item
        if held.phase is Phase.RUNNING and not held.is_gone:
            self.executed += 1
            self._end(held, sealed)

    def _outcomes_taken(self) -> None:
        self._outgoing.flush()  # of this turn there are no more, and each of the loop costs a lone step its time
        self.pump()

    def _time_out(self, held: Held) -> None:
        if held.running is not None and held.running.stop():
            log.warning("step %s timed out", held.assignment.step_name, extra=ids(held.assignment))
            self._resize_soon()
            if held.timed_out is None:
                self._end_late(held)
            else:
                # Its place stays taken until the policies have had their say, which goes the way of any outcome.
                held.running = None
                held.timer = self._loop.call_later(asking.OPINION_SECONDS, self._end_late, held)
                asking.ask(held.timed_out, lambda sealed: self._outcomes.post((held, sealed)))

    def _end_late(self, held: Held) -> None:
        self._end(held, self._sealer.seal(timed_out(held.assignment), held.started_at))
        self.pump()

    def _end(self, held: Held, sealed: Sealed) -> None:
        """It ran, and frees its place; it is held until its report is confirmed."""
        if held.phase is Phase.RUNNING and not self._is_draining:
            held.following = self._fusing.follows(held, sealed)
        if (held.phase is Phase.RUNNING or held.phase is Phase.CLAIMING) and held.following is None:
            self._slots.end()  # else the next step has its place
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        held.phase = Phase.REPORTING
        held.running = None
        held.sealed = sealed
        self._outgoing.report(held, sealed, partial(self._reported, held))

    def _reported(self, held: Held, error: FuselineError | None) -> None:
        self.last_activity = self._clock.monotonic()
        following, held.following = held.following, None
        if following is not None:
            self._slots.end()
        if isinstance(error, CallerError) and held.sealed is not None and held.sealed.report.error is None:
            # RabbitMQ's own limit of size is below ours. A report that says so is short.
            held.sealed = self._sealer.seal(crashed(held.assignment, error), held.started_at)
            self._outgoing.report(held, held.sealed, partial(self._reported, held))
            if following is not None:
                self.pump()  # its place is free, and the next one's report frees none
            return
        if error is not None:
            self._on_fatal(error)
            return
        if held.is_gone:
            self.pump()
            return
        self._ack(held)
        self._leave(held, finished=True)
        if following is not None:
            self._go_on(held, following)

    def _go_on(self, done: Held, assignment: StepAssignment) -> None:
        """Start the next step, which the report of the one before has taken by a lease."""
        held = done.going_on_with(assignment)
        known = self.held.get(held.key)
        if known is not None and known.continued_from is not None:
            # It went on with the same from an earlier attempt of the step before, which did not count.
            self._lose(known)
            known = None
        if known is None:  # else it has come from its queue, and the report did not count
            self.held.add(held)
            if assignment in self._stopped:
                self._leave(held, finished=True)
            elif self._is_draining:
                self._release(held)
            else:
                self._start(held)
                self._claims.arm()
        if self._waiting:
            self.pump()

    def _leave(self, held: Held, *, finished: bool) -> None:
        was_leased = held.is_leased and not held.is_brief
        if finished:
            self.held.finish(held)
        else:
            self.held.forget(held)
        if was_leased:
            self._resize_soon()
        self._on_change()

    def _ack(self, held: Held) -> None:
        # Once: RabbitMQ closes the channel over a second ack, and a claim's confirm and a report's both ask for one.
        if not held.is_settled:
            held.is_settled = True
            self.intake.ack(held.delivery)

    def _nack(self, held: Held) -> None:
        if not held.is_settled:
            held.is_settled = True
            self.intake.nack(held.delivery, requeue=True)

    def stop_meant(self, notice: ControlNotice) -> None:
        """A stop notice: of a whole run, or that this worker holds an attempt no longer."""
        self._stopped.add(notice)
        for held in self.held:
            if not held.is_meant(notice) or held.phase is Phase.REPORTING:
                continue
            if held.running is not None and not held.running.stop():
                continue  # over this moment; the coordinator refuses its report if it must
            log.info("step %s is told to stop", held.assignment.step_name, extra=ids(held.assignment))
            self._resize_soon()
            if held in self._waiting:
                self._waiting.remove(held)
            if notice.attempts is None:
                self._end(held, self._sealer.seal(cancelled(held.assignment), held.started_at))
            else:
                self._lose(held)
        self.pump()

    def _lose(self, held: Held) -> None:
        """Somebody else has it, or it is over: whatever is said about it here is stale."""
        if held.running is not None:
            held.running.stop()
        if held.phase in (Phase.RUNNING, Phase.CLAIMING):
            self._slots.end()
        self._ack(held)
        self._leave(held, finished=True)

    # ---- leaving

    def drain(self) -> None:
        """Start nothing more, and hand back what has not begun."""
        self._is_draining = True
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        self.intake.resize(0)
        for held in self.held:
            if held.phase in (Phase.WAITING, Phase.CHECKING):
                self._nack(held)
                self._leave(held, finished=False)
        self._waiting.clear()

    def hand_back(self) -> None:
        """End what still runs without a report, and give it to others."""
        for held in self.held:
            if held.phase is Phase.REPORTING or (held.running is not None and not held.running.stop()):
                continue
            one = held.assignment
            log.warning("step %s is handed back unfinished", one.step_name, extra=ids(one))
            if held.phase in (Phase.RUNNING, Phase.CLAIMING):
                self._slots.end()
            if held.is_leased or held.is_claiming:
                self._release(held)
            else:
                self._nack(held)
                self._leave(held, finished=False)

    def _release(self, held: Held) -> None:
        """Give up a lease. With a claim still under way the release comes after it, on the same channel."""
        held.phase = Phase.REPORTING

        def released(error: FuselineError | None) -> None:
            if error is not None:
                log.warning("a lease cannot be given back, it will end by itself: %s", error)
            # Settled already, unless the claim never got through. Then the release meant nothing, and only the delivery
            # brings the step to somebody else.
            self._nack(held)
            self._leave(held, finished=False)

        claim = held.claim(self._worker_id, released=True)
        self._outgoing.claim(claim, lambda: True, released)

    def close(self) -> None:
        """No more outcomes are taken; timers end."""
        self._outcomes.close()
        self._claims.cancel()
        self._places.cancel()
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        for held in self.held:
            if held.timer is not None:
                held.timer.cancel()

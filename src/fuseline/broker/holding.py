"""What the workers of an `AmqpBroker` hold: first an unacknowledged delivery, then a lease (DESIGN 5)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.stopped import StoppedRuns
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Claim, ControlNotice
from fuseline.broker.ready import Fence
from fuseline.broker.reported import Reported, attempt_of
from fuseline.clock import Clock
from fuseline.errors import FuselineError, UnknownWorkerError
from fuseline.model.messages import StepAssignment, StepReport

CLAIM_SECONDS = 20.0


@dataclass(slots=True)
class Held:
    """An attempt in a worker's hands. `delivery` is None once a lease holds it; `is_lost`: a coordinator said so."""

    worker_id: str
    assignment: StepAssignment
    delivery: Delivery | None
    is_lost: bool = False
    is_over: bool = False

    @property
    def attempt(self) -> Fence:
        """The fencing key."""
        return self.assignment.instance_id, self.assignment.step_name, self.assignment.attempt


@dataclass(slots=True)
class _Worker:
    keys: list[tuple[str, str]]
    held: dict[Fence, Held] = field(default_factory=dict)


class Holdings:
    """Thread-safe. Claims are sent from the link's thread, `claim_after_seconds` after a delivery was taken."""

    def __init__(
        self, link: BackgroundLink, topology: Topology, clock: Clock, claim_after_seconds: float
    ) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._claim_after_seconds = claim_after_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._workers: dict[str, _Worker] = {}
        self._stopped = StoppedRuns()
        self._reported = Reported()

    # ---- workers

    def add_worker(self, worker_id: str, keys: list[tuple[str, str]]) -> None:
        """A worker of these workflow versions."""
        with self._lock:
            self._workers[worker_id] = _Worker(keys)

    def _worker(self, worker_id: str) -> _Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise UnknownWorkerError(f"no worker {worker_id!r} is registered with this broker")
        return worker

    def seen(self, worker_id: str) -> None:
        """Raise `UnknownWorkerError` unless the worker is known here."""
        with self._lock:
            self._worker(worker_id)

    def queues(self, worker_id: str) -> list[tuple[str, str]]:
        """The worker's workflow versions, beginning with another one at each call: none is starved."""
        with self._lock:
            keys = self._worker(worker_id).keys
            if keys:
                keys.append(keys.pop(0))
            return list(keys)

    def workflows(self, worker_id: str) -> list[tuple[str, str]]:
        """The worker's workflow versions."""
        with self._lock:
            return sorted(self._worker(worker_id).keys)

    def leases(self, worker_id: str, holds: Iterable[Fence] | None = None) -> list[Fence]:
        """What the worker holds by a lease, as far as is known here.

        With `holds`, what it says itself, but for what was lost or needs no lease yet. Leases that it does not name are
        forgotten: they were handed out and never arrived, or are given up.
        """
        with self._lock:
            held = self._worker(worker_id).held
            if holds is None:
                return [one.attempt for one in held.values() if one.delivery is None and not one.is_lost]
            named = list(dict.fromkeys(holds))
            for attempt, one in list(held.items()):
                if one.delivery is None and attempt not in named:
                    del held[attempt]
            known = [held.get(attempt) for attempt in named]
            return [
                attempt
                for attempt, one in zip(named, known, strict=True)
                if one is None or (one.delivery is None and not one.is_lost)
            ]

    # ---- attempts

    def hold(self, worker_id: str, assignment: StepAssignment, delivery: Delivery) -> Held:
        """The worker has this attempt now."""
        held = Held(worker_id, assignment, delivery)
        with self._lock:
            self._worker(worker_id).held[held.attempt] = held
        # The link itself from here on: once closed, the background link refuses calls, also those from its own thread,
        # and what a callback raises there takes the thread down before the last publishes are out.
        link = self._link.link
        link.call_soon_threadsafe(partial(self._schedule_claim, link, held))
        return held

    def _schedule_claim(self, link: Link, held: Held) -> None:
        link.call_later(self._claim_after_seconds, partial(self._claim_later, link, held))

    def forget(self, held: Held) -> None:
        """Its worker does not get it after all."""
        with self._lock:
            mine = self._worker(held.worker_id).held
            if mine.get(held.attempt) is held:
                del mine[held.attempt]
            held.is_over = True
            held.delivery = None

    def find(self, worker_id: str, report: StepReport) -> Held | None:
        """What the worker holds and reports of."""
        with self._lock:
            return self._worker(worker_id).held.get(attempt_of(report))

    def is_held_by_other(self, worker_id: str, report: StepReport) -> bool:
        """True when another worker of this broker has the attempt."""
        with self._lock:
            return any(
                attempt_of(report) in worker.held for i, worker in self._workers.items() if i != worker_id
            )

    def reported(self, worker_id: str, report: StepReport, held: Held | None) -> None:
        """RabbitMQ has the report: the delivery may go."""
        with self._lock:
            self._worker(worker_id).held.pop(attempt_of(report), None)
            self._reported.add(worker_id, report)
            delivery = None
            if held is not None:
                held.is_over = True
                delivery, held.delivery = held.delivery, None
        if delivery is not None:
            self._link.ack(delivery)

    def was_reported(self, worker_id: str, report: StepReport) -> bool:
        """True when the worker has reported the same before."""
        with self._lock:
            return self._reported.knows(worker_id, report)

    def lose(self, notice: ControlNotice) -> list[Delivery]:
        """A coordinator says that attempts are held no longer; returns deliveries that nobody needs again."""
        named = None if notice.attempts is None else set(notice.attempts)
        needless = []
        with self._lock:
            self._stopped.add(notice)
            for worker in self._workers.values():
                for held in worker.held.values():
                    instance_id, step, attempt = held.attempt
                    if instance_id != notice.instance_id or notice.worker_id not in (None, held.worker_id):
                        continue
                    if named is None:
                        is_of_then = held.assignment.replays <= notice.replays
                        is_meant = is_of_then and step not in notice.spare
                    else:  # what is pulled was not gone on with
                        is_meant = (step, attempt) in named and notice.continued_from is None
                    if is_meant:
                        held.is_lost = True
                        if held.delivery is not None:
                            needless.append(held.delivery)
                            held.delivery = None
        return needless

    def is_stopped(self, assignment: StepAssignment) -> bool:
        """True for a step of a run that was stopped: it is not to be handed out."""
        with self._lock:
            return assignment in self._stopped

    # ---- claims

    def claim_now(self, held: Held, deadline_seconds: float) -> None:
        """Turn the delivery into a lease, and return when RabbitMQ has the claim."""
        exchange, body, properties = self._claim(held)
        self._link.publish(exchange, "", body, properties, deadline_seconds=deadline_seconds)
        self._claimed(held, self._link.ack)

    def _claim_later(self, link: Link, held: Held) -> None:
        if held.is_over or held.is_lost or held.delivery is None or self._closed.is_set():
            return
        exchange, body, properties = self._claim(held)

        def published(error: FuselineError | None) -> None:
            if error is None:
                self._claimed(held, link.ack)
            elif not self._closed.is_set():
                link.call_later(1.0, partial(self._claim_later, link, held))

        link.publish(exchange, "", body, properties, on_done=published, deadline_seconds=CLAIM_SECONDS)

    def _claim(self, held: Held) -> tuple[str, bytes, codec.Properties]:
        assignment = held.assignment
        claim = Claim(
            workflow_id=assignment.workflow_id,
            instance_id=assignment.instance_id,
            step_name=assignment.step_name,
            attempt=assignment.attempt,
            worker_id=held.worker_id,
        )
        properties = codec.properties(
            codec.CLAIM,
            message_id=self._clock.new_id(),
            timestamp=self._clock.now(),
            correlation_id=assignment.instance_id,
        )
        return self._topology.reports_exchange(assignment.workflow_id), codec.encode(claim), properties

    def _claimed(self, held: Held, ack: Callable[[Delivery], None]) -> None:
        with self._lock:
            delivery, held.delivery = held.delivery, None
        if delivery is not None:
            ack(delivery)

    # ---- waiting

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End waits and claims."""
        self._closed.set()

"""What leaves a coordinator: assignments, answers, notices to workers, events, and what nothing can place."""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.topology import DEFAULT_EXCHANGE, Topology
from fuseline.amqp.wire import ControlNotice, Reply
from fuseline.clock import Clock
from fuseline.coordinator.announcing import Announcer
from fuseline.coordinator.parking import PUBLISH_SECONDS, RETRY_SECONDS, Parking
from fuseline.coordinator.refusing import Refusals
from fuseline.errors import (
    BrokerBusyError,
    CallerError,
    DeadlineExceededError,
    FuselineError,
    InvalidMessageError,
    MessageTooLargeError,
)
from fuseline.ledger import Outcome
from fuseline.model.messages import StepAssignment

log = logging.getLogger(__name__)

MAX_TRIES = 3
MAX_UNCONFIRMED = 10_000
MAX_UNCONFIRMED_BYTES = 64 * 1024 * 1024
"""Assignments, and bytes of them, on their way to RabbitMQ; a wide fan-out of a large result waits unencoded (P6)."""


MakeQueue: TypeAlias = Callable[[tuple[str, str], Callable[[FuselineError | None], None]], None]


class _Assigned:
    """An assignment that waits for its turn, and then for RabbitMQ to have it, in up to `tries` tries."""

    __slots__ = ("_outbox", "assignment", "body", "expiry_seconds", "on_done", "tries")

    def __init__(
        self,
        outbox: Outbox,
        assignment: StepAssignment,
        expiry_seconds: float | None,
        on_done: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self.assignment = assignment
        self.expiry_seconds = expiry_seconds
        self.on_done = on_done
        self.body = b""
        self.tries = MAX_TRIES

    def published(self, error: FuselineError | None) -> None:
        """RabbitMQ has it, or this try has failed."""
        if error is None:
            self._outbox.end(self)
        else:
            self._outbox.failed(self, error)

    def again(self, error: FuselineError | None = None) -> None:
        """Try once more; `error`: its queue could not be declared before that."""
        if error is not None:
            log.warning("queue of %s cannot be declared: %s", self.assignment.workflow_id, error)
        self.tries -= 1
        self._outbox.send(self)


class Outbox:
    """Publishes on one link, to each queue of steps on a channel of its own.

    `declare_workflow((workflow_id, version), then)` makes a missing queue exist again, `mend_workflow` likewise one that
    exists and confirms nothing.
    """

    def __init__(
        self,
        link: Link,
        topology: Topology,
        clock: Clock,
        declare_workflow: MakeQueue,
        mend_workflow: MakeQueue | None = None,
    ) -> None:
        self._link = link
        self._topology = topology
        self._steps_exchange = topology.steps_exchange
        self._clock = clock
        self._declare_workflow = declare_workflow
        self._mend_workflow = mend_workflow or declare_workflow
        self._announcer = Announcer(link, topology, clock)
        self.parking = Parking(link, topology, clock)
        self._waiting: deque[_Assigned] = deque()
        self._unconfirmed = self._unconfirmed_bytes = 0
        self._is_stopped = False
        self.refusals = Refusals(link)
        self.given_up = 0

    def stop(self) -> None:
        """Nothing more is assigned, and what is not confirmed by now is never done: it is offered again by the next."""
        self._is_stopped = True
        self.refusals.stop()
        self._announcer.stop()

    @property
    def is_behind(self) -> bool:
        """Whether as many assignments wait for their turn as may be on their way."""
        return len(self._waiting) > MAX_UNCONFIRMED

    def assign(self, outcome: Outcome, assignment: StepAssignment, on_done: Callable[[], None]) -> None:
        """Put an assignment into its queue; `on_done` when RabbitMQ has it, or when it is left to the sweep.

        One that can never be sent, such as one that is larger than RabbitMQ allows, is for the `refusals` before that.
        """
        expiry = outcome.expiry_seconds.get(assignment.step_name)
        self._waiting.append(_Assigned(self, assignment, expiry, on_done))
        self._send_waiting()

    def flush(self) -> None:
        """Have what was published leave now, not at the end of the loop's turn."""
        self._link.flush()

    def _send_waiting(self) -> None:
        while (
            self._waiting
            and not self._is_stopped
            and self._unconfirmed < MAX_UNCONFIRMED
            and self._unconfirmed_bytes < MAX_UNCONFIRMED_BYTES
        ):
            one = self._waiting.popleft()
            try:
                # Inputs and results came in as JSON, so all of it is plain.
                one.body = codec.encode_plain(vars(one.assignment), nesting=codec.MAX_WRAPPED_NESTING)
            except InvalidMessageError as error:  # only nesting under a wrapper can get here
                self._refuse(one, error, one.on_done)
                continue
            self._unconfirmed += 1
            self._unconfirmed_bytes += len(one.body)
            self.send(one)

    def end(self, one: _Assigned) -> None:
        """Nothing more is to be done about it."""
        self._unconfirmed -= 1
        self._unconfirmed_bytes -= len(one.body)
        one.on_done()
        if self._waiting:
            self._send_waiting()

    def _refuse(self, one: _Assigned, error: FuselineError, on_done: Callable[[], None]) -> None:
        log.error("assignment of %s/%s: %s", one.assignment.instance_id, one.assignment.step_name, error)
        self.given_up += 1
        self.refusals.add(one.assignment, error, on_done)

    def send(self, one: _Assigned) -> None:
        """Publish it once."""
        assignment = one.assignment
        instance_id = assignment.instance_id
        self._link.publish(
            self._steps_exchange,
            self._topology.steps_key(assignment.workflow_id, assignment.workflow_version),
            one.body,
            codec.properties(
                codec.ASSIGNMENT,
                message_id=f"{instance_id}/{assignment.step_name}/{assignment.attempt}",
                timestamp=assignment.assigned_at,
                correlation_id=instance_id,
                expiration_seconds=one.expiry_seconds,
            ),
            on_done=one.published,
            deadline_seconds=PUBLISH_SECONDS,
            apart=True,
        )

    def failed(self, one: _Assigned, error: FuselineError) -> None:
        """A try has failed."""
        if self._is_stopped:
            return  # closed over it: its cause stays unacknowledged
        assignment = one.assignment
        key = (assignment.workflow_id, assignment.workflow_version)
        if isinstance(error, CallerError):
            self._refuse(one, error, lambda: self.end(one))
        elif one.tries <= 1:
            self.given_up += 1
            log.error(
                "assignment of step %s of run %s is left to the sweep: %s",
                assignment.step_name,
                assignment.instance_id,
                error,
            )
            self.end(one)
        elif isinstance(error, BrokerBusyError) and (one.tries == MAX_TRIES or self._link.is_blocked):
            self._link.call_later(1.0, one.again)
        elif isinstance(error, BrokerBusyError | DeadlineExceededError):  # full; or it has no leader
            log.warning("%s; looking whether the queue answers", error)
            self._mend_workflow(key, one.again)
        else:  # the queue was deleted, or the server lost it
            log.warning("%s; declaring the queue again", error)
            self._declare_workflow(key, one.again)

    def reply(self, request: Delivery, reply: Reply) -> None:
        """Answer a command. Nobody waits any more: dropped, for the caller repeats what it needs."""
        address = request.properties.reply_to
        if not address:
            return
        body = codec.encode(reply, nesting=codec.MAX_WRAPPED_NESTING)
        asked_by = request.properties.correlation_id
        size = len(body)

        def sent(error: FuselineError | None) -> None:
            if isinstance(error, CallerError) and reply.ok:  # who asked would wait, and take us for dead
                told = MessageTooLargeError(f"the answer has {size} bytes, and cannot be sent: {error}")
                self._send_away(address, codec.encode(Reply.failure(told)), codec.REPLY, asked_by)
            else:
                _debug_failure(error)

        self._send_away(address, body, codec.REPLY, asked_by, sent)

    def notify(self, addresses: Sequence[str], notice: ControlNotice) -> None:
        """Tell workers; one that is gone is told when its next heartbeat shows that it missed it."""
        body = codec.encode(notice)
        for address in addresses:
            self._send_away(address, body, codec.CONTROL, notice.instance_id)

    def _send_away(
        self,
        address: str,
        body: bytes,
        message_type: str,
        correlation_id: str | None,
        on_done: Callable[[FuselineError | None], None] | None = None,
    ) -> None:
        self._link.publish(
            DEFAULT_EXCHANGE,
            address,
            body,
            codec.properties(
                message_type,
                message_id=self._clock.new_id(),
                timestamp=self._clock.now(),
                correlation_id=correlation_id,
            ),
            on_done=on_done or _debug_failure,
            deadline_seconds=PUBLISH_SECONDS,
            mandatory=False,
        )

    def put_back(self, delivery: Delivery, on_done: Callable[[], None]) -> None:
        """Send a report to the end of its queue. Tried until it is safe there: the delivery is acked after it."""

        def published(error: FuselineError | None) -> None:
            if error is None:
                on_done()
            elif isinstance(error, CallerError):
                self.parking.park(delivery, f"it cannot be put back: {error}", on_done)
            else:
                log.warning("cannot put a report back, trying again: %s", error)
                self._link.call_later(RETRY_SECONDS, send)

        def send() -> None:
            properties = copy.copy(delivery.properties)
            properties.user_id = None  # RabbitMQ takes it from none but its user
            self._link.publish(
                delivery.exchange,
                "",
                delivery.body,
                properties,
                on_done=published,
                deadline_seconds=PUBLISH_SECONDS,
            )

        send()

    def events(self, outcome: Outcome) -> None:
        """Tell whoever listens."""
        self._announcer.tell(outcome)


def _debug_failure(error: FuselineError | None) -> None:
    if error is not None:
        log.debug("not delivered: %s", error)

"""The broker over RabbitMQ: needs the AMQP address and a coordinator somewhere, no database and no management API.

Requests (dispatch, cancel, views) are commands that a coordinator answers. Steps are taken straight from the step
queues and reported straight to the reports exchange. Thread-safe; survives reconnects; every call has a deadline.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import REPLY_TO, Topology
from fuseline.amqp.wire import ControlKind, ControlNotice, Heartbeat, read
from fuseline.broker.asking import Asking
from fuseline.broker.base import Broker
from fuseline.broker.defining import Defining
from fuseline.broker.dispatching import checked_inputs, runs_at_once
from fuseline.broker.holding import Held, Holdings
from fuseline.broker.ready import Fence
from fuseline.clock import Clock, SystemClock
from fuseline.errors import (
    DeadlineExceededError,
    InvalidMessageError,
    MessageTooLargeError,
    StaleReportError,
    TopologyError,
    UnknownRunError,
)
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.model.views import (
    DeadLetterDetail,
    DeadLetterView,
    ReplayView,
    RunSummary,
    RunView,
    WorkerView,
    WorkflowView,
)

DEFAULT_HOLD_SECONDS = 60.0


class AmqpBroker(Broker):
    """`url` is an AMQP address, or several of one cluster with commas between, or a sequence of them.

    `call_seconds` is the deadline of each call.

    A step that `get_step` handed out is held as an unacknowledged delivery for `claim_after_seconds`, then by a lease
    that `keep_alive` carries on.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        prefix: str = "fuseline",
        topology: Topology | None = None,
        call_seconds: float = 30.0,
        claim_after_seconds: float = 10.0,
        max_message_bytes: int = 8 * 1024 * 1024,
        clock: Clock | None = None,
    ) -> None:
        self.url = url
        self.topology = topology or Topology(prefix)
        self._call_seconds = call_seconds
        self._max_message_bytes = max_message_bytes
        self._clock = clock or SystemClock()
        self._link = BackgroundLink(
            url, name=f"fuseline client {os.getpid()}", clock=self._clock, on_notice=self._noticed
        )
        self._asking = Asking(
            self._link,
            self.topology,
            self._clock,
            call_seconds=call_seconds,
            max_message_bytes=max_message_bytes,
        )
        self._defining = Defining(self._asking)
        self._holdings = Holdings(self._link, self.topology, self._clock, claim_after_seconds)

    # ---- workers

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        """See `Broker`."""
        schemas = list(workflows)
        worker_id = self._clock.new_id()
        self._register(worker_id, schemas)
        self._defining.defined(schemas)
        self._holdings.add_worker(worker_id, [schema.key for schema in schemas])
        return worker_id

    def _register(self, worker_id: str, schemas: Iterable[WorkflowSchema]) -> None:
        args = {
            "workflows": [schema.model_dump(mode="json") for schema in schemas],
            "worker_id": worker_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._asking.ask("register", args, self.topology.worker_commands_exchange)

    def get_step(self, worker_id: str) -> StepAssignment | None:
        """See `Broker`."""
        for key in self._holdings.queues(worker_id):
            while (delivery := self._get(worker_id, key)) is not None:
                assignment = self._take(worker_id, delivery)
                if assignment is not None:
                    return assignment
        return None

    def _get(self, worker_id: str, key: tuple[str, str]) -> Delivery | None:
        try:
            return self._link.get(self.topology.steps_queue(*key), deadline_seconds=self._call_seconds)
        except TopologyError:  # somebody deleted the queue: registering makes a coordinator declare it
            self._register(worker_id, self._defining.of(self._holdings.workflows(worker_id)))
            return None

    def _take(self, worker_id: str, delivery: Delivery) -> StepAssignment | None:
        """Hold a delivery for the worker; None when it is not to be executed."""
        try:
            assignment = read(StepAssignment, delivery.body)
        except InvalidMessageError:
            self._link.nack(delivery, requeue=False)  # the coordinator finds it among the dead and parks it
            return None
        if self._holdings.is_stopped(assignment):
            self._link.ack(delivery)
            return None
        held: Held | None = None
        try:
            if delivery.redelivered and not self._check(worker_id, assignment)["current"]:
                self._link.ack(delivery)
                return None
            now = self._clock.now()
            hold = assignment.timeout_seconds or DEFAULT_HOLD_SECONDS
            assignment = assignment.model_copy(update={"assigned_at": now, "expires_at": now + hold})
            held = self._holdings.hold(worker_id, assignment, delivery)
            if delivery.properties.expiration is not None or delivery.redelivered:
                # Its expiry also runs in the coordinator, which cannot see that a delivery is held: tell it at once. And
                # whoever had it before may have been killed by it: from the second time on each holder is counted.
                self._holdings.claim_now(held, self._call_seconds)
        except BaseException:
            # Nobody has got it, so that nobody would ever report it or give up its lease.
            if held is not None:
                self._holdings.forget(held)
            self._link.nack(delivery, requeue=True)
            raise
        return assignment

    def report_step(self, worker_id: str, report: StepReport) -> None:
        """See `Broker`. Raises `MessageTooLargeError`, `InvalidMessageError` for a result that is not JSON."""
        self._holdings.seen(worker_id)
        report = report.model_copy(update={"worker_id": worker_id})
        body = codec.encode(report)
        if len(body) > self._max_message_bytes:
            raise MessageTooLargeError(
                f"the report of step {report.step_name!r} has {len(body)} bytes, over {self._max_message_bytes}"
            )
        held = self._holdings.find(worker_id, report)
        if held is None and self._holdings.was_reported(worker_id, report):
            return
        if held is None or held.is_lost:
            self._refuse_unless_current(worker_id, report)
        self._link.publish(
            self.topology.reports_exchange(report.workflow_id),
            "",
            body,
            codec.properties(
                codec.REPORT,
                message_id=self._clock.new_id(),
                timestamp=self._clock.now(),
                correlation_id=report.instance_id,
            ),
            deadline_seconds=self._call_seconds,
        )
        self._holdings.reported(worker_id, report, held)

    def _refuse_unless_current(self, worker_id: str, report: StepReport) -> None:
        """This broker does not hold it for the worker; the coordinator knows whether it may still be reported."""
        answer = self._check(worker_id, report)
        if not answer["known"]:
            raise UnknownRunError(f"no run {report.instance_id!r} is known")
        if self._holdings.is_held_by_other(worker_id, report) or not answer["current"]:
            raise StaleReportError(
                f"attempt {report.attempt} of step {report.step_name!r} is over, or another worker holds it"
            )

    def _check(self, worker_id: str, what: StepAssignment | StepReport) -> dict[str, Any]:
        args = {
            "instance_id": what.instance_id,
            "step_name": what.step_name,
            "attempt": what.attempt,
            "worker_id": worker_id,
        }
        answer: dict[str, Any] = self._asking.ask("check", args, self.topology.worker_commands_exchange)
        return answer

    def keep_alive(self, worker_id: str, *, holds: Iterable[Fence] | None = None) -> None:
        """See `Broker`. `holds`: carry on only these (instance_id, step, attempt), for a worker that is far away.

        What was handed out and got lost on its way to it would be carried on for ever otherwise (P1).
        """
        self._holdings.seen(worker_id)
        beat = Heartbeat(
            worker_id=worker_id,
            workflows=self._holdings.workflows(worker_id),
            leases=self._holdings.leases(worker_id, holds),
            host=socket.gethostname(),
            pid=os.getpid(),
            sent_at=self._clock.now(),
        )
        self._link.publish(
            self.topology.heartbeats_exchange,
            "",
            codec.encode(beat),
            codec.properties(
                codec.HEARTBEAT,
                message_id=self._clock.new_id(),
                timestamp=self._clock.now(),
                reply_to=REPLY_TO,
            ),
            deadline_seconds=self._call_seconds,
            mandatory=False,
        )

    def _noticed(self, delivery: Delivery) -> None:
        """On the link's thread: a coordinator says that something held here is held no longer."""
        try:
            notice = read(ControlNotice, delivery.body)
        except InvalidMessageError:
            return  # a late answer to a call that was given up
        if notice.kind is ControlKind.STOP:
            for delivery in self._holdings.lose(notice):
                self._link.link.ack(delivery)

    # ---- runs

    def dispatch_workflow(
        self,
        workflow: WorkflowSchema,
        inputs: dict[str, Any] | None = None,
        *,
        instance_id: str | None = None,
    ) -> str:
        """See `Broker`. With `instance_id` the call can be repeated: twice the same id is one run."""
        args = {
            "instance_id": instance_id or self._clock.new_id(),
            "inputs": checked_inputs(workflow, inputs or {}),
        }
        return str(self._defining.dispatch(workflow, "dispatch", [args])[0]["instance_id"])

    def dispatch_many(
        self,
        workflow: WorkflowSchema,
        inputs: Sequence[dict[str, Any] | None],
        *,
        instance_ids: Sequence[str] | None = None,
    ) -> list[str]:
        """See `Broker`. All inputs are checked before the first run is dispatched, and a few commands carry all of them.

        With `instance_ids`, one for each, the call can be repeated: twice the same id is one run.
        """
        ids = self._clock.new_ids(len(inputs)) if instance_ids is None else list(instance_ids)
        parts = [{"runs": runs} for runs in runs_at_once(workflow, inputs, ids)]
        if parts:
            self._defining.dispatch(workflow, "dispatch_many", parts)
        return ids

    def get_run(self, instance_id: str) -> RunView:
        """See `Broker`."""
        return RunView(**self._asking.ask("get_run", {"instance_id": instance_id}))

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunSummary]:
        """See `Broker`."""
        args = {"workflow_id": workflow_id, "state": state, "limit": limit, "before": before}
        return [RunSummary(**run) for run in self._asking.ask("list_runs", args)]

    def cancel_run(self, instance_id: str) -> None:
        """See `Broker`."""
        replays = self._asking.ask("cancel", {"instance_id": instance_id}).get("replays", 0)
        # A notice comes only to who sends keep-alives; what this broker holds or takes of the run is known to be over.
        notice = ControlNotice(kind=ControlKind.STOP, instance_id=instance_id, replays=replays)
        for delivery in self._holdings.lose(notice):
            self._link.ack(delivery)

    def list_dead_letters(
        self,
        *,
        workflow_id: str | None = None,
        instance_id: str | None = None,
        reason: DeadLetterReason | None = None,
        state: DeadLetterState | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[DeadLetterView]:
        """See `Broker`."""
        args = {
            "workflow_id": workflow_id,
            "instance_id": instance_id,
            "reason": reason,
            "state": state,
            "limit": limit,
            "before": before,
        }
        return [DeadLetterView(**letter) for letter in self._asking.ask("list_dead_letters", args)]

    def get_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """See `Broker`."""
        return DeadLetterDetail(**self._asking.ask("get_dead_letter", {"letter_id": letter_id}))

    def replay_dead_letter(self, letter_id: str) -> ReplayView:
        """See `Broker`."""
        return ReplayView(**self._asking.ask("replay_dead_letter", {"letter_id": letter_id}))

    def discard_dead_letter(self, letter_id: str) -> DeadLetterView:
        """See `Broker`."""
        return DeadLetterView(**self._asking.ask("discard_dead_letter", {"letter_id": letter_id}))

    def list_workers(self) -> list[WorkerView]:
        """See `Broker`."""
        return [WorkerView(**worker) for worker in self._asking.ask("list_workers", {})]

    def list_workflows(self) -> list[WorkflowView]:
        """See `Broker`."""
        return [WorkflowView(**workflow) for workflow in self._asking.ask("list_workflows", {})]

    def get_workflow(self, workflow_id: str, version: str | None = None) -> WorkflowSchema:
        """See `Broker`."""
        return WorkflowSchema(
            **self._asking.ask("get_workflow", {"workflow_id": workflow_id, "version": version})
        )

    def status(self) -> Mapping[str, Any]:
        """See `Broker`."""
        answer: dict[str, Any] = self._asking.ask("status", {})
        return answer

    def wait(self, instance_id: str, timeout: float | None = None) -> RunView:
        """See `Broker`. Asks for the state with growing pauses, up to half a second."""
        start = self._clock.monotonic()
        pause = 0.01
        while True:
            state = RunStatus(self._asking.ask("get_run_state", {"instance_id": instance_id})["state"])
            if state.is_terminal:
                return self.get_run(instance_id)
            left = None if timeout is None else start + timeout - self._clock.monotonic()
            if left is not None and left <= 0:
                raise DeadlineExceededError(f"run {instance_id} did not end within {timeout:g} s; it goes on")
            self._holdings.pause(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, 0.5)

    def close(self) -> None:
        """Disconnect; what workers of this broker still held goes back to its queue."""
        self._holdings.close()
        self._link.close()

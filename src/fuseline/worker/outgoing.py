"""What a worker publishes: reports and claims until they are confirmed, heartbeats once, and questions."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.topology import REPLY_TO, Topology
from fuseline.amqp.wire import Claim, Command, Heartbeat, Reply, read
from fuseline.clock import Clock
from fuseline.errors import FuselineError, RetryableError
from fuseline.worker.leases import Held, Key
from fuseline.worker.reporting import OnSent, Reporting
from fuseline.worker.reports import Sealed

log = logging.getLogger(__name__)

PUBLISH_SECONDS: Final = 30.0
"""Deadline of one try; while there is no connection a message waits in the link that long."""
RETRY_SECONDS: Final = (0.2, 10.0)


def _always() -> bool:
    return True


class Outgoing:
    """Publishes on one link. `worker_id` names the worker in all that it says."""

    def __init__(self, link: Link, topology: Topology, clock: Clock, worker_id: str) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._worker_id = worker_id
        self._reporting = Reporting(link, clock, self._send)
        self.is_closed = False  # set when the link goes for good: nothing is tried again

    def report(self, held: Held, sealed: Sealed, on_sent: OnSent) -> None:
        """Send a report until it is confirmed; `on_sent` gets None, or why no further try can help."""
        self._reporting.report(held, sealed, on_sent)

    def flush(self) -> None:
        """Send at once the reports that were taken in this turn."""
        self._reporting.flush()
        self._link.flush()

    def claim(self, claim: Claim, wanted: Callable[[], bool], on_sent: OnSent) -> None:
        """Send a claim, or a release, until it is confirmed or not `wanted` any more (which is no `on_sent`)."""
        what = "release" if claim.released else "claim"
        name = f"{claim.instance_id}/{claim.step_name}/{claim.attempt}/{what}"
        properties = codec.properties(
            codec.CLAIM, message_id=name, timestamp=self._clock.now(), correlation_id=claim.instance_id
        )
        self._send(claim.workflow_id, codec.encode(claim), properties, on_sent, wanted)

    def beat(self, workflows: Sequence[tuple[str, str]], leases: list[Key], lives_seconds: float) -> None:
        """Say once that the worker lives and what it holds. Nobody may listen, and the next beat comes soon."""
        beat = Heartbeat(
            worker_id=self._worker_id,
            workflows=list(workflows),
            leases=leases,
            host=socket.gethostname(),
            pid=os.getpid(),
            sent_at=self._clock.now(),
        )
        properties = codec.properties(
            codec.HEARTBEAT,
            message_id=self._clock.new_id(),
            timestamp=self._clock.now(),
            reply_to=REPLY_TO,
        )
        properties.delivery_mode = 1
        self._link.publish(
            self._topology.heartbeats_exchange,
            "",
            codec.encode(beat),
            properties,
            on_done=_log_lost_beat,
            deadline_seconds=lives_seconds,
            mandatory=False,
        )

    def ask(
        self,
        name: str,
        args: dict[str, Any],
        on_answer: Callable[[Any | FuselineError], None],
        deadline_seconds: float,
    ) -> None:
        """Put a question to the coordinator; `on_answer` gets its result, or the error."""

        def answered(outcome: Delivery | FuselineError) -> None:
            if isinstance(outcome, FuselineError):
                on_answer(outcome)
                return
            try:
                value = read(Reply, outcome.body).value()
            except FuselineError as error:
                on_answer(error)
            else:
                on_answer(value)

        self._link.rpc(
            self._topology.worker_commands_exchange,
            "",
            codec.encode(Command(name=name, args=args)),
            codec.properties(codec.COMMAND, message_id=self._clock.new_id(), timestamp=self._clock.now()),
            on_reply=answered,
            deadline_seconds=deadline_seconds,
        )

    def check(self, held: Held, on_answer: Callable[[Any | FuselineError], None], seconds: float) -> None:
        """Ask whether an attempt is still to be executed by this worker: `{"current": bool}`."""
        instance_id, step_name, attempt = held.key
        args = {
            "instance_id": instance_id,
            "step_name": step_name,
            "attempt": attempt,
            "worker_id": self._worker_id,
        }
        self.ask("check", args, on_answer, seconds)

    def _send(
        self,
        workflow_id: str,
        body: bytes,
        properties: codec.Properties,
        on_sent: OnSent,
        wanted: Callable[[], bool] = _always,
        wait_seconds: float = RETRY_SECONDS[0],
    ) -> None:
        def published(error: FuselineError | None) -> None:
            if error is None or not isinstance(error, RetryableError):
                on_sent(error)
                return
            if self.is_closed:
                return
            log.warning("%s is not sent yet, trying again: %s", properties.message_id, error)
            longer = min(wait_seconds * 2, RETRY_SECONDS[1])
            self._link.call_later(
                wait_seconds,
                partial(self._send, workflow_id, body, properties, on_sent, wanted, longer),
            )

        if wanted():
            self._link.publish(
                self._topology.reports_exchange(workflow_id),
                "",
                body,
                properties,
                on_done=published,
                deadline_seconds=PUBLISH_SECONDS,
            )


def _log_lost_beat(error: FuselineError | None) -> None:
    if error is not None:
        log.debug("a heartbeat is lost: %s", error)

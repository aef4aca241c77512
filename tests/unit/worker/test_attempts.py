"""What becomes of an attempt when its report cannot be sent as it is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.clock import ManualClock
from fuseline.errors import AccessRefusedError, FuselineError, InvalidMessageError, MessageTooLargeError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.status import Status
from fuseline.testing.flows import graph
from fuseline.worker.attempts import Attempts
from fuseline.worker.leases import Phase
from fuseline.worker.options import Options
from fuseline.worker.reports import Sealed, Sealer


class Outgoing:
    """Keeps reports, and who waits for their confirm."""

    def __init__(self) -> None:
        self.reports: list[tuple[Sealed, Any]] = []

    def report(self, _held: Any, sealed: Sealed, on_sent: Any) -> None:
        self.reports.append((sealed, on_sent))


class Slots:
    """One place, whose body returns when it is told to."""

    free, abandoned, is_exhausted = 1, 0, False

    def on_freed(self, _callback: Any) -> None:
        """None is abandoned."""

    def start(self, _job: Any, done: Any) -> Any:
        self.free, self.done = 0, done
        return SimpleNamespace(stop=lambda: True)

    def end(self) -> None:
        self.free = 1


ASSIGNMENT = StepAssignment(
    workflow_id="w",
    workflow_version="1",
    instance_id="i",
    step_name="a",
    payload={},
    assigned_at=0,
    expires_at=60,
)


class Desk:
    """The attempts of a worker with one place, of a workflow `w` with steps a -> b."""

    def __init__(self, fusion_hops: int = 0) -> None:
        self.outgoing = Outgoing()
        self.slots = Slots()
        self.fatal: list[FuselineError] = []
        self.acked: list[Delivery] = []
        self._sealer = Sealer(ManualClock(), 1_000_000, "me")
        catalog: Any = SimpleNamespace(
            keys=[("w", "1")],
            schemas=[graph("w", {"a": ["b"]})],
            knows=lambda _one: True,
            job=lambda *_args: SimpleNamespace(timed_out=None),
        )
        self.attempts = Attempts(
            catalog,
            cast("Any", self.slots),
            cast("Any", self.outgoing),
            self._sealer,
            Options(concurrency=1, fusion_hops=fusion_hops),
            ManualClock(),
            "me",
            on_change=lambda: None,
            on_fatal=self.fatal.append,
        )
        intake: Any = SimpleNamespace(ack=self.acked.append)
        self.attempts.intake = intake
        self._tag = 0

    def receive(self, assignment: StepAssignment) -> None:
        self._tag += 1
        properties = codec.properties(codec.ASSIGNMENT, message_id="m", timestamp=0)
        self.attempts.receive(
            Delivery(self._tag, 1, codec.encode(assignment), properties, "e", "k", False, "q", None)
        )

    def end_body(self) -> None:
        report = StepReport(
            workflow_id="w",
            instance_id="i",
            step_name="a",
            attempt=1,
            state=Status.SUCCEEDED,
            result="x" * 9,
        )
        self.slots.done(self._sealer.seal(report))


@pytest.mark.parametrize(
    ("error", "ends_worker"),
    [
        (MessageTooLargeError("message size 9 is larger than configured max size 8"), False),
        (InvalidMessageError("RabbitMQ refuses the message"), False),
        (AccessRefusedError("publishing to exchange 'e'"), True),
    ],
)
def test_a_report_that_rabbitmq_does_not_take_fails_its_step(error: FuselineError, ends_worker: bool) -> None:
    """P1, P7: RabbitMQ's limit may be below ours. It would end one worker after the other."""
    asyncio.run(report_refused(error, ends_worker))


async def report_refused(error: FuselineError, ends_worker: bool) -> None:
    desk = Desk()
    desk.receive(ASSIGNMENT)
    desk.attempts.pump()
    desk.end_body()
    await asyncio.sleep(0)
    ((_, first_sent),) = desk.outgoing.reports
    first_sent(error)
    assert desk.fatal == ([error] if ends_worker else [])
    assert desk.acked == []  # no report is confirmed yet (P4)
    if not ends_worker:
        instead, sent = desk.outgoing.reports[1]
        assert instead.report.state is Status.FAILED
        assert instead.report.error is not None
        assert str(error) in instead.report.error.message
        sent(None)
        assert [one.tag for one in desk.acked] == [1]
        assert len(desk.attempts.held) == 0
    desk.attempts.close()


def test_what_waits_begins_when_a_step_that_was_to_be_gone_on_with_is_not() -> None:
    """P1: the refused report had kept the place for the next step, and it stayed empty until something else came."""
    asyncio.run(fused_report_refused())


async def fused_report_refused() -> None:
    desk = Desk(fusion_hops=5)
    desk.receive(ASSIGNMENT)
    desk.receive(ASSIGNMENT.model_copy(update={"instance_id": "other"}))
    desk.attempts.pump()
    desk.end_body()
    await asyncio.sleep(0)
    assert [held.following is not None for held in desk.attempts.held] == [True, False]
    ((_, sent),) = desk.outgoing.reports
    sent(MessageTooLargeError("larger than RabbitMQ's limit"))
    assert [held.phase for held in desk.attempts.held] == [Phase.REPORTING, Phase.RUNNING]
    desk.attempts.close()

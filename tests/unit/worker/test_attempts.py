"""What becomes of an attempt when its report cannot be sent as it is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.clock import ManualClock
from fuseline.errors import AccessRefusedError, FuselineError, InvalidMessageError, MessageTooLargeError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.status import Status
from fuseline.worker.attempts import Attempts
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
    outgoing: Any = Outgoing()
    slots: Any = Slots()
    fatal: list[FuselineError] = []
    acked: list[Delivery] = []
    catalog: Any = SimpleNamespace(
        keys=[("w", "1")],
        schemas=[],
        knows=lambda _one: True,
        job=lambda *_args: SimpleNamespace(timed_out=None),
    )
    attempts = Attempts(
        catalog,
        slots,
        outgoing,
        Sealer(ManualClock(), 1_000_000, "me"),
        Options(concurrency=1),
        ManualClock(),
        "me",
        on_change=lambda: None,
        on_fatal=fatal.append,
    )
    intake: Any = SimpleNamespace(ack=acked.append)
    attempts.intake = intake
    properties = codec.properties(codec.ASSIGNMENT, message_id="m", timestamp=0)
    delivery = Delivery(1, 1, codec.encode(ASSIGNMENT), properties, "e", "k", False, "q", None)
    attempts.receive(delivery)
    attempts.pump()
    report = StepReport(
        workflow_id="w", instance_id="i", step_name="a", attempt=1, state=Status.SUCCEEDED, result="x" * 9
    )
    slots.done(Sealer(ManualClock(), 1_000_000, "me").seal(report))
    await asyncio.sleep(0)
    ((_, first_sent),) = outgoing.reports
    first_sent(error)
    assert fatal == ([error] if ends_worker else [])
    assert acked == []  # no report is confirmed yet (P4)
    if not ends_worker:
        instead, sent = outgoing.reports[1]
        assert instead.report.state is Status.FAILED
        assert instead.report.error is not None
        assert str(error) in instead.report.error.message
        sent(None)
        assert acked == [delivery]
        assert len(attempts.held) == 0
    attempts.close()

"""What came in one message is parked as one, and acknowledged when all of it is safe (P4, P6)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.coordinator.bundles import reports_in, slices_of
from fuseline.coordinator.decoding import read_report, read_spoilt_report
from fuseline.coordinator.intake import Intake
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Pipeline
from fuseline.coordinator.reading import Source
from fuseline.coordinator.recording import Recording
from fuseline.coordinator.workers import WorkerBook
from fuseline.ledger import Dispatch
from fuseline.model import Status, StepReport, WorkflowSchema
from tests.unit.ledgers import ledger_with

TOPOLOGY = Topology()
MOST = 4


class Bench:
    """A recording over a ledger with one run, `r`; parked messages wait until the test says that they are safe."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.parked: list[tuple[Delivery, str, Callable[[], None]]] = []
        ledger, self.storage, clock = ledger_with(
            WorkflowSchema(workflow_id="g", version="1", steps={"a": {"name": "a"}})
        )
        ledger.apply([Dispatch("g", "1", "r")])
        parking = SimpleNamespace(park=lambda *refused: self.parked.append(refused))
        outbox = cast("Outbox", SimpleNamespace(parking=parking, events=lambda _outcome: None))
        intake = Intake(cast("Link", self), "q", MOST, lambda: None, split=slices_of)
        self.source = Source(
            intake,
            lambda delivery: read_report(delivery, TOPOLOGY),
            lambda delivery, reason: read_spoilt_report(delivery, TOPOLOGY, reason),
        )
        self._recording = Recording(
            Pipeline(ledger, outbox, WorkerBook(clock, 60.0)), outbox, cast("Any", None)
        )
        self._tag = 0

    def consume(self, _queue: str, _prefetch: int, deliver: Any, *_callbacks: Any) -> Any:
        self._deliver = deliver
        return SimpleNamespace()

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        assert multiple
        self.acked.append(delivery.tag)

    def deliver(self, *lines: bytes) -> None:
        """One message with these reports."""
        self._tag += 1
        said = codec.properties(codec.REPORTS, message_id="m", timestamp=7.0)
        exchange = TOPOLOGY.reports_exchange("g")
        self._deliver(Delivery(self._tag, 1, b"\n".join(lines), said, exchange, "", False, "q", None))

    def record(self) -> None:
        while self._recording.record([self.source], MOST):
            pass


def body(instance_id: str) -> bytes:
    report = StepReport(workflow_id="g", instance_id=instance_id, step_name="a", state=Status.SUCCEEDED)
    return codec.encode(report)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_lines_of_one_message_that_are_parked_are_one_again(bench: Bench) -> None:
    """Whether they cannot be read or are of a run that nobody knows; the others count."""
    bench.deliver(b"x", body("r"), body("nobody"), b"y")
    bench.deliver(b"z")
    bench.record()
    assert [(one.body, reason) for one, reason, _ in bench.parked] == [
        (b"\n".join([b"x", b"y", body("nobody")]), bench.parked[0][1]),
        (b"z", bench.parked[1][1]),
    ]
    assert bench.parked[0][1].startswith("not JSON")
    assert bench.parked[0][1].endswith("(and 2 more of what came with it)")
    assert [one.body for one in reports_in(bench.parked[0][0])] == [b"x", b"y", body("nobody")]
    run = bench.storage.read_run("r")
    assert run is not None
    assert run.steps["a"].status is Status.SUCCEEDED
    assert bench.acked == []
    bench.parked[1][2]()
    bench.parked[0][2]()
    assert bench.acked == [2]


def test_a_message_of_many_lines_of_nothing_is_as_many_messages_as_it_has_slices(bench: Bench) -> None:
    """P6: each line parked by itself took 1.8 KB, and a message of 16 MiB some gigabytes."""
    bench.deliver(*[b"x"] * (10 * MOST))
    bench.record()
    assert [one.body for one, *_ in bench.parked] == [b"\n".join([b"x"] * MOST)] * 10
    for *_, done in bench.parked:
        assert bench.acked == []
        done()
    assert bench.acked == [1]

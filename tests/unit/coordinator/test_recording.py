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
from fuseline.coordinator.pipeline import FEW, Pipeline
from fuseline.coordinator.reading import Source
from fuseline.coordinator.recording import Recording
from fuseline.coordinator.workers import WorkerBook
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Dispatch
from fuseline.model import Status, StepReport, WorkflowSchema
from tests.unit.ledgers import Leaving, Watched, ledger_over

TOPOLOGY = Topology()
MOST = 4


class Bench:
    """A recording over a ledger with one run, `r`; parked messages wait until the test says that they are safe."""

    def __init__(self, storage: Watched | None = None, few: int = FEW) -> None:
        self.acked: list[int] = []
        self.lost: list[str] = []
        self.parked: list[tuple[Delivery, str, Callable[[], None]]] = []
        ledger, self.storage, clock = ledger_over(
            storage or Watched(), WorkflowSchema(workflow_id="g", version="1", steps={"a": {"name": "a"}})
        )
        ledger.apply([Dispatch("g", "1", i) for i in ("r", "s", "t")])
        parking = SimpleNamespace(park=lambda *refused: self.parked.append(refused))
        outbox = cast(
            "Outbox",
            SimpleNamespace(
                parking=parking, refusals=SimpleNamespace(), flush=lambda: None, events=lambda _outcome: None
            ),
        )
        intake = Intake(cast("Link", self), "q", MOST, lambda: None, split=slices_of)
        self.source = Source(
            intake,
            lambda delivery: read_report(delivery, TOPOLOGY),
            lambda delivery, reason: read_spoilt_report(delivery, TOPOLOGY, reason),
        )
        self.pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0), few)
        self._recording = Recording(
            self.pipeline, outbox, cast("Any", None), lambda error: self.lost.append(str(error))
        )
        self._tag = 0

    def consume(self, _queue: str, _prefetch: int, deliver: Any, *_callbacks: Any) -> Any:
        self._deliver = deliver
        return SimpleNamespace()

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        assert multiple
        self.acked.append(delivery.tag)

    def deliver(self, *lines: bytes, line: Any = None) -> None:
        """One message with these reports, of a channel that is or is not there any more."""
        self._tag += 1
        said = codec.properties(codec.REPORTS, message_id="m", timestamp=7.0)
        exchange = TOPOLOGY.reports_exchange("g")
        self._deliver(Delivery(self._tag, 1, b"\n".join(lines), said, exchange, "", False, "q", line))

    def record(self) -> None:
        while self.record_once():
            pass

    def record_once(self) -> bool:
        return self._recording.record([self.source], MOST)

    @property
    def is_behind(self) -> bool:
        return self._recording.is_behind

    def state(self, instance_id: str) -> Status:
        run = self.storage.read_run(instance_id)
        assert run is not None
        return run.steps["a"].status


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
    assert bench.state("r") is Status.SUCCEEDED
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


@pytest.fixture
def left() -> Bench:
    """One whose storage is left to commit every batch."""
    return Bench(Leaving(), few=0)


def storage_of(bench: Bench) -> Leaving:
    assert isinstance(bench.storage, Leaving)
    return bench.storage


def test_nothing_is_let_go_before_its_commit_is_known(left: Bench) -> None:
    """P4."""
    left.deliver(body("r"))
    assert left.record_once()
    assert (left.acked, len(left.source.intake)) == ([], 0)
    left.pipeline.finish()
    assert left.acked == [1]


def test_what_was_lost_lets_nothing_behind_it_go_and_is_recorded_first_when_storage_is_back(
    left: Bench,
) -> None:
    """P4: one acknowledgement is for all messages up to it."""
    storage_of(left).at_end = [StorageUnavailableError("cut off"), None]
    for i in ("r", "s"):
        left.deliver(body(i))
        left.record_once()
    left.pipeline.finish()
    assert left.state("s") is Status.SUCCEEDED
    assert (left.lost, left.acked, left.is_behind) == (["cut off"], [], True)
    assert left.record_once()
    assert (left.acked, left.is_behind, left.state("r")) == ([2], False, Status.SUCCEEDED)


def test_what_cannot_be_begun_is_kept_likewise(left: Bench) -> None:
    storage_of(left).is_full = True
    left.deliver(body("r"))
    left.record_once()
    left.record_once()
    assert (left.lost, left.acked, left.is_behind) == (["the disk is full"] * 2, [], True)
    storage_of(left).is_full = False
    left.record()
    assert (left.acked, left.state("r")) == ([1], Status.SUCCEEDED)


def test_a_lone_report_that_storage_lost_is_kept_likewise() -> None:
    bench = Bench(Leaving())
    storage_of(bench).at_end = [StorageUnavailableError("cut off")]
    bench.deliver(body("r"))
    bench.record_once()
    assert (bench.lost, bench.acked, bench.is_behind) == (["cut off"], [], True)
    bench.record()
    assert bench.acked == [1]


def test_what_is_kept_of_a_channel_that_is_gone_is_dropped(left: Bench) -> None:
    """It comes again, here or elsewhere, and what cannot be read would be parked twice."""
    line = SimpleNamespace(generation=1)
    storage_of(left).at_end = [StorageUnavailableError("cut off")]
    left.deliver(body("r"), b"x", line=line)
    left.record_once()
    left.pipeline.finish()
    line.generation = 2
    transactions = left.storage.transactions
    left.record()
    assert (left.parked, left.is_behind, left.storage.transactions) == ([], False, transactions)


def test_what_is_lost_is_said_to_come_again_when_it_is_recorded(
    left: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: it was recorded, and what it had made ready is offered again."""
    storage_of(left).at_end = [StorageUnavailableError("cut off")]
    left.deliver(body("r"))
    left.record_once()
    left.pipeline.finish()
    applied: list[Any] = []
    apply = left.pipeline.apply

    def seen(items: Any, *more: Any) -> Any:
        applied.extend(item.what.event.redelivered for item in items)
        return apply(items, *more)

    monkeypatch.setattr(left.pipeline, "apply", seen)
    left.record()
    assert applied == [True]

"""What timers bring about goes out, whatever becomes of the storage behind it (P1); who holds nothing is told (P5)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Heartbeat
from fuseline.clock import ManualClock
from fuseline.coordinator.daemon import HOUSEKEEPING_SECONDS
from fuseline.coordinator.pipeline import Pipeline
from fuseline.coordinator.timers import CATCH_UP_SECONDS, LISTEN_SECONDS, UNHEARD_SECONDS, Timers
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine.events import CancelRequested, StepClaimed, StepReported
from fuseline.errors import StorageUnavailableError
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import Status, WorkflowSchema
from tests.unit.ledgers import Watched, ledger_with

LEASE_SECONDS = 60.0
RETRIED = WorkflowSchema.model_validate(
    {
        "workflow_id": "g",
        "version": "1",
        "steps": {"a": {"name": "a", "policies": [{"name": "retry", "config": {"wait": 5}}]}},
    }
)


class FakeLink:
    """Keeps the last timer."""

    fire: Any
    is_up, is_blocked = True, False

    def __init__(self, clock: ManualClock | None = None) -> None:
        self._clock = clock or ManualClock()
        self.due = 0.0

    def call_later(self, seconds: float, callback: Any) -> Any:
        self.fire, self.due = callback, self._clock.monotonic() + seconds
        return type("Timer", (), {"cancel": lambda _self: None})()


class FakePipeline:
    """Keeps what is to go out."""

    is_behind = False

    def __init__(self) -> None:
        self.sent: list[Outcome] = []
        self.stopped: list[tuple[str, str, str, int]] = []

    def finish(self) -> bool:
        return True

    def carry_out(self, _item: object, outcome: Outcome, _ticket: object) -> None:
        self.sent.append(outcome)

    def stop_attempt(self, worker_id: str, instance_id: str, step: str, attempt: int) -> None:
        self.stopped.append((worker_id, instance_id, step, attempt))


def test_a_retry_goes_out_although_the_storage_is_away_right_after(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, storage, clock = ledger_with(RETRIED)
    ledger.apply([Dispatch("g", "1", "i"), Occurrence("i", StepReported("a", 1, Status.FAILED))])
    clock.advance(10)
    link, pipeline = FakeLink(), FakePipeline()
    told: list[StorageUnavailableError] = []
    book = WorkerBook(clock, 60.0)
    timers = Timers(cast("Link", link), ledger, cast("Pipeline", pipeline), book, Topology(), told.append)
    timers.heard(clock.monotonic() + LISTEN_SECONDS)

    def away() -> float | None:
        raise StorageUnavailableError("away")

    monkeypatch.setattr(storage, "next_due", away)
    timers.wake_anew()
    clock.advance(LISTEN_SECONDS)
    link.fire()
    assert len(told) == 1
    assert [(a.step_name, a.attempt) for one in pipeline.sent for a in one.assignments] == [("a", 2)]


class Held:
    """Step `a` is held by a worker, of whom nobody has heard since."""

    def __init__(self, timeout_seconds: float | None = None, lease_seconds: float = LEASE_SECONDS) -> None:
        limited = RETRIED.model_dump()
        limit = (
            [] if timeout_seconds is None else [{"name": "timeout", "config": {"seconds": timeout_seconds}}]
        )
        limited["steps"]["a"]["policies"] = limit
        self.ledger, self.storage, self.clock = ledger_with(WorkflowSchema.model_validate(limited))
        self.ledger.apply([Dispatch("g", "1", "i"), Occurrence("i", StepClaimed("a", 1, "w"))])
        self.link = FakeLink(self.clock)
        self.pipeline = FakePipeline()
        self.book = WorkerBook(self.clock, lease_seconds)
        self.backlog = 0
        self.is_storage_away = False
        self.can_be_heard = True
        self.asked_at: list[float] = []
        self.answer_after_seconds = 0.0
        self.timers = Timers(
            cast("Link", self.link),
            self.ledger,
            cast("Pipeline", self.pipeline),
            self.book,
            Topology(),
            lambda _error: None,
            lambda: self.backlog > 0,
            self.ask_echo,
            lambda: self.is_storage_away,
        )
        self.timers.wake_anew()

    def ask_echo(self) -> None:
        self.asked_at.append(self.clock.monotonic())

    def wait(self, seconds: float) -> None:
        """Fire whenever it is time."""
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            while self.asked_at and self.can_be_heard and self._has_come_back(self.asked_at[0]):
                self.timers.heard(self.asked_at.pop(0))
            if self.clock.monotonic() >= self.link.due:
                self.link.fire()

    def _has_come_back(self, asked_at: float) -> bool:
        return self.clock.monotonic() >= asked_at + self.answer_after_seconds

    def status(self) -> Status:
        run = self.storage.read_run("i")
        assert run is not None
        return run.steps["a"].status


def test_what_was_reported_in_time_while_nobody_recorded_is_not_late() -> None:
    """P4: the confirmed report waits in the queue while this coordinator starts, and behind it what else waits."""
    here = Held(timeout_seconds=30.0)
    here.clock.advance(100.0)
    here.timers.wake_anew()
    here.backlog = 1
    here.wait(20.0)
    assert here.status() is Status.RUNNING
    here.ledger.apply([Occurrence("i", StepReported("a", 1, Status.SUCCEEDED, holder="w"))])
    here.backlog = 0
    here.wait(5.0)
    assert here.status() is Status.SUCCEEDED


def test_what_was_under_way_as_storage_was_lost_is_recorded_before_its_time_is_looked_at() -> None:
    """P4: it was reported in time, was taken up, and nobody knows whether it was committed. Whoever noticed that first."""
    here = Held(timeout_seconds=30.0)
    here.wait(20.0)
    here.is_storage_away = True
    here.wait(20.0)
    assert here.status() is Status.RUNNING
    here.is_storage_away = False
    here.timers.wake_anew()  # storage is back
    here.ledger.apply([Occurrence("i", StepReported("a", 1, Status.SUCCEEDED, holder="w"))])
    here.wait(CATCH_UP_SECONDS)
    assert here.status() is Status.SUCCEEDED


def test_a_backlog_without_end_does_not_stop_the_time() -> None:
    """P1."""
    here = Held(timeout_seconds=30.0)
    here.clock.advance(100.0)
    here.timers.wake_anew()
    here.backlog = 1
    here.wait(CATCH_UP_SECONDS + 5.0)
    assert here.status() is Status.FAILED


@pytest.mark.parametrize("trouble", ["is down", "blocks"])
def test_who_cannot_be_heard_loses_no_lease(trouble: str) -> None:
    """P5: a coordinator that RabbitMQ has cut off hears no beats, while another one hears them all."""
    here = Held()
    here.wait(5.0)
    here.link.is_up, here.link.is_blocked = trouble != "is down", trouble == "blocks"
    here.wait(3 * LEASE_SECONDS)
    assert here.status() is Status.RUNNING
    here.link.is_up, here.link.is_blocked = True, False
    here.wait(LEASE_SECONDS / 2)
    assert here.status() is Status.RUNNING
    here.wait(LEASE_SECONDS)
    assert here.status() is Status.QUEUED


def test_who_was_stopped_himself_has_not_heard_that_others_are_silent() -> None:
    """P5: after a SIGSTOP timers may come before the beats that wait at the socket."""
    here = Held()
    here.wait(LEASE_SECONDS / 2)
    here.clock.advance(3 * LEASE_SECONDS)
    here.link.fire()
    here.wait(LEASE_SECONDS / 2)
    assert here.status() is Status.RUNNING
    here.wait(LEASE_SECONDS)
    assert here.status() is Status.QUEUED


CHAIN = WorkflowSchema.model_validate(
    {
        "workflow_id": "g",
        "version": "1",
        "steps": {
            "a": {"name": "a", "successors": {"default": ["b"]}},
            "b": {"name": "b", "predecessors": ["a"]},
        },
    }
)


class GoneOn:
    """A worker lists a lease of `b`, which it went on with; no report has taken it yet."""

    def __init__(self) -> None:
        self.ledger: Ledger
        self.storage: Watched
        self.clock: ManualClock
        self.ledger, self.storage, self.clock = ledger_with(CHAIN)
        self.ledger.apply([Dispatch("g", "1", "i")])
        self.book = WorkerBook(self.clock, LEASE_SECONDS)
        self.pipeline = FakePipeline()
        self.timers = Timers(
            cast("Link", FakeLink()),
            self.ledger,
            cast("Pipeline", self.pipeline),
            self.book,
            Topology(),
            lambda _error: None,
        )
        self.beat(("i", "b", 1))

    def beat(self, *leases: tuple[str, str, int]) -> None:
        now = self.clock.now()
        beat = Heartbeat(
            worker_id="w", workflows=[("g", "1")], leases=list(leases), host="h", pid=1, sent_at=now
        )
        self.book.beat(beat, "address")

    def look(self) -> None:
        """As the coordinator does, after a while."""
        self.clock.advance(HOUSEKEEPING_SECONDS)
        self.timers.keep_house()


@pytest.mark.parametrize("is_known", [True, False])
def test_who_holds_a_step_without_a_row_in_a_run_that_is_over_is_told_at_the_next_look(
    is_known: bool,
) -> None:
    """P5: no report will take it any more. A run that is not known was purged."""
    here = GoneOn()
    if is_known:
        here.ledger.apply([Occurrence("i", CancelRequested())])
        lease = ("i", "b", 1)
    else:
        lease = ("gone", "b", 1)
        here.beat(lease)
    here.look()
    assert here.pipeline.stopped == [("w", *lease)]


def test_who_holds_a_step_without_a_row_is_told_when_a_lease_time_has_passed_and_not_two() -> None:
    """P5, and the report that takes it has that long to come."""
    here = GoneOn()
    here.look()
    for _ in range(int(LEASE_SECONDS / HOUSEKEEPING_SECONDS)):
        assert here.pipeline.stopped == []
        here.look()
    assert here.pipeline.stopped == [("w", "i", "b", 1)]


def test_who_holds_a_step_that_gets_its_row_late_is_left_alone() -> None:
    """P5: the report was late."""
    here = GoneOn()
    here.look()
    report = StepReported("a", 1, Status.SUCCEEDED, holder="w", continues_with="b")
    here.ledger.apply([Occurrence("i", report)])
    for _ in range(20):
        here.look()
    assert here.pipeline.stopped == []


def test_nothing_is_kept_of_a_lease_that_is_not_listed_any_more() -> None:
    """P6, P8: it had no row while somebody looked, and was over before it had one."""
    here = GoneOn()
    here.look()
    here.beat()
    here.look()
    assert here.timers._missing == {}
    here.storage.forget()
    for _ in range(20):
        here.look()
    assert here.storage.loads == []
    assert here.pipeline.stopped == []


def test_who_is_told_nothing_of_an_alarm_loses_no_lease_to_it() -> None:
    """P5: RabbitMQ blocks the workers and their beats; a coordinator that publishes nothing is not told."""
    here = Held()
    here.wait(5.0)
    here.can_be_heard = False
    here.wait(UNHEARD_SECONDS)
    assert here.status() is Status.RUNNING


def test_who_cannot_hear_himself_for_long_goes_by_time_all_the_same() -> None:
    """P1: whatever keeps his messages from him."""
    here = Held()
    here.wait(5.0)
    here.can_be_heard = False
    here.wait(LEASE_SECONDS + UNHEARD_SECONDS + 5.0)
    assert here.status() is Status.QUEUED


def test_what_was_reported_in_time_in_an_alarm_is_not_late_when_it_is_over() -> None:
    """P4: the reports come with the end of the alarm, and are recorded one batch after the other."""
    here = Held(timeout_seconds=30.0)
    here.wait(5.0)
    here.link.is_blocked = True
    here.wait(100.0)
    here.link.is_blocked = False
    here.backlog = 1
    here.wait(20.0)
    assert here.status() is Status.RUNNING


def test_who_begins_to_listen_again_and_again_judges_all_the_same() -> None:
    """P1: each batch fails over a row that somebody keeps locked, and storage can be read after each."""
    here = Held(timeout_seconds=30.0)
    here.clock.advance(100.0)
    here.backlog = 1
    for _ in range(int(CATCH_UP_SECONDS / 5.0) + 2):
        here.timers.wake_anew()
        here.wait(5.0)
    assert here.status() is Status.FAILED


def test_a_short_stop_ends_no_short_lease() -> None:
    """P5: what waits at the socket is read after the first timer."""
    here = Held(lease_seconds=10.0)
    here.wait(2.0)
    here.clock.advance(12.0)
    here.can_be_heard = False
    here.link.fire()
    assert here.status() is Status.RUNNING


@pytest.mark.parametrize("trip_seconds", [0.7, 2.5])
def test_an_answer_counts_however_long_it_took(trip_seconds: float) -> None:
    """P1: where RabbitMQ is slower than this coordinator asks, or than leases are short."""
    here = Held(lease_seconds=0.5)
    here.answer_after_seconds = trip_seconds
    here.wait(LEASE_SECONDS + 10.0)  # the row's own time; the coordinator's leases are shorter
    assert here.status() is Status.QUEUED


def test_silence_is_that_of_the_time_which_the_answer_is_of() -> None:
    """P5: what was said after it is still on its way."""
    here = Held()
    here.answer_after_seconds = 20.0
    here.wait(LEASE_SECONDS + 15.0)
    assert here.status() is Status.RUNNING
    here.wait(30.0)
    assert here.status() is Status.QUEUED

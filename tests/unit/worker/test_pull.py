"""The worker over any broker, with one that has five methods: it asks, executes, reports, and gives up in an orderly way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuseline.clock import SystemClock
from fuseline.errors import BrokerUnavailableError, MessageTooLargeError, SchemaConflictError
from fuseline.model import Cause, Status, StepAssignment
from fuseline.notify import Notifier
from fuseline.worker.executors import LoopExecutor, ThreadExecutor
from fuseline.worker.lane_source import LaneSource
from fuseline.worker.options import Options
from fuseline.worker.pull import PullSource
from fuseline.worker.slots import Slots
from tests.unit.worker.bodies import CallableCatalog, assignment, sealer
from tests.unit.worker.five import SECONDS, FiveMethods, ShortWay


class Pauses(threading.Event):
    """Tells how long somebody wants to wait, and does not wait: the real pauses would take 4 s."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: queue.Queue[float | None] = queue.Queue()

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.put(timeout)
        return super().wait(0.0)


class Pulling:
    """A `PullSource`, or a `LaneSource`, on a thread."""

    def __init__(
        self, broker: FiveMethods, bodies: CallableCatalog, *, short: bool = False, **options: Any
    ) -> None:
        values: dict[str, Any] = {"concurrency": 2, "heartbeat_seconds": 0.05, "drain_seconds": SECONDS}
        values |= options
        self.threads, self.loops = ThreadExecutor(), LoopExecutor()
        rest = (
            bodies,
            Slots(values["concurrency"], self.threads, self.loops),
            sealer(None),
            Options(**values),
            SystemClock(),
            Notifier({}),
        )
        self.lane = ShortWay(broker)
        self.source = LaneSource(self.lane, *rest) if short else PullSource(broker, *rest)
        self._result: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self, idle_seconds: float | None = None) -> Pulling:
        self._idle_seconds = idle_seconds
        self._thread.start()
        return self

    def join(self) -> int:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        if isinstance(self._result, BaseException):
            raise self._result
        assert self._result is not None
        return self._result

    def close(self) -> None:
        self.source.stop()
        self.source.stop()
        self._thread.join(SECONDS)
        self.threads.close()
        self.loops.close()

    def _run(self) -> None:
        try:
            self._result = self.source.run(self._idle_seconds)
        except (SchemaConflictError, ZeroDivisionError) as error:
            self._result = error


@pytest.fixture
def broker() -> FiveMethods:
    return FiveMethods()


@pytest.fixture
def bodies() -> CallableCatalog:
    return CallableCatalog()


@pytest.fixture(params=[False, True], ids=["five methods", "short way"])
def pull(
    request: pytest.FixtureRequest, broker: FiveMethods, bodies: CallableCatalog
) -> Iterator[Callable[..., Pulling]]:
    made: list[Pulling] = []

    def make(**options: Any) -> Pulling:
        made.append(Pulling(broker, bodies, **{"short": request.param, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def of(instance_id: str, **more: Any) -> StepAssignment:
    return assignment("a", **more).model_copy(update={"instance_id": instance_id})


Pull = Callable[..., Pulling]


def test_steps_are_executed_and_reported_until_there_are_none(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    broker.add(*(of(f"i{index}") for index in range(10)))
    assert pull().start(idle_seconds=0.05).join() == 10
    assert {broker.next_report().instance_id for _ in range(10)} == {f"i{index}" for index in range(10)}
    assert broker.registered == [list(bodies.schemas)]


def test_steps_run_together_up_to_concurrency(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    meeting = threading.Barrier(2)

    def body(_assignment: StepAssignment) -> int:
        return meeting.wait(SECONDS)

    bodies.sync["a"] = body
    broker.add(of("i1"), of("i2"))
    assert pull().start(idle_seconds=0.05).join() == 2
    assert broker.next_report().state is Status.SUCCEEDED


def test_an_idle_worker_asks_ever_more_rarely(broker: FiveMethods, pull: Pull) -> None:
    """P8: 20 ms after the first time, 1 s at last, however many threads there are."""
    one = pull(concurrency=16, short=False)
    assert isinstance(one.source, PullSource)
    one.source._wake = pauses = Pauses()
    one.start()
    assert [pauses.asked.get(timeout=SECONDS) for _ in range(8)] == [
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.0,
        1.0,
    ]


def test_a_timed_out_body_is_reported_and_its_late_result_dropped(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    release = threading.Event()

    def body(_assignment: StepAssignment) -> None:
        release.wait(SECONDS)

    bodies.sync["a"] = body
    broker.add(of("i1", timeout=0.05))
    pull(concurrency=1).start()
    error = broker.next_report().error
    assert error is not None
    assert error.cause is Cause.TIMEOUT
    bodies.sync["a"] = lambda _assignment: "next"
    broker.add(of("i2"))  # waits: the abandoned body keeps the only place
    release.set()
    assert broker.next_report().result == "next"


def test_the_worker_says_that_it_lives_while_a_step_runs(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    def body(_assignment: StepAssignment) -> str:
        return broker.beats.get(timeout=SECONDS)

    bodies.sync["a"] = body
    broker.add(of("i1"))
    pull(concurrency=1).start()
    assert broker.next_report().result == "worker 1"


def test_a_broker_that_is_away_is_waited_for_and_the_report_kept(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    """P4, P7: each call fails twice, and nothing is lost or done twice."""
    failures: dict[str, int] = {}

    def fail(method: str) -> None:
        failures[method] = failures.get(method, 0) + 1
        if failures[method] <= 2:
            raise BrokerUnavailableError(f"{method} failed")

    broker.fail = fail
    broker.add(of("i1"))
    pull(concurrency=1).start()
    assert broker.next_report().instance_id == "i1"
    assert broker.beats.get(timeout=SECONDS) == "worker 1"
    assert bodies.runs == 1


def test_a_forgotten_worker_registers_again(broker: FiveMethods, bodies: CallableCatalog, pull: Pull) -> None:
    def body(_assignment: StepAssignment) -> None:
        broker.known.clear()

    bodies.sync["a"] = body
    broker.add(of("i1"), of("i2"))
    pull(concurrency=1).start()
    assert broker.next_report().worker_id == "worker 2"
    assert broker.next_report().worker_id == "worker 3"


def test_stale_reports_are_no_trouble(broker: FiveMethods, pull: Pull) -> None:
    broker.over.add("i1")
    broker.add(of("i1"), of("i2"))
    assert pull(concurrency=1).start(idle_seconds=0.05).join() == 2
    assert broker.next_report().instance_id == "i2"


def test_a_result_that_the_broker_refuses_fails_the_step(broker: FiveMethods, pull: Pull) -> None:
    def refuse(report: Any) -> None:
        if report.error is None:
            raise MessageTooLargeError("9 bytes, and 8 are allowed")

    broker.on_report = refuse
    broker.add(of("i1"))
    pull().start()
    report = broker.next_report()
    assert report.state is Status.FAILED
    assert report.error is not None
    assert report.error.cause is Cause.INVALID
    assert "8 are allowed" in report.error.message


def test_a_conflict_or_a_defect_of_the_broker_ends_the_worker(broker: FiveMethods, pull: Pull) -> None:
    def conflict(_method: str) -> None:
        raise SchemaConflictError("step 'b' was added")

    broker.fail = conflict
    with pytest.raises(SchemaConflictError, match="step 'b' was added"):
        pull().start().join()

    def defect(method: str) -> None:
        if method == "get_step":
            raise ZeroDivisionError

    broker.fail = defect
    with pytest.raises(ZeroDivisionError):
        pull().start().join()


def test_stopping_lets_the_running_step_finish(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull
) -> None:
    begun, release = threading.Event(), threading.Event()

    def body(_assignment: StepAssignment) -> str:
        begun.set()
        release.wait(SECONDS)
        return "finished"

    bodies.sync["a"] = body
    broker.add(of("i1"))
    one = pull(concurrency=1).start()
    assert begun.wait(SECONDS)
    broker.add(of("i2"))
    one.source.stop()
    release.set()
    assert one.join() == 1
    assert broker.next_report().result == "finished"
    assert len(broker.waiting) == 1


@pytest.mark.parametrize("drain_seconds", [0.05, 3600.0])
def test_what_does_not_end_in_time_is_left_without_a_report(
    broker: FiveMethods, bodies: CallableCatalog, pull: Pull, drain_seconds: float
) -> None:
    """After the grace time, or at the second call to stop."""
    begun, release = threading.Event(), threading.Event()

    def body(_assignment: StepAssignment) -> None:
        begun.set()
        release.wait(SECONDS)

    bodies.sync["a"] = body
    broker.add(of("i1"))
    one = pull(concurrency=1, drain_seconds=drain_seconds).start()
    assert begun.wait(SECONDS)
    started = time.monotonic()
    one.source.stop()
    if drain_seconds > 1:
        one.source.stop()
    assert one.join() == 0
    assert time.monotonic() - started < SECONDS
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == "i1"
    assert broker.reports.empty()
    release.set()


def test_a_worker_that_waits_for_its_broker_can_be_stopped(broker: FiveMethods, pull: Pull) -> None:
    def away(_method: str) -> None:
        raise BrokerUnavailableError("away")

    broker.fail = away
    one = pull().start()
    one.source.stop()
    assert one.join() == 0

"""A worker beside its broker: what it does without polling, and on which thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fuseline.broker import MemoryBroker
from fuseline.errors import BrokerUnavailableError
from fuseline.model import RunStatus, StepAssignment
from fuseline.worker import Worker
from fuseline.workflow import Depends, Workflow, step
from tests.unit.worker.bodies import CallableCatalog
from tests.unit.worker.five import SECONDS, FiveMethods
from tests.unit.worker.test_pull import Pulling, of


@pytest.fixture
def broker() -> FiveMethods:
    return FiveMethods()


@pytest.fixture
def bodies() -> CallableCatalog:
    return CallableCatalog()


@pytest.fixture
def lane(broker: FiveMethods, bodies: CallableCatalog) -> Iterator[Pulling]:
    one = Pulling(broker, bodies, short=True)
    yield one
    one.close()


def test_an_idle_worker_asks_for_nothing(broker: FiveMethods, lane: Pulling) -> None:
    """P8: it sleeps until it is told that steps are ready."""
    lane.start()
    broker.add(of("i1"))
    broker.next_report()
    broker.beats.get(timeout=SECONDS)
    exchanges = lane.lane.exchanges
    for _ in range(3):
        broker.beats.get(timeout=SECONDS)
    assert lane.lane.exchanges == exchanges


def test_a_worker_says_what_it_holds(broker: FiveMethods, bodies: CallableCatalog, lane: Pulling) -> None:
    """P1: a step whose claim was committed and whose answer was lost would be carried on for as long as the worker lives."""
    started, release = threading.Event(), threading.Event()

    def body(_one: StepAssignment) -> None:
        started.set()
        assert release.wait(SECONDS)

    bodies.sync["a"] = body
    lane.start()
    assert lane.lane.holds.get(timeout=SECONDS) == []
    broker.add(of("i1"))
    assert started.wait(SECONDS)
    while not (held := lane.lane.holds.get(timeout=SECONDS)):
        assert held == []
    release.set()
    assert held == [("i1", "a", 1)]


def test_async_steps_go_on_without_another_thread(
    broker: FiveMethods, bodies: CallableCatalog, lane: Pulling
) -> None:
    threads: list[int] = []

    async def body(one: StepAssignment) -> None:
        threads.append(threading.get_ident())
        if one.instance_id != "i3":
            broker.waiting.append(of(f"i{int(one.instance_id[1:]) + 1}"))

    bodies.asynchronous["a"] = body
    broker.fail = lambda method: threads.append(threading.get_ident()) if method == "report_step" else None
    broker.add(of("i1"))
    lane.start()
    for _ in range(3):
        broker.next_report()
    assert len(threads) == 6
    assert len(set(threads)) == 1


def test_a_worker_whose_last_step_was_async_becomes_idle(
    broker: FiveMethods, bodies: CallableCatalog, lane: Pulling
) -> None:
    """P1: its loop has reported that one, and nobody else would have looked again."""

    async def body(_one: StepAssignment) -> None:
        await asyncio.sleep(0.01)

    bodies.asynchronous["a"] = body
    broker.add(of("i1"), of("i2"))
    assert lane.start(idle_seconds=0.05).join() == 2


def test_a_body_that_goes_on_does_not_wait_for_a_commit_of_another(
    broker: FiveMethods, bodies: CallableCatalog, lane: Pulling
) -> None:
    """The broker is slow to take a report; the other body's loop runs on meanwhile."""
    taken, beats = threading.Event(), 0

    async def body(one: StepAssignment) -> None:
        nonlocal beats
        if one.instance_id == "long":
            while not taken.is_set():
                await asyncio.sleep(0.001)
                beats += 1

    def slow(method: str) -> None:
        if method == "report_step" and not taken.is_set():
            seen, pause = beats, threading.Event()
            while beats < seen + 5:
                assert not pause.wait(0.001)
            taken.set()

    bodies.asynchronous["a"] = body
    broker.fail = slow
    broker.add(of("long"), of("short"))
    lane.start()
    assert [broker.next_report().instance_id for _ in range(2)] == ["short", "long"]


def test_a_broker_that_is_away_is_waited_for_off_the_loop(
    broker: FiveMethods, bodies: CallableCatalog, lane: Pulling
) -> None:
    failures: list[int] = []

    async def body(_one: StepAssignment) -> None:
        return None

    def fail(method: str) -> None:
        if method == "report_step" and len(failures) < 2:
            failures.append(threading.get_ident())
            raise BrokerUnavailableError("away")

    bodies.asynchronous["a"] = body
    broker.fail = fail
    broker.add(of("i1"))
    lane.start()
    assert broker.next_report().instance_id == "i1"
    assert len(set(failures)) == 2
    assert bodies.runs == 1


def test_a_defect_on_the_loop_ends_the_worker(
    broker: FiveMethods, bodies: CallableCatalog, lane: Pulling
) -> None:
    async def body(_one: StepAssignment) -> None:
        return None

    def fail(method: str) -> None:
        if method == "report_step":
            raise ZeroDivisionError

    bodies.asynchronous["a"] = body
    broker.fail = fail
    broker.add(of("i1"))
    with pytest.raises(ZeroDivisionError):
        lane.start().join()


def test_what_a_step_changes_is_its_own() -> None:
    """Though it gets its inputs and results without a detour over JSON."""

    @step
    async def first(given: dict[str, list[int]]) -> dict[str, list[int]]:
        given["values"].append(1)
        return given

    @step
    async def left(given: dict[str, list[int]], before: dict[str, list[int]] = Depends(first)) -> list[int]:
        given["values"].append(2)
        before["values"].append(3)
        return before["values"]

    @step
    def right(given: dict[str, list[int]], before: dict[str, list[int]] = Depends(first)) -> list[int]:
        given["values"].append(4)
        before["values"].append(5)
        return before["values"]

    flow = Workflow(outputs=[left, right], workflow_id="own")
    with MemoryBroker() as broker:
        run = flow.dispatch(broker, {"given": {"values": [0]}})
        Worker(broker, flow).run_until_idle()
        view = broker.get_run(run)
        assert view.inputs == {"given": {"values": [0]}}
        assert view.steps["first"].result == {"values": [0, 1]}
        assert view.steps["left"].result == [0, 1, 3]
        assert view.steps["right"].result == [0, 1, 5]


def test_runs_of_sync_and_async_steps_over_a_broker_in_this_process() -> None:
    @step
    def first(value: int) -> int:
        return value + 1

    @step
    async def second(value: int = Depends(first)) -> int:
        await asyncio.sleep(0)
        return value * 2

    @step
    def third(value: int = Depends(second)) -> int:
        return value - 1

    flow = Workflow(outputs=[third], workflow_id="mixed")
    with MemoryBroker() as broker:
        runs = [flow.dispatch(broker, {"value": number}) for number in range(50)]
        assert Worker(broker, flow, concurrency=8).run_until_idle() == 150
        for number, run in enumerate(runs):
            view = broker.get_run(run)
            assert view.state is RunStatus.SUCCEEDED
            assert view.steps["third"].result == (number + 1) * 2 - 1

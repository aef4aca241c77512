"""Known traps of time limits and cancellation: a step that does not end when it is told to (P1, P5, P6)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from fuseline.cli.show import show_run
from fuseline.model import Cause, RunStatus, RunView, Status, StepAssignment
from fuseline.web.background import serving
from fuseline.worker import Worker
from tests.integration.amqp.harness import CLOCK, SECONDS, wait_until
from tests.integration.traps import stubborn
from tests.integration.traps.parties import Party, one_step
from tests.integration.worker.harness import ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

OVERLAP_SECONDS = 0.1  # of steps that run as soon as there is a place for them
PLAIN = one_step(workflow_id="plain")


class Stubborn:
    """A body, in a thread or as a coroutine, that is told to stop and goes on until `let_go`."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def _count(self, change: int) -> None:
        with self._lock:
            self.running += change
            self.most = max(self.most, self.running)

    def sync(self, assignment: StepAssignment) -> str:
        self._count(1)
        if "stubborn" in assignment.payload["workflow_inputs"]:
            self.let_go.wait(SECONDS * 3)
        else:
            time.sleep(OVERLAP_SECONDS)
        self._count(-1)
        return "late"

    async def coroutine(self, assignment: StepAssignment) -> str:
        self._count(1)
        while "stubborn" in assignment.payload["workflow_inputs"] and not self.let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        await asyncio.sleep(OVERLAP_SECONDS)
        self._count(-1)
        return "late"

    def into(self, bodies: CallableCatalog, kind: str) -> None:
        """Make it the body of step `a`."""
        if kind == "thread":
            bodies.sync["a"] = self.sync
        else:
            bodies.asynchronous["a"] = self.coroutine


@pytest.fixture
def stubborn_body() -> Iterator[Stubborn]:
    one = Stubborn()
    yield one
    one.let_go.set()


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_a_step_that_ignores_its_timeout_fails_and_keeps_its_place_until_it_ends(
    party: Party,
    stubborn_body: Stubborn,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """P6: no more bodies run than `concurrency`, told to stop or not; what the abandoned one returns counts for nothing."""
    schema = one_step(("timeout", {"seconds": 0.2}))
    bodies = CallableCatalog((schema, PLAIN))
    stubborn_body.into(bodies, kind)
    worker = ThreadedWorker(party.url, party.topology, bodies, concurrency=2)
    request.addfinalizer(worker.close)
    worker.start()
    with caplog.at_level(logging.WARNING, "fuseline.worker"):
        late = party.wait(party.broker.dispatch_workflow(schema, {"stubborn": 1}))
        assert late.state is RunStatus.FAILED
        assert late.error is not None
        assert late.error.cause is Cause.TIMEOUT
        runs = [party.broker.dispatch_workflow(PLAIN) for _ in range(10)]
        assert {party.wait(run).state for run in runs} == {RunStatus.SUCCEEDED}  # by the other place
        assert stubborn_body.most == 2
        wait_until(lambda: "1 of 2 places are kept" in caplog.text)
    executor = worker.threads if kind == "thread" else worker.loops
    assert executor.abandoned == 1
    stubborn_body.let_go.set()
    wait_until(lambda: executor.abandoned == 0)
    assert party.broker.get_run(late.instance_id) == late


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_a_step_that_ignores_its_cancellation_holds_up_neither_run_nor_worker(
    party: Party, stubborn_body: Stubborn, kind: str
) -> None:
    """P1: the run ends CANCELLED at once, other runs go on, and the worker's places are honest."""
    schema = one_step()
    worker, bodies = party.worker(schema, concurrency=2)
    stubborn_body.into(bodies, kind)
    run = party.broker.dispatch_workflow(schema, {"stubborn": 1})
    wait_until(lambda: stubborn_body.running == 1)
    party.broker.cancel_run(run)
    ended = party.wait(run)
    assert ended.state is RunStatus.CANCELLED
    executor = worker.threads if kind == "thread" else worker.loops
    wait_until(lambda: executor.abandoned == 1)
    for _ in range(3):
        assert party.wait(party.broker.dispatch_workflow(schema)).state is RunStatus.SUCCEEDED
    assert stubborn_body.most == 2
    stubborn_body.let_go.set()
    wait_until(lambda: executor.abandoned == 0)
    assert party.broker.get_run(run) == ended


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_step_that_ignores_everything_in_a_process_is_killed_and_the_pool_goes_on(
    party: Party, tmp_path: Path, how: str
) -> None:
    """P1, P6: a process can be ended, with all that its step has started; the next step has another one."""
    schema = stubborn.slow.to_schema() if how == "timeout" else stubborn.endless.to_schema()
    worker = Worker(
        party.url,
        "tests.integration.traps.stubborn:flows",
        executor="process",
        concurrency=1,
        topology=party.topology,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        place = tmp_path / "pid"
        while True:
            run = party.broker.dispatch_workflow(schema, {"path": str(place)})
            if how == "cancel":
                wait_until(place.exists)
                party.broker.cancel_run(run)
            ended = party.wait(run)
            if place.exists():  # on a machine that stalls, its time may be over before it has begun
                break
        pids = place.read_text().split()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert len(pids) == 2
        brisk = party.broker.dispatch_workflow(stubborn.brisk.to_schema())
        assert party.wait(brisk).state is RunStatus.SUCCEEDED
    finally:
        worker.stop()
        thread.join(SECONDS)
    assert not thread.is_alive()
    if how == "cancel":
        assert ended.state is RunStatus.CANCELLED
    else:
        assert ended.error is not None
        assert ended.error.cause is Cause.TIMEOUT


def test_a_worker_whose_every_place_is_kept_for_good_ends_and_says_why(
    party: Party, stubborn_body: Stubborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: only the end of its process ends such bodies; a service manager starts it again."""
    monkeypatch.setattr("fuseline.worker.places.EXHAUSTED_SECONDS", 0.3)
    schema = one_step(("timeout", {"seconds": 1.0}))  # the second worker is to end within it
    worker, bodies = party.worker(schema, concurrency=1)
    stubborn_body.into(bodies, "thread")
    assert party.wait(party.broker.dispatch_workflow(schema, {"stubborn": 1})).state is RunStatus.FAILED
    waiting = party.broker.dispatch_workflow(schema)
    wait_until(lambda: worker.result is not None)
    assert "1 of 1 places are kept" in str(worker.result)
    assert "no place is left" in str(worker.result)
    _, others = party.worker(schema)
    stubborn_body.into(others, "thread")
    assert party.wait(waiting).state is RunStatus.SUCCEEDED  # what it had taken went back


# ---- limits that nobody executes


def ended_by(party: Party, view: RunView, cause: Cause) -> None:
    """As every way to look at a run says it."""
    assert view.state is RunStatus.FAILED
    assert view.error is not None
    assert view.error.cause is cause
    with serving(party.broker) as url:
        over_http = httpx.get(f"{url}/runs/{view.instance_id}").json()
    assert over_http["error"]["cause"] == cause.value
    console = Console(file=io.StringIO(), width=160)
    console.print(show_run(view, None, CLOCK.now()))
    assert isinstance(console.file, io.StringIO)
    assert f"({cause.value})" in console.file.getvalue()


def test_a_step_that_no_worker_takes_in_time_fails_as_expired(party: Party) -> None:
    schema = one_step(("expiry", {"seconds": 0.2}))
    view = party.wait(party.broker.dispatch_workflow(schema))
    ended_by(party, view, Cause.EXPIRED)
    assert view.steps["a"].state is Status.FAILED


def test_a_run_that_takes_too_long_fails_as_run_timeout(party: Party) -> None:
    schema = one_step()
    schema = schema.model_copy(
        update={"policies": one_step(("workflow_timeout", {"seconds": 0.2})).steps["a"].policies}
    )
    view = party.wait(party.broker.dispatch_workflow(schema))
    ended_by(party, view, Cause.RUN_TIMEOUT)
    assert view.steps["a"].state is Status.CANCELLED

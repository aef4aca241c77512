"""Known trap: a wall clock that is set by hours, forwards or backwards, on the coordinator's machine or a worker's (P1)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker, MemoryBroker
from fuseline.clock import SteadyClock
from fuseline.coordinator import Coordinator
from fuseline.engine import Rules
from fuseline.model import PolicySpec, RunStatus, Status, StepAssignment
from fuseline.storage import MemoryRuntimeStorage
from tests.integration.amqp.harness import SECONDS, delete_topology, wait_until
from tests.integration.traps.parties import PATIENCE_SECONDS, one_step
from tests.integration.worker.harness import ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

HOURS = 3 * 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOURS, -HOURS], ids=["forwards", "backwards"])
RULES = Rules(lease_seconds=3.0, sweep_seconds=60.0)


class SettableWall:
    """A machine's wall clock, which somebody sets."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@contextmanager
def serving(url: str, topology: Topology, wall: SettableWall) -> Iterator[AmqpBroker]:
    """A coordinator on a machine whose clock can be set."""
    ready, storage = threading.Event(), MemoryRuntimeStorage()
    coordinator = Coordinator(
        storage, url, topology=topology, rules=RULES, clock=SteadyClock(wall), on_ready=ready.set
    )
    thread = threading.Thread(target=coordinator.run)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        with AmqpBroker(url, topology=topology, call_seconds=PATIENCE_SECONDS) as broker:
            yield broker
    finally:
        coordinator.stop()
        thread.join(SECONDS)
        delete_topology(url, topology, [stored.schema.key for stored in storage.list_schemas()])
    assert not thread.is_alive()


@JUMPS
def test_a_clock_that_is_set_ends_no_lease_and_lets_no_wait_hang(
    amqp_url: str, topology: Topology, jump: float
) -> None:
    """A leased step goes on and is not lost; the retry of its failure comes after its pause, not in 3 hours or at once."""
    wall, go = SettableWall(), threading.Event()
    schema = one_step(("retry", {"max_retries": 2, "wait": 1.0}))
    schema = schema.model_copy(
        update={"policies": [PolicySpec(name="workflow_timeout", config={"seconds": 3600})]}
    )
    bodies = CallableCatalog((schema,))

    def body(assignment: StepAssignment) -> str:
        assert go.wait(PATIENCE_SECONDS)
        if assignment.attempt == 1:
            raise ValueError("once")
        return "done"

    bodies.sync["a"] = body
    with serving(amqp_url, topology, wall) as broker:
        worker = ThreadedWorker(amqp_url, topology, bodies, claim_after_seconds=0.0)
        worker.start()
        try:
            run = broker.dispatch_workflow(schema)
            wait_until(lambda: broker.get_run(run).steps["a"].state is Status.RUNNING)
            wall.offset = jump
            other = broker.dispatch_workflow(schema)
            wait_until(lambda: broker.get_run(other).steps["a"].state is Status.RUNNING)
            go.set()
            for one in (run, other):
                view = broker.wait(one, PATIENCE_SECONDS)
                assert view.state is RunStatus.SUCCEEDED, view
                assert view.steps["a"].attempt == 2  # of its own failure, and of no lease that ended
            assert bodies.runs == 4
        finally:
            worker.close()


@JUMPS
def test_a_worker_that_dies_after_the_clock_was_set_still_loses_its_lease(
    amqp_url: str, topology: Topology, jump: float
) -> None:
    """P1: its row says a time that the wall clock reaches in hours; its silence is measured without it."""
    wall, go = SettableWall(), threading.Event()
    schema = one_step()
    bodies = CallableCatalog((schema,))
    bodies.sync["a"] = lambda _assignment: go.wait(PATIENCE_SECONDS)
    with serving(amqp_url, topology, wall) as broker:
        worker = ThreadedWorker(amqp_url, topology, bodies, claim_after_seconds=0.0, heartbeat_seconds=600.0)
        worker.start()
        run = broker.dispatch_workflow(schema)
        wait_until(lambda: broker.get_run(run).steps["a"].state is Status.RUNNING)
        wall.offset = jump
        try:
            wait_until(lambda: broker.get_run(run).steps["a"].attempt == 2)
        finally:
            go.set()
            worker.close()


@JUMPS
def test_runs_and_queues_are_timed_by_the_time_that_passes(jump: float) -> None:
    """No early expiry and no early run timeout; and both still come."""
    wall, passed = SettableWall(), SettableWall()
    clock = SteadyClock(wall, passed)
    schema = one_step(("expiry", {"seconds": 60}))
    schema = schema.model_copy(
        update={"policies": [PolicySpec(name="workflow_timeout", config={"seconds": 90})]}
    )
    with MemoryBroker(clock=clock) as broker:
        run = broker.dispatch_workflow(schema)
        wall.offset = jump
        assert broker.get_run(run).state is RunStatus.RUNNING
        for one in (wall, passed):
            one.offset += 50.0
        assert broker.get_run(run).state is RunStatus.RUNNING
        for one in (wall, passed):
            one.offset += 20.0
        view = broker.get_run(run)
        assert view.state is RunStatus.FAILED
        assert view.error is not None
        assert view.error.cause.value == "expired"

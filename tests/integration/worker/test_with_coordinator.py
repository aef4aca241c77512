"""A worker and the real coordinator: the two understand each other, from dispatch to the run's end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker.amqp import AmqpBroker
from fuseline.coordinator import Coordinator
from fuseline.engine import Rules
from fuseline.model import (
    PolicySpec,
    RunStatus,
    Status,
    StepAssignment,
    StepSchema,
    WorkflowSchema,
)
from fuseline.storage import MemoryRuntimeStorage
from fuseline.worker import Worker
from tests.integration.amqp.harness import delete_all
from tests.integration.coordinator.harness import coordinating
from tests.integration.worker.harness import SECONDS, ThreadedWorker
from tests.unit.worker import flows
from tests.unit.worker.bodies import CallableCatalog


def chain_and_join() -> WorkflowSchema:
    """A -> (b, c) -> d"""
    return WorkflowSchema(
        workflow_id="diamond",
        steps={
            "a": StepSchema(name="a", successors={"default": ["b", "c"]}),
            "b": StepSchema(name="b", successors={"default": ["d"]}, predecessors=["a"]),
            "c": StepSchema(name="c", successors={"default": ["d"]}, predecessors=["a"]),
            "d": StepSchema(
                name="d",
                predecessors=["b", "c"],
                policies=[PolicySpec(name="retry", config={"max_retries": 2})],
            ),
        },
        outputs=["d"],
    )


SCHEMA = chain_and_join()
LEASE_SECONDS = 2.0


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[Coordinator]:
    with coordinating(amqp_url, topology, MemoryRuntimeStorage(), Rules(lease_seconds=LEASE_SECONDS)) as one:
        yield one


@pytest.fixture
def broker(amqp_url: str, topology: Topology, coordinator: Coordinator) -> Iterator[AmqpBroker]:
    with AmqpBroker(amqp_url, topology=topology) as one:
        yield one


@pytest.fixture
def bodies() -> CallableCatalog:
    catalog = CallableCatalog((SCHEMA,))
    for name in SCHEMA.steps:
        catalog.sync[name] = lambda assignment: sorted(assignment.payload["results"])
    return catalog


Make = Callable[..., ThreadedWorker]


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("by", ["url", "broker"])
def test_a_workflow_is_executed_by_a_worker(
    amqp_url: str, topology: Topology, broker: AmqpBroker, executor: Any, by: str
) -> None:
    """As a user has it: Workflow, Worker, dispatch."""
    target = broker if by == "broker" else amqp_url
    worker = Worker(
        target, "tests.unit.worker.flows:chain", executor=executor, concurrency=2, topology=topology
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        run = broker.wait(broker.dispatch_workflow(flows.chain.to_schema(), {"value": 1}), SECONDS)
    finally:
        worker.stop()
        thread.join(SECONDS)
    assert not thread.is_alive()
    assert run.state is RunStatus.SUCCEEDED
    result = run.steps["third"].result
    assert (result["a"], result["b"]) == (2, 20)
    assert (result["pid"] == os.getpid()) is (executor == "thread")


@pytest.mark.parametrize("claim_after_seconds", [60.0, 0.0])
def test_a_run_goes_through_and_tries_again(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make, claim_after_seconds: float
) -> None:
    failed: list[int] = []

    def last(assignment: StepAssignment) -> list[str]:
        if not failed:
            failed.append(assignment.attempt)
            raise ValueError("the first time")
        return sorted(assignment.payload["results"])

    bodies.sync["d"] = last
    make_worker(claim_after_seconds=claim_after_seconds).start()
    run = broker.wait(broker.dispatch_workflow(SCHEMA), SECONDS)
    assert run.state is RunStatus.SUCCEEDED
    assert run.steps["d"].result == ["b", "c"]
    assert run.steps["d"].attempt == 2
    assert bodies.runs == 5


def test_a_cancelled_run_stops_a_leased_step(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    release = threading.Event()

    def body(_assignment: StepAssignment) -> None:
        release.wait(SECONDS)

    bodies.sync["a"] = body
    worker = make_worker(claim_after_seconds=0.0)
    worker.start()
    instance_id = broker.dispatch_workflow(SCHEMA)
    bodies.started.get(timeout=SECONDS)
    broker.cancel_run(instance_id)
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == instance_id
    run = broker.wait(instance_id, SECONDS)
    assert run.state is RunStatus.CANCELLED
    assert {step.state for step in run.steps.values()} == {Status.CANCELLED}
    release.set()


def test_heartbeats_keep_a_step_that_is_longer_than_its_lease(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    over = threading.Event()

    def body(_assignment: StepAssignment) -> str:
        over.wait(1.75 * LEASE_SECONDS)
        return "kept"

    bodies.sync["a"] = body
    make_worker(claim_after_seconds=0.0).start()
    run = broker.wait(broker.dispatch_workflow(SCHEMA), SECONDS)
    assert run.state is RunStatus.SUCCEEDED
    assert {step.attempt for step in run.steps.values()} == {1}


def test_what_a_drained_worker_hands_back_is_executed_by_the_next(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    """P1, by delivery (a, c) and by lease (b): nothing waits for a lease to end."""
    release = threading.Event()
    blocked = threading.Event()

    def body(assignment: StepAssignment) -> str:
        if not release.is_set():
            blocked.set()
            release.wait(SECONDS)
        return f"attempt {assignment.attempt}"

    for claim_after_seconds in (60.0, 0.0):
        release.clear()
        blocked.clear()
        bodies.sync["a"] = body
        first = make_worker(claim_after_seconds=claim_after_seconds)
        first.start()
        instance_id = broker.dispatch_workflow(SCHEMA)
        assert blocked.wait(SECONDS)
        first.stop()
        assert first.join() == 0
        release.set()
        second = make_worker()
        second.start()
        assert broker.wait(instance_id, SECONDS).state is RunStatus.SUCCEEDED
        second.close()


def test_a_worker_whose_queue_is_deleted_has_it_declared_and_goes_on(
    amqp_url: str, topology: Topology, broker: AmqpBroker, make_worker: Make
) -> None:
    """P1: at rest, when no assignment comes back from the queue and tells the coordinator."""
    worker = make_worker()
    worker.start()
    queue = topology.steps_queue(*SCHEMA.key)
    delete_all(amqp_url, [queue], [])
    run = broker.wait(broker.dispatch_workflow(SCHEMA), SECONDS)
    assert run.state is RunStatus.SUCCEEDED
    worker.stop()
    assert worker.join() == 4

"""Step fusion with the real coordinator: chains end as they do without it, and only their first steps are ever queued."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker.amqp import AmqpBroker
from fuseline.coordinator import Coordinator
from fuseline.engine import Rules
from fuseline.model import PolicySpec, RunStatus, Status, StepAssignment, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import graph
from tests.integration.coordinator.harness import coordinating
from tests.integration.worker.harness import SECONDS, ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

NAMES = "abcdef"
LEASE_SECONDS = 2.0
Make = Callable[..., ThreadedWorker]


def chain(policies: dict[str, list[PolicySpec]] | None = None) -> WorkflowSchema:
    return graph(
        "chain",
        {a: [b] for a, b in zip(NAMES, NAMES[1:] + " ", strict=True) if b != " "} | {"f": []},
        policies=policies,
    )


SCHEMA = chain({"d": [PolicySpec(name="retry", config={"max_retries": 2})]})


@pytest.fixture
def storage() -> MemoryRuntimeStorage:
    return MemoryRuntimeStorage()


@pytest.fixture
def broker(amqp_url: str, topology: Topology, storage: MemoryRuntimeStorage) -> Iterator[AmqpBroker]:
    with (
        coordinating(amqp_url, topology, storage, Rules(lease_seconds=LEASE_SECONDS)) as coordinator,
        AmqpBroker(amqp_url, topology=topology) as one,
    ):
        assert isinstance(coordinator, Coordinator)
        yield one


@pytest.fixture
def bodies() -> CallableCatalog:
    catalog = CallableCatalog((SCHEMA,))
    for name in NAMES:
        catalog.sync[name] = _append
    return catalog


def _append(assignment: StepAssignment) -> str:
    """The results on the way here and the name. It changes its inputs, which is nobody else's business."""
    inputs = assignment.payload["workflow_inputs"]
    assert inputs == {"seen": []}
    inputs["seen"].append(assignment.step_name)
    return "".join(assignment.payload["results"].values()) + assignment.step_name


def were_queued(storage: MemoryRuntimeStorage, instance_id: str) -> str:
    """The steps that went through the queue, in order."""
    run = storage.read_run(instance_id)
    assert run is not None
    return "".join(sorted(name for name, row in run.steps.items() if row.queued_at is not None))


@pytest.mark.parametrize(("hops", "queued"), [(0, "abcdef"), (1, "ace"), (2, "ad"), (20, "a")])
def test_a_worker_goes_on_with_a_chain_for_so_many_steps(
    broker: AmqpBroker,
    storage: MemoryRuntimeStorage,
    bodies: CallableCatalog,
    make_worker: Make,
    hops: int,
    queued: str,
) -> None:
    make_worker(fusion_hops=hops, fusion_seconds=60.0).start()
    run = broker.wait(broker.dispatch_workflow(SCHEMA, {"seen": []}), SECONDS)
    assert run.state is RunStatus.SUCCEEDED
    assert run.steps["f"].result == NAMES
    assert were_queued(storage, run.instance_id) == queued
    assert bodies.runs == len(NAMES)


def test_after_its_time_others_get_their_turn(
    broker: AmqpBroker, storage: MemoryRuntimeStorage, bodies: CallableCatalog, make_worker: Make
) -> None:
    make_worker(fusion_hops=20, fusion_seconds=0.0).start()
    run = broker.wait(broker.dispatch_workflow(SCHEMA, {"seen": []}), SECONDS)
    assert were_queued(storage, run.instance_id) == NAMES


def test_a_policy_of_a_step_keeps_it_out(
    broker: AmqpBroker, storage: MemoryRuntimeStorage, bodies: CallableCatalog, make_worker: Make
) -> None:
    apart = chain({"c": [PolicySpec(name="fusion", config={"enabled": False})]})
    catalog = CallableCatalog((apart,))
    catalog.sync = bodies.sync
    make_worker(catalog=catalog, fusion_hops=20, fusion_seconds=60.0).start()
    run = broker.wait(broker.dispatch_workflow(apart, {"seen": []}), SECONDS)
    assert run.state is RunStatus.SUCCEEDED
    assert were_queued(storage, run.instance_id) == "ac"


def test_a_step_that_was_gone_on_with_and_fails_is_tried_again(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    def first_fails(assignment: StepAssignment) -> str:
        if assignment.attempt == 1:
            raise ValueError("the first time")
        return _append(assignment)

    bodies.sync["d"] = first_fails
    make_worker(fusion_hops=20, fusion_seconds=60.0).start()
    run = broker.wait(broker.dispatch_workflow(SCHEMA, {"seen": []}), SECONDS)
    assert (run.state, run.steps["d"].attempt) == (RunStatus.SUCCEEDED, 2)
    assert run.steps["f"].result == NAMES


def test_a_long_step_that_was_gone_on_with_keeps_its_lease_and_hears_of_a_cancel(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    """P5."""
    release = threading.Event()

    def body(_assignment: StepAssignment) -> None:
        release.wait(2 * SECONDS)

    bodies.sync["c"] = body
    make_worker(fusion_hops=20, fusion_seconds=60.0, claim_after_seconds=0.2).start()
    instance_id = broker.dispatch_workflow(SCHEMA, {"seen": []})
    while bodies.started.get(timeout=SECONDS).step_name != "c":
        pass
    threading.Event().wait(2 * LEASE_SECONDS)  # it would be lost by now
    assert broker.get_run(instance_id).steps["c"].attempt == 1
    broker.cancel_run(instance_id)
    assert bodies.cancelled.get(timeout=SECONDS).step_name == "c"
    release.set()
    run = broker.wait(instance_id, SECONDS)
    assert (run.state, run.steps["c"].state) == (RunStatus.CANCELLED, Status.CANCELLED)


def test_a_worker_that_is_told_to_stop_gives_back_what_it_went_on_with(
    broker: AmqpBroker, bodies: CallableCatalog, make_worker: Make
) -> None:
    """P1: and at once, not when its lease has ended."""
    begun: queue.Queue[int] = queue.Queue()
    release = threading.Event()

    def body(assignment: StepAssignment) -> str:
        begun.put(assignment.attempt)
        if assignment.attempt == 1:
            release.wait(2 * SECONDS)
        return _append(assignment)

    bodies.sync["b"] = body
    worker = make_worker(fusion_hops=20, fusion_seconds=60.0, drain_seconds=0.1)
    worker.start()
    instance_id = broker.dispatch_workflow(SCHEMA, {"seen": []})
    assert begun.get(timeout=SECONDS) == 1
    worker.stop()
    other = CallableCatalog((SCHEMA,))
    other.sync = bodies.sync
    make_worker(catalog=other, fusion_hops=20, fusion_seconds=60.0).start()
    run: Any = broker.wait(instance_id, SECONDS)
    release.set()
    assert run.state is RunStatus.SUCCEEDED
    assert run.steps["f"].result == NAMES

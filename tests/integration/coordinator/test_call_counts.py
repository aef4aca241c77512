"""What a step costs in calls, on real servers: speed cannot rot unseen while these numbers hold.

Times depend on the machine, counts do not. Whoever makes a count smaller makes its bound here smaller, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fuseline.amqp.topology import Topology
from fuseline.bench.flows import chain_flow
from fuseline.bench.works import PAYLOAD
from fuseline.broker import AmqpBroker
from fuseline.coordinator import Coordinator
from fuseline.model import RunStatus, StepAssignment
from fuseline.settings import Settings
from fuseline.storage import PostgresRuntimeStorage
from fuseline.testing.flows import graph, report_on
from fuseline.worker import Worker
from tests.integration.amqp.harness import SECONDS, delete_topology, wait_until

MANY_SECONDS = 90.0

# For one hop of a lone run, at most: the dispatch, the registration and so on are counted apart.
STATEMENTS_A_HOP = 1
STATEMENTS_A_BATCH = 5  # of reports and dispatches that came together, however many
COMMITS_A_HOP = 1
PUBLISHED_BY_COORDINATOR_A_HOP = (
    2  # the assignment, and now and then a probe whether anybody listens to events
)
REPORTS_A_MESSAGE = 2  # at least, when many steps run at once
# Those that come with starting and registering, whatever the number of steps.
FEW = 12


@contextmanager
def running(coordinator: Coordinator, ready: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=coordinator.run)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield
    finally:
        coordinator.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()


@contextmanager
def working(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(MANY_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def storage(fresh_postgres_url: str) -> Iterator[PostgresRuntimeStorage]:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    yield storage
    storage.close()


@pytest.mark.parametrize("runs", [1, 40], ids=["a lone run", "many runs"])
def test_a_hop_costs_two_messages_and_one_commit(
    amqp_url: str, fresh_postgres_url: str, storage: PostgresRuntimeStorage, topology: Topology, runs: int
) -> None:
    """A step costs an assignment and a report, and of a commit one at most: less of both when reports come together."""
    length = 10
    flow = chain_flow(length)
    steps = runs * length
    ready = threading.Event()
    coordinator = Coordinator(storage, amqp_url, topology=topology, on_ready=ready.set)
    settings = Settings(heartbeat_seconds=3600, lease_seconds=7200)
    worker = Worker(amqp_url, flow, concurrency=32, executor="async", topology=topology, settings=settings)
    looking = PostgresRuntimeStorage(fresh_postgres_url)
    try:
        with (
            running(coordinator, ready),
            AmqpBroker(amqp_url, topology=topology, call_seconds=SECONDS) as broker,
            working(worker),
        ):
            wait_until(lambda: bool(looking.list_workers()))
            statements, commits = storage.statements, storage.commits
            for _ in range(runs):
                flow.dispatch(broker, {"payload": PAYLOAD})
            wait_until(lambda: looking.count_runs() == {RunStatus.SUCCEEDED: runs}, seconds=MANY_SECONDS)
            statements, commits = storage.statements - statements, storage.commits - commits
            by_worker, by_coordinator = worker.traffic, coordinator.traffic
    finally:
        looking.close()
        delete_topology(amqp_url, topology, [flow.to_schema().key])

    assert commits <= COMMITS_A_HOP * (steps + runs) + FEW
    assert statements <= (STATEMENTS_A_HOP if runs == 1 else STATEMENTS_A_BATCH) * commits + FEW
    reports = steps if runs == 1 else steps / REPORTS_A_MESSAGE
    assert by_worker.published <= reports + FEW
    assert steps <= by_worker.delivered <= steps + FEW
    assert by_worker.acks <= steps
    # A run is dispatched by a command, which is answered.
    assert by_worker.published - FEW + runs <= by_coordinator.delivered <= reports + runs + FEW
    assert steps + runs <= by_coordinator.published <= PUBLISHED_BY_COORDINATOR_A_HOP * (steps + runs) + FEW
    assert by_coordinator.acks <= by_coordinator.delivered
    assert by_worker.frames + by_coordinator.frames <= 22 * (steps + runs) + 10 * FEW


def test_reports_that_wait_are_taken_together(
    amqp_url: str, fresh_postgres_url: str, storage: PostgresRuntimeStorage, topology: Topology
) -> None:
    """Group commit: what has arrived together shares statements, a commit and an acknowledgement."""
    runs = 200
    schema = graph("chain", {"a": ["b"]})
    ready = threading.Event()
    try:
        with AmqpBroker(amqp_url, topology=topology, call_seconds=SECONDS) as broker:
            with running(Coordinator(storage, amqp_url, topology=topology, on_ready=ready.set), ready):
                worker_id = broker.register_worker([schema])
                for _ in range(runs):
                    broker.dispatch_workflow(schema)
                taken: list[StepAssignment] = []
                while len(taken) < runs:
                    assignment = broker.get_step(worker_id)
                    assert assignment is not None
                    taken.append(assignment)
            for assignment in taken:
                broker.report_step(worker_id, report_on(assignment))
            again = PostgresRuntimeStorage(fresh_postgres_url)
            ready.clear()
            coordinator = Coordinator(again, amqp_url, topology=topology, on_ready=ready.set)
            with running(coordinator, ready):
                wait_until(
                    lambda: [row.name for _, row in storage.list_queued()] == ["b"] * runs, MANY_SECONDS
                )
                wait_until(lambda: coordinator.traffic.acks > 0, MANY_SECONDS)
            traffic = coordinator.traffic
            again.close()
    finally:
        delete_topology(amqp_url, topology, [schema.key])
    # How the server cuts them into bursts is its business. One by one would be 200 of each.
    assert runs <= traffic.delivered <= runs + FEW
    assert again.commits <= runs / 4
    assert again.statements <= runs / 4 * STATEMENTS_A_BATCH
    assert 1 <= traffic.acks <= runs / 4

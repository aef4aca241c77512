"""P1, P3: a run of 1 -> 2,000 -> 1 over RabbitMQ, recorded in PostgreSQL."""

from __future__ import annotations

import threading

from fuseline.amqp.topology import Topology
from fuseline.engine import Rules
from fuseline.model import RunStatus, Status
from fuseline.storage import PostgresRuntimeStorage
from fuseline.worker import Worker
from tests.integration.coordinator.conftest import served
from tests.integration.coordinator.wide import WIDTH, wide

MANY_SECONDS = 90.0


def test_one_to_two_thousand_to_one(amqp_url: str, fresh_postgres_url: str, topology: Topology) -> None:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    with served(amqp_url, topology, Rules(), storage) as broker:
        worker = Worker(broker, wide, concurrency=16, topology=topology)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            view = broker.wait(wide.dispatch(broker, {"factor": 3}), MANY_SECONDS)
        finally:
            worker.stop()
            thread.join(MANY_SECONDS)
    assert view.state is RunStatus.SUCCEEDED
    assert view.outputs == {"join": "joined"}
    assert sum(view.steps[f"part_{index:04}"].result for index in range(WIDTH)) == 3 * sum(range(WIDTH))
    assert len(view.steps) == WIDTH + 2
    assert {(one.state, one.attempt) for one in view.steps.values()} == {(Status.SUCCEEDED, 1)}
    # All of it was in the database, not only in this process.
    again = PostgresRuntimeStorage(fresh_postgres_url)
    stored = again.read_run(view.instance_id)
    again.close()
    storage.close()
    assert stored is not None
    assert len(stored.steps) == WIDTH + 2

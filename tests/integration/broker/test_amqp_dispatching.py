"""Many runs dispatched with one call, over RabbitMQ, with a real coordinator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.broker.asking import AT_ONCE
from fuseline.broker.dispatching import RUNS_AT_ONCE
from fuseline.coordinator import Coordinator
from fuseline.errors import CallerError, InvalidInputsError, MessageTooLargeError
from fuseline.model import RunStatus
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS
from tests.integration.coordinator.harness import coordinating

SCHEMA = graph("many", {"a": []})


@pytest.fixture
def storage() -> MemoryRuntimeStorage:
    """Where the coordinator keeps the runs."""
    return MemoryRuntimeStorage()


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology, storage: MemoryRuntimeStorage) -> Iterator[Coordinator]:
    """Serving."""
    with coordinating(amqp_url, topology, storage) as coordinator:
        yield coordinator


@pytest.fixture
def broker(amqp_url: str, topology: Topology, coordinator: Coordinator) -> Iterator[AmqpBroker]:
    """Connected to it."""
    with AmqpBroker(amqp_url, topology=topology, call_seconds=SECONDS, max_message_bytes=300_000) as broker:
        yield broker


def test_many_runs_cost_few_messages(
    broker: AmqpBroker, coordinator: Coordinator, storage: MemoryRuntimeStorage
) -> None:
    """A command, and its answer, for every few hundred runs; more of them than are under way at once."""
    commands = AT_ONCE + 2
    count = RUNS_AT_ONCE * (commands - 1) + 1
    before = coordinator.traffic.delivered
    runs = broker.dispatch_many(SCHEMA, [{"n": number} for number in range(count)])
    assert coordinator.traffic.delivered - before <= commands + 1  # a heartbeat may be among them
    assert len(set(runs)) == count
    assert storage.count_runs() == {RunStatus.RUNNING: count}
    for number in (0, RUNS_AT_ONCE, count - 1):
        assert broker.get_run(runs[number]).inputs == {"n": number}


def test_the_same_ids_are_the_same_runs(broker: AmqpBroker, storage: MemoryRuntimeStorage) -> None:
    """P3: who does not know what came of a call repeats it."""
    ids = [f"run-{number}" for number in range(5)]
    assert broker.dispatch_many(SCHEMA, [{}] * 3, instance_ids=ids[:3]) == ids[:3]
    assert broker.dispatch_many(SCHEMA, [{}] * 5, instance_ids=ids) == ids
    assert storage.count_runs() == {RunStatus.RUNNING: 5}


def test_an_id_that_another_workflows_run_has_is_refused_and_named(
    broker: AmqpBroker, storage: MemoryRuntimeStorage
) -> None:
    """P7. The others begin: each run is one by itself."""
    broker.dispatch_workflow(graph("other", {"a": []}), instance_id="taken")
    with pytest.raises(CallerError, match="'taken'"):
        broker.dispatch_many(SCHEMA, [{}, {}], instance_ids=["taken", "free"])
    assert broker.get_run("free").state is RunStatus.RUNNING
    assert storage.count_runs() == {RunStatus.RUNNING: 2}


@pytest.mark.parametrize(
    ("wrong", "raised"),
    [({"deep": [object()]}, InvalidInputsError), ({"text": "x" * 400_000}, MessageTooLargeError)],
    ids=["not JSON", "too large"],
)
def test_nothing_begins_when_one_of_them_is_wrong(
    broker: AmqpBroker, storage: MemoryRuntimeStorage, wrong: dict[str, object], raised: type[Exception]
) -> None:
    """P7: before anything is half done, also when the wrong one comes long after the others."""
    broker.dispatch_workflow(SCHEMA)
    with pytest.raises(raised):
        broker.dispatch_many(SCHEMA, [{}] * (RUNS_AT_ONCE + 1) + [wrong])
    assert storage.count_runs() == {RunStatus.RUNNING: 1}

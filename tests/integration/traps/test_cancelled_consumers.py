"""P1: RabbitMQ cancels a consumer when its queue is deleted (4.3 also when it holds a delivery too long).

A client library that leaves it at that has a process that lives, answers heartbeats and takes no work for ever. Workers:
tests/integration/worker/test_with_coordinator.py. Both kinds of link: tests/integration/amqp/test_consuming.py.
"""

from __future__ import annotations

import pytest

from fuseline.broker import AmqpBroker
from fuseline.model import RunStatus, Status, StepReport
from tests.integration.amqp.harness import delete_all, wait_until
from tests.integration.traps.parties import Party, one_step

SCHEMA = one_step()


@pytest.mark.parametrize("which", ["reports", "commands", "dead"])
def test_a_coordinator_whose_queue_is_deleted_consumes_again(
    party: Party, broker: AmqpBroker, topology_prefix: str, which: str
) -> None:
    party.worker(SCHEMA)
    assert party.wait(broker.dispatch_workflow(SCHEMA)).state is RunStatus.SUCCEEDED
    queue = f"{topology_prefix}.{which}"
    delete_all(party.url, [queue], [])
    party.wait_for_consumer(queue)
    assert party.wait(broker.dispatch_workflow(SCHEMA)).state is RunStatus.SUCCEEDED


def test_a_broker_that_pulls_steps_goes_on_when_its_queue_was_deleted(
    party: Party, broker: AmqpBroker
) -> None:
    """The getting side: no consumer there, but a channel that RabbitMQ closes over the missing queue."""
    worker_id = broker.register_worker([SCHEMA])
    assert broker.get_step(worker_id) is None
    delete_all(party.url, [party.topology.steps_queue(*SCHEMA.key)], [])
    instance_id = broker.dispatch_workflow(SCHEMA)
    taken = []

    def took() -> bool:
        if (step := broker.get_step(worker_id)) is not None:
            taken.append(step)
        return bool(taken)

    wait_until(took)
    report = StepReport(
        workflow_id=SCHEMA.workflow_id, instance_id=instance_id, step_name="a", state=Status.SUCCEEDED
    )
    broker.report_step(worker_id, report)
    assert party.wait(instance_id).state is RunStatus.SUCCEEDED

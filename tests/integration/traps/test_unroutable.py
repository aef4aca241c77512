"""P1: a step queue that is deleted between the dispatch and the publish. RabbitMQ confirms what reaches no queue."""

from __future__ import annotations

from fuseline.broker import AmqpBroker
from fuseline.model import RunStatus
from tests.integration.amqp.harness import delete_all
from tests.integration.traps.parties import Party, one_step

SCHEMA = one_step()


def test_an_assignment_whose_queue_was_deleted_is_published_again(party: Party, broker: AmqpBroker) -> None:
    """The coordinator knows the queue as declared; the sweep, an hour away here, has no part in it."""
    broker.register_worker([SCHEMA])
    delete_all(party.url, [party.topology.steps_queue(*SCHEMA.key)], [])
    instance_id = broker.dispatch_workflow(SCHEMA)
    party.worker(SCHEMA)
    assert party.wait(instance_id).state is RunStatus.SUCCEEDED

"""P4: a report comes back each time its coordinator is lost. RabbitMQ 4 drops what came back 20 times, unless told."""

from __future__ import annotations

from collections.abc import Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from fuseline.amqp import codec
from fuseline.amqp.parked import ParkedQueue
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import COORDINATOR_DELIVERY_LIMIT, Topology
from fuseline.broker import AmqpBroker
from fuseline.model import RunStatus, Status, StepReport
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, props, wait_until
from tests.integration.coordinator.harness import running

SCHEMA = graph("ingest", {"a": []}, outputs=["a"])
RUN = "0f" * 16
FLAPPING = 60
"""More often than any version gives back by itself, and far less than what says that nobody will get through."""


@pytest.fixture
def channel(amqp_url: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        yield connection.channel()


def come_back(channel: BlockingChannel, queue: str, times: int) -> None:
    """Take the one message of `queue` and give it back as RabbitMQ does when its consumer is lost: it counts."""
    for _ in range(times):
        wait_until(lambda: _give_back(channel, queue))


def _give_back(channel: BlockingChannel, queue: str) -> bool:
    method, _, _ = channel.basic_get(queue)
    if method is None or method.delivery_tag is None:
        return False
    channel.basic_reject(method.delivery_tag, requeue=True)
    return True


def test_a_report_that_comes_back_often_is_recorded_and_parked_only_when_nobody_gets_through(
    amqp_url: str, topology_prefix: str, channel: BlockingChannel
) -> None:
    topology = Topology(topology_prefix)
    storage = MemoryRuntimeStorage()
    with running(amqp_url, topology, storage), AmqpBroker(amqp_url, topology=topology) as broker:
        broker.dispatch_workflow(SCHEMA, instance_id=RUN)
    report = StepReport(
        workflow_id="ingest", instance_id=RUN, step_name="a", state=Status.SUCCEEDED, result=42
    )
    with BackgroundLink(amqp_url, name="worker") as link:
        exchange = topology.reports_exchange(SCHEMA.workflow_id)
        link.publish(exchange, "", codec.encode(report), props(codec.REPORT), deadline_seconds=SECONDS)
        come_back(channel, topology.reports_queue, FLAPPING)
        parked = ParkedQueue(link, topology, SECONDS)
        assert parked.count() == 0
        come_back(channel, topology.reports_queue, COORDINATOR_DELIVERY_LIMIT - FLAPPING + 1)
        wait_until(lambda: parked.count() == 1)
        assert not _give_back(channel, topology.reports_queue)
        for _ in range(2):  # looking puts it back as another message, which says the same
            (seen,) = parked.browse()
            assert seen.exchange == exchange
            assert "each coordinator that took it was lost" in seen.reason
            assert topology.reports_queue in seen.reason
        with running(amqp_url, topology, storage), AmqpBroker(amqp_url, topology=topology) as broker:
            (replayed,) = parked.replay(lambda _: True)
            assert replayed.problem == ""
            assert broker.wait(RUN, SECONDS).state is RunStatus.SUCCEEDED

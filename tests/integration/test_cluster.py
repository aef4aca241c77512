"""P1, P4, P7 on a RabbitMQ cluster: its nodes die and are parted, and Fuseline goes on or says so in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import get_args

import pytest

from fuseline import Workflow, step
from fuseline.amqp.resources import Queue
from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.clock import SystemClock
from fuseline.errors import BrokerBusyError, RetryableError
from fuseline.model.status import RunStatus
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.servers import Alarm, PrivateRabbitMQCluster
from fuseline.worker import Worker
from tests.integration.amqp.harness import AnyLink, make_link, outside, props
from tests.integration.coordinator.harness import running
from tests.integration.traps.parties import error_of, one_step, success, take

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

WAIT_SECONDS = 120.0
executed: list[int] = []


@step
def note(number: int) -> int:
    executed.append(number)
    return number


WORKFLOW = Workflow(outputs=[note], workflow_id="noted", version="1")


class System:
    """A coordinator, a worker and a client, which all know every node's address."""

    def __init__(self, cluster: PrivateRabbitMQCluster, prefix: str) -> None:
        self.cluster = cluster
        self.topology = Topology(prefix)
        self.queue = self.topology.steps_queue("noted", "1")
        self.broker = AmqpBroker(cluster.url, topology=self.topology, call_seconds=WAIT_SECONDS)

    def impatient(self, url: str, call_seconds: float) -> AmqpBroker:
        return AmqpBroker(url, topology=self.topology, call_seconds=call_seconds)

    def finishes(self, number: int) -> bool:
        """Whether a run goes through."""
        run = WORKFLOW.dispatch(self.broker, {"number": number})
        return self.broker.wait(run, WAIT_SECONDS).state is RunStatus.SUCCEEDED


@contextmanager
def working(cluster: PrivateRabbitMQCluster, topology: Topology) -> Iterator[None]:
    worker = Worker(cluster.url, [WORKFLOW], topology=topology, drain_seconds=1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def system(rabbitmq_cluster: PrivateRabbitMQCluster, topology_prefix: str) -> Iterator[System]:
    one = System(rabbitmq_cluster, topology_prefix)
    executed.clear()
    storage = MemoryRuntimeStorage()
    with (
        one.broker,
        running(rabbitmq_cluster.url, one.topology, storage),
        working(rabbitmq_cluster, one.topology),
    ):
        assert one.finishes(0)
        yield one


def other_leader(cluster: PrivateRabbitMQCluster, queue: str, than: int) -> int:
    """Who leads a queue, once it is somebody else."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (leader := cluster.leader_of(queue)) in (None, than):
        assert time.monotonic() < deadline, "no other node came to lead"
    assert leader is not None
    return leader


def test_a_killed_leader_is_replaced_and_runs_go_on(system: System) -> None:
    """P1, P4: one node of three is dead, and nobody who uses the cluster has to know."""
    cluster = system.cluster
    leader = cluster.leader_of(system.queue)
    assert leader is not None
    cluster.nodes[leader].kill()
    assert all(system.finishes(number) for number in range(1, 4))
    assert sorted(executed) == [0, 1, 2, 3]
    new = other_leader(cluster, system.queue, leader)
    assert {status.leader for status in cluster.member.queues() if status.name == system.queue} == {
        cluster.nodes[new].node
    }
    cluster.nodes[leader].start()
    assert system.finishes(4)


@pytest.mark.parametrize("kind", ["select", "asyncio"])
def test_a_publisher_that_was_refused_while_a_queue_had_no_leader_is_not_refused_for_good(
    rabbitmq_cluster: PrivateRabbitMQCluster, topology_prefix: str, kind: str
) -> None:
    """P1: RabbitMQ 3.10 goes on refusing such a channel when the queue has long had a leader again."""
    cluster = rabbitmq_cluster
    queues = [Queue(f"{topology_prefix}.{number}", {"x-queue-type": "quorum"}) for number in range(3)]
    with closing(make_link(kind, cluster.urls[1])) as first:
        first.declare(queues, deadline_seconds=WAIT_SECONDS)
    with closing(make_link(kind, cluster.urls[0])) as link:
        link.connect(WAIT_SECONDS)
        leader = cluster.leader_of(queues[0].name)
        assert leader == 1
        cluster.nodes[leader].kill()
        for queue in queues:
            deadline = time.monotonic() + WAIT_SECONDS
            while not is_taken(link, queue.name):
                assert time.monotonic() < deadline, "the channel is refused for good"


def is_taken(link: AnyLink, queue: str) -> bool:
    try:
        link.publish("", queue, b"1", props(), deadline_seconds=WAIT_SECONDS)
    except BrokerBusyError:
        time.sleep(0.2)
        return False
    return True


def test_without_a_majority_a_dispatch_fails_in_time_and_lands_at_most_once(system: System) -> None:
    """P3, P7: what timed out may take effect yet, once, also when the caller tries again."""
    cluster = system.cluster
    run = SystemClock().new_id()

    def dispatch(broker: AmqpBroker) -> str:
        return broker.dispatch_workflow(WORKFLOW.to_schema(), {"number": 1}, instance_id=run)

    with system.impatient(cluster.url, 3) as broker:
        cluster.stop_app(0)
        cluster.stop_app(1)
        began = time.monotonic()
        assert isinstance(error_of(lambda: dispatch(broker)), RetryableError)
        assert time.monotonic() - began >= 3
    cluster.start_app(1)
    cluster.start_app(0)
    assert dispatch(system.broker) == run
    ended = system.broker.wait(run, WAIT_SECONDS)
    assert ended.state is RunStatus.SUCCEEDED
    assert dispatch(system.broker) == run
    assert system.finishes(2)
    assert system.broker.get_run(run) == ended
    assert [one.instance_id for one in system.broker.list_runs()].count(run) == 1
    assert executed == [0, 1, 2]


def test_without_a_majority_a_report_fails_in_time_and_counts_once(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3, P7: the same for who pulls a step and reports it."""
    cluster, broker = system.cluster, system.broker
    schema = one_step(workflow_id="pulled")
    worker_id = broker.register_worker([schema])
    run = broker.dispatch_workflow(schema)
    step = take(broker, worker_id)
    cluster.stop_app(0)
    cluster.stop_app(1)
    with monkeypatch.context() as hasty:
        hasty.setattr(broker, "_call_seconds", 3)
        assert isinstance(error_of(lambda: broker.report_step(worker_id, success(step))), RetryableError)
    cluster.start_app(1)
    cluster.start_app(0)
    broker.report_step(worker_id, success(step))
    ended = broker.wait(run, WAIT_SECONDS)
    assert (ended.state, ended.steps["a"].attempt) == (RunStatus.SUCCEEDED, 1)
    assert system.finishes(1)
    assert broker.get_step(worker_id) is None
    assert broker.get_run(run) == ended


def test_clients_of_a_parted_node_go_elsewhere_or_are_told(system: System) -> None:
    """P1, P7: the node has lost its majority; who knows another one uses that, who does not gets an error in time."""
    cluster = system.cluster
    leader = cluster.leader_of(system.queue)
    assert leader is not None
    with system.impatient(cluster.urls[leader], 3) as stuck:
        assert stuck.list_runs()
        cluster.partition(leader)
        with pytest.raises(RetryableError):
            stuck.list_runs()
        assert system.finishes(1)
        assert other_leader(cluster, system.queue, leader) != leader
        cluster.heal()
        assert all(node.serves() for node in cluster.nodes)
        assert system.finishes(2)
    with system.impatient(cluster.urls[leader], WAIT_SECONDS) as back:
        assert len(back.list_runs()) == 3


def test_connections_can_be_closed_at_every_node(system: System) -> None:
    cluster = system.cluster
    brokers = [system.impatient(url, WAIT_SECONDS) for url in cluster.urls]
    for broker in brokers:
        broker.list_runs()
    before = {(one.port, one.peer_port) for one in cluster.member.connections()}
    assert {port for port, _ in before} == {node.port for node in cluster.nodes}
    cluster.close_all_connections("closed by us")
    for broker in brokers:
        assert broker.list_runs()
        broker.close()
    assert not before & {(one.port, one.peer_port) for one in cluster.member.connections()}


def test_a_queue_that_is_not_there_has_no_leader(rabbitmq_cluster: PrivateRabbitMQCluster) -> None:
    with pytest.raises(RuntimeError, match="no_such_queue"):
        rabbitmq_cluster.leader_of("nowhere")


def test_an_alarm_at_one_node_blocks_who_publishes_to_another(system: System) -> None:
    """P7: whoever is blocked is told in time, and what was blocked goes on when the alarm is over."""
    cluster = system.cluster
    for resource in get_args(Alarm):
        cluster.set_alarm(0, resource)
        with system.impatient(cluster.urls[1], 2) as broker, pytest.raises(RetryableError):
            broker.list_runs()
        cluster.clear_alarm(0, resource)
        assert system.broker.list_runs()


def test_queues_are_listed_purged_and_deleted(system: System) -> None:
    """P1: a step queue that is deleted comes back with the next run."""
    cluster = system.cluster
    parked = system.topology.parked_queue
    with outside(cluster.urls[0]) as channel:
        channel.basic_publish("", parked, b"what")
    listed = {status.name: status for status in cluster.member.queues()}
    assert listed[system.queue].kind == "quorum"
    cluster.member.purge_queue(parked)
    with outside(cluster.urls[0]) as channel:
        assert channel.basic_get(parked)[0] is None
    cluster.member.delete_queue(system.queue)
    assert system.finishes(1)

"""Faults of RabbitMQ: nodes killed, stopped and restarted, connections closed, alarms, queues deleted and purged."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from tests.fault.adversary.base import AWAY, Evidence, Fault, Stage

_BLOCKED = r"blocks publishers|BrokerBusyError|is blocked|takes messages again"


def _kill(stage: Stage) -> Evidence:
    node = stage.random.choice(stage.world.nodes)
    stage.target = stage.world.node_name(node)
    node.kill()
    stage.hold(0.0, 3.0)
    node.start()
    return stage.logged(AWAY)


def _restart(stage: Stage) -> Evidence:
    node = stage.random.choice(stage.world.nodes)
    stage.target = stage.world.node_name(node)
    node.stop()
    stage.hold(0.0, 1.0)
    node.start()
    return stage.logged(AWAY)


def _stop_app(stage: Stage) -> Evidence:
    index = stage.random.randrange(len(stage.world.nodes))
    node, cluster = stage.world.nodes[index], stage.world.cluster
    stage.target = stage.world.node_name(node)
    if cluster is None:
        node.rabbitmqctl("stop_app")
    else:
        cluster.stop_app(index)
    try:
        stage.hold(0.0, 3.0)
    finally:
        if cluster is None:
            node.rabbitmqctl("start_app")
        else:
            cluster.start_app(index)
    return stage.logged(AWAY)


def _partition(stage: Stage) -> Evidence:
    """One node sees the other two no more, and pauses."""
    cluster = stage.world.cluster
    assert cluster is not None
    index = stage.random.randrange(len(cluster.nodes))
    stage.target = stage.world.node_name(cluster.nodes[index])
    cluster.partition(index)
    is_paused = not cluster.nodes[index].running or _refuses(stage.world.nodes[index].url)
    try:
        stage.hold(2.0, 8.0)
    finally:
        cluster.heal()
    logged = stage.logged(AWAY)
    return lambda: logged() or ("the node served nobody" if is_paused else None)


def _refuses(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return not connection.recv(1)
    except OSError:
        return True


def _kill_leader(stage: Stage) -> Evidence:
    """The node that leads the queue of reports."""
    world = stage.world
    assert world.cluster is not None
    queue = world.topology.reports_queue
    leader = world.cluster.leader_of(queue)
    if leader is None:
        return lambda: None
    node = world.nodes[leader]
    stage.target = f"{world.node_name(node)}, leader of {queue}"
    node.kill()
    try:
        stage.hold(1.0, 4.0)
        now = world.cluster.leader_of(queue)
    finally:
        node.start()
    logged = stage.logged(AWAY)
    changed = (
        None if now is None or now == leader else f"leader changed from node {leader + 1} to node {now + 1}"
    )
    return lambda: changed or logged()


def _close_all(stage: Stage) -> Evidence:
    node = stage.random.choice(stage.world.nodes)
    stage.target = stage.world.node_name(node)
    node.rabbitmqctl("close_all_connections", "closed by the adversary")
    return stage.logged(AWAY)


def _memory_alarm(stage: Stage) -> Evidence:
    return _alarm(stage, ("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"))


def _disk_alarm(stage: Stage) -> Evidence:
    return _alarm(stage, ("set_disk_free_limit", "900GB"), ("set_disk_free_limit", "50MB"))


def _alarm(stage: Stage, begin: tuple[str, str], end: tuple[str, str]) -> Evidence:
    node = stage.random.choice(stage.world.nodes)
    stage.target = stage.world.node_name(node)
    node.rabbitmqctl(*begin)
    try:
        stage.hold(2.0, 5.0)
    finally:
        node.rabbitmqctl(*end)
    return stage.logged(_BLOCKED)


def _delete_queue(stage: Stage) -> Evidence:
    queue = _steps_queue(stage)
    gone = stage.world.taps.delete(queue)
    return lambda: f"queue gone with {gone} messages" if gone is not None else None


def _purge_queue(stage: Stage) -> Evidence:
    """With all workers killed first, so that there is something in the queues to lose."""
    workers = [party for party in stage.world.parties if party.role == "worker"]
    for party in workers:
        with party.lock:
            party.is_down = True
            assert party.process is not None
            party.process.kill()
    try:
        stage.hold(1.5, 3.0)
        purged = {queue: stage.world.taps.purge(queue) for queue in _steps_queues(stage)}
        stage.target = ", ".join(queue for queue, count in purged.items() if count)
    finally:
        for party in workers:
            party.start()
    count = sum(filter(None, purged.values()))
    return lambda: f"{count} messages purged" if count else None


def _steps_queues(stage: Stage) -> list[str]:
    world = stage.world
    return [world.topology.steps_queue(schema.workflow_id, schema.version) for schema in world.schemas]


def _steps_queue(stage: Stage) -> str:
    stage.target = stage.random.choice(_steps_queues(stage))
    return stage.target


FAULTS = [
    Fault("kill -9 and restart of a RabbitMQ node", _kill, 2, is_quick=False),
    Fault("restart of a RabbitMQ node", _restart, 1, is_quick=False),
    Fault("stop_app and start_app of a RabbitMQ node", _stop_app, 1, is_quick=False),
    Fault("partition of one node", _partition, 4, ("cluster",), is_quick=False),
    Fault("kill -9 of a queue's leader", _kill_leader, 3, ("cluster",), is_quick=False),
    Fault("close_all_connections", _close_all, 3),
    Fault("memory alarm", _memory_alarm, 2),
    Fault("disk alarm", _disk_alarm, 1),
    Fault("step queue deleted", _delete_queue, 3),
    Fault("all workers killed and step queues purged", _purge_queue, 2),
]

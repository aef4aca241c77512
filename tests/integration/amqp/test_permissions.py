"""What a stolen password can do, and that it is enough for the work: the roles on a server that enforces them."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.definitions import Account, Role, definitions, password_hash
from fuseline.amqp.failures import ACCESS_REFUSED
from fuseline.amqp.resources import Finding
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO, Topology
from fuseline.errors import AccessRefusedError
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.amqp.harness import SECONDS, Taker, on_thread, outside, props, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.matrix]

TOPOLOGY = Topology("fl_roles")
MINE, OTHER = ("orders", "1"), ("orders.eu", "1")
VHOST = "fl_roles"


@pytest.fixture(scope="module")
def server(_killable_rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """A node with the definitions of two workflows and an account for each role, whose password is its role."""
    server = _killable_rabbitmq.start()
    accounts = [
        Account(
            role.value,
            role,
            (MINE[0],) if role in (Role.WORKER, Role.OBSERVER) else None,
            password_hash(role.value, b"salt"),
        )
        for role in Role
    ]
    made = definitions(TOPOLOGY, workflows=[MINE, OTHER], accounts=accounts, virtual_host=VHOST)
    name = "definitions.json"
    path = server.installation.outside(server.folder) / name
    path.write_text(json.dumps(made))
    server.give(path, 0o644)
    server.rabbitmqctl("import_definitions", str(Path(server.folder) / name))
    server.rabbitmqctl("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")
    yield server
    server.rabbitmqctl("delete_vhost", VHOST)


@pytest.fixture
def url(server: PrivateRabbitMQ) -> Callable[[Role], str]:
    """The address for a role."""

    def url(role: Role) -> str:
        return server.url_for(VHOST).replace("guest:guest", f"{role}:{role}")

    return url


@pytest.fixture
def link_of(url: Callable[[Role], str]) -> Iterator[Callable[..., BackgroundLink]]:
    """Links with a role's rights."""
    links: list[BackgroundLink] = []

    def make(role: Role, on_notice: Callable[[Delivery], None] | None = None) -> BackgroundLink:
        links.append(BackgroundLink(url(role), name=role, on_notice=on_notice))
        return links[-1]

    yield make
    for link in links:
        link.close(0)


def refused(url: str, action: Callable[[BlockingChannel], object]) -> bool:
    """Whether the server answers the action with 403."""
    try:
        with outside(url) as channel:
            channel.confirm_delivery()
            action(channel)
    except ChannelClosedByBroker as error:
        return int(error.reply_code) == ACCESS_REFUSED
    except UnroutableError:
        return False  # it was let through
    return False


def publish(exchange: str, key: str = "") -> Callable[[BlockingChannel], object]:
    return lambda channel: channel.basic_publish(exchange, key, b"x", pika.BasicProperties(), mandatory=True)


def test_the_definitions_are_the_topology(
    server: PrivateRabbitMQ, link_of: Callable[..., BackgroundLink]
) -> None:
    resources = TOPOLOGY.base_resources()
    for workflow in (MINE, OTHER):
        resources += TOPOLOGY.workflow_resources(*workflow)
    link = link_of(Role.DEPLOYER)
    verdicts = link.verify(resources, deadline_seconds=SECONDS)
    assert {one.finding for one in verdicts} == {Finding.OK, Finding.UNKNOWN}
    assert TOPOLOGY.policies()[0].name in server.rabbitmqctl("list_policies", "-p", VHOST)


def test_a_worker_does_its_work_with_its_rights(link_of: Callable[..., BackgroundLink]) -> None:
    """Takes a step, reports, beats, asks, is told to stop: and declares nothing."""
    notices: queue.Queue[Delivery] = queue.Queue()
    worker = link_of(Role.WORKER, notices.put)
    coordinator = link_of(Role.COORDINATOR)
    beats = Taker(coordinator, TOPOLOGY.heartbeats_queue("c1"), ack=True)
    reports = Taker(coordinator, TOPOLOGY.reports_queue, ack=True)
    commands = Taker(coordinator, TOPOLOGY.commands_queue, ack=True)
    wait_until(lambda: beats.consumer.is_consuming)

    steps = Taker(worker, TOPOLOGY.steps_queue(*MINE), ack=True)
    key = TOPOLOGY.steps_key(*MINE)
    coordinator.publish(TOPOLOGY.steps_exchange, key, b"step", props(), deadline_seconds=SECONDS)
    assert steps.delivery().body == b"step"

    worker.publish(TOPOLOGY.reports_exchange(MINE[0]), "", b"report", props(), deadline_seconds=SECONDS)
    assert reports.delivery().exchange == TOPOLOGY.reports_exchange(MINE[0])

    beat = props(codec.HEARTBEAT, reply_to=REPLY_TO)
    worker.publish(TOPOLOGY.heartbeats_exchange, "", b"{}", beat, deadline_seconds=SECONDS, mandatory=False)
    address = str(beats.delivery().properties.reply_to)
    coordinator.publish(DEFAULT_EXCHANGE, address, b"stop", props(codec.CONTROL), deadline_seconds=SECONDS)
    assert notices.get(timeout=SECONDS).body == b"stop"

    answers: queue.Queue[object] = queue.Queue()
    on_thread(
        worker,
        lambda link: link.rpc(
            TOPOLOGY.worker_commands_exchange,
            "",
            b"ask",
            props(),
            on_reply=answers.put,
            deadline_seconds=SECONDS,
        ),
    )
    asked = commands.delivery()
    assert asked.exchange == TOPOLOGY.worker_commands_exchange
    reply = props(codec.REPLY, correlation_id=asked.properties.correlation_id)
    to = str(asked.properties.reply_to)
    coordinator.publish(DEFAULT_EXCHANGE, to, b"answer", reply, deadline_seconds=SECONDS)
    answer = answers.get(timeout=SECONDS)
    assert isinstance(answer, Delivery)
    assert answer.body == b"answer"


@pytest.mark.parametrize(
    "action",
    [
        publish(TOPOLOGY.reports_exchange(OTHER[0])),
        publish(TOPOLOGY.steps_exchange, TOPOLOGY.steps_key(*MINE)),
        publish(TOPOLOGY.commands_exchange),
        publish(TOPOLOGY.events_exchange, "a.b.c"),
        publish(TOPOLOGY.dead_exchange),
        publish(DEFAULT_EXCHANGE, TOPOLOGY.reports_queue),
        publish("amq.topic", "x"),
        lambda channel: channel.basic_get(TOPOLOGY.steps_queue(*OTHER)),
        lambda channel: channel.basic_get(TOPOLOGY.reports_queue),
        lambda channel: channel.basic_get(TOPOLOGY.parked_queue),
        lambda channel: channel.queue_declare("anything"),
        lambda channel: channel.queue_declare(f"{TOPOLOGY.prefix}.steps.x"),
        lambda channel: channel.queue_delete(TOPOLOGY.steps_queue(*MINE)),
        lambda channel: channel.queue_bind(TOPOLOGY.steps_queue(*MINE), TOPOLOGY.events_exchange, "#"),
    ],
)
def test_a_worker_can_do_nothing_else(
    url: Callable[[Role], str], action: Callable[[BlockingChannel], object]
) -> None:
    assert refused(url(Role.WORKER), action)


def test_a_dispatcher_can_send_commands_and_nothing_else(url: Callable[[Role], str]) -> None:
    mine = url(Role.DISPATCHER)
    assert not refused(mine, publish(TOPOLOGY.commands_exchange))
    assert refused(mine, publish(TOPOLOGY.worker_commands_exchange))
    assert refused(mine, publish(TOPOLOGY.reports_exchange(MINE[0])))
    assert refused(mine, lambda channel: channel.basic_get(TOPOLOGY.commands_queue))
    assert refused(mine, lambda channel: channel.basic_get(TOPOLOGY.steps_queue(*MINE)))


def test_the_http_service_can_be_a_dispatcher_and_every_worker(url: Callable[[Role], str]) -> None:
    mine = url(Role.SERVICE)
    for exchange in (
        TOPOLOGY.commands_exchange,
        TOPOLOGY.worker_commands_exchange,
        TOPOLOGY.reports_exchange(OTHER[0]),
        TOPOLOGY.heartbeats_exchange,
    ):
        assert not refused(mine, publish(exchange))
    assert not refused(mine, lambda channel: channel.basic_get(TOPOLOGY.steps_queue(*OTHER)))
    assert refused(mine, publish(TOPOLOGY.steps_exchange, "x"))
    assert refused(mine, publish(DEFAULT_EXCHANGE, TOPOLOGY.reports_queue))
    assert refused(mine, lambda channel: channel.basic_get(TOPOLOGY.reports_queue))


def test_an_observer_watches_its_workflows_through_queues_of_its_own(
    url: Callable[[Role], str], link_of: Callable[..., BackgroundLink]
) -> None:
    mine = url(Role.OBSERVER)
    own = f"{TOPOLOGY.observers_queue(Role.OBSERVER)}.1"

    def watch(channel: BlockingChannel, patterns: list[str]) -> None:
        channel.queue_declare(own, exclusive=True)
        for pattern in patterns:
            channel.queue_bind(own, TOPOLOGY.events_exchange, pattern)

    with outside(mine) as channel:
        watch(channel, TOPOLOGY.events_patterns(MINE[0]) + TOPOLOGY.events_patterns(MINE[0], "1"))
        key = TOPOLOGY.events_key(MINE[0], "1", "run_finished")
        link_of(Role.COORDINATOR).publish(
            TOPOLOGY.events_exchange, key, b"event", props(), deadline_seconds=SECONDS
        )
        _, _, body = channel.basic_get(own, auto_ack=True)
        assert body == b"event"
    for pattern in TOPOLOGY.events_patterns(OTHER[0]) + TOPOLOGY.events_patterns(OTHER[0], "1"):
        assert refused(mine, partial(watch, patterns=[pattern]))
    assert refused(mine, lambda channel: channel.queue_declare(f"{TOPOLOGY.prefix}.observers.else.1"))
    assert refused(mine, publish(TOPOLOGY.events_exchange, "a.b.c"))
    assert refused(mine, lambda channel: channel.basic_get(TOPOLOGY.steps_queue(*MINE)))


def test_a_coordinator_may_make_room_for_a_new_workflow(link_of: Callable[..., BackgroundLink]) -> None:
    link = link_of(Role.COORDINATOR)
    link.declare(TOPOLOGY.base_resources(), deadline_seconds=SECONDS)
    link.declare(TOPOLOGY.workflow_resources("new one", "2"), deadline_seconds=SECONDS)
    key = TOPOLOGY.steps_key("new one", "2")
    link.publish(TOPOLOGY.steps_exchange, key, b"x", props(), deadline_seconds=SECONDS)


def test_a_missing_right_is_named(link_of: Callable[..., BackgroundLink]) -> None:
    """P7, and nobody waits for a deadline."""
    worker = link_of(Role.WORKER)
    with pytest.raises(AccessRefusedError, match=TOPOLOGY.commands_exchange):
        worker.publish(TOPOLOGY.commands_exchange, "", b"x", props(), deadline_seconds=SECONDS)
    with pytest.raises(AccessRefusedError, match=TOPOLOGY.reports_queue):
        worker.get(TOPOLOGY.reports_queue, deadline_seconds=SECONDS)
    with pytest.raises(AccessRefusedError, match=TOPOLOGY.dead_queue):
        worker.declare(
            [one for one in TOPOLOGY.base_resources() if TOPOLOGY.dead_queue in str(one)],
            deadline_seconds=SECONDS,
        )
    taker = Taker(worker, TOPOLOGY.parked_queue)
    assert isinstance(taker.loss(), AccessRefusedError)
    on_thread(worker, lambda _link: taker.consumer.cancel())


def test_without_rights_verify_says_what_it_cannot_know(link_of: Callable[..., BackgroundLink]) -> None:
    verdicts = link_of(Role.WORKER).verify(TOPOLOGY.workflow_resources(*MINE), deadline_seconds=SECONDS)
    assert {one.finding for one in verdicts} == {Finding.UNKNOWN}

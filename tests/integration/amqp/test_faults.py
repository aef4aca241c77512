"""P1, P4, P5, P7: what happens to messages and waits when the server cuts, crashes, or runs out of memory."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.aio import AsyncLink
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.events import EventStream
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerBusyError, BrokerUnavailableError
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import (
    SECONDS,
    AnyLink,
    Burst,
    Taker,
    drain,
    on_thread,
    outside,
    props,
    wait_until,
)

pytestmark = [pytest.mark.fault, pytest.mark.slow]

# A restart of the server is a matter of seconds, on a busy machine of many.
PATIENCE_SECONDS = 60.0


@pytest.fixture
def amqp_url(rabbitmq_server: PrivateRabbitMQ) -> str:
    """All of it on a server that these tests may hurt."""
    return rabbitmq_server.url


@pytest.fixture
def key(topology: Topology) -> str:
    return topology.steps_key(*WORKFLOW)


def cut(server: PrivateRabbitMQ) -> None:
    server.rabbitmqctl("close_all_connections", "a test")


@contextmanager
def alarm(server: PrivateRabbitMQ) -> Iterator[None]:
    """A memory alarm: RabbitMQ blocks whoever publishes."""
    server.rabbitmqctl("set_vm_memory_high_watermark", "0.0001")
    try:
        yield
    finally:
        server.rabbitmqctl("set_vm_memory_high_watermark", "0.4")


def test_a_burst_through_a_cut_connection_loses_nothing(
    open_link: Callable[..., AnyLink],
    topology: Topology,
    steps: str,
    key: str,
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    states: queue.Queue[str] = queue.Queue()
    other = open_link(on_up=lambda: states.put("up"), on_down=lambda _error: states.put("down"))
    other.connect(SECONDS)
    assert states.get(timeout=SECONDS) == "up"
    burst = Burst(other, deadline_seconds=PATIENCE_SECONDS)
    cutting = threading.Thread(target=cut, args=(rabbitmq_server,))
    cutting.start()
    sent = 0
    # Bounded: on a busy machine the cut takes a while, and all that was sent is read back below.
    while cutting.is_alive() and sent < 10_000:
        burst.publish(
            [(topology.steps_exchange, key, str(number).encode()) for number in range(sent, sent + 50)]
        )
        sent += 50
        time.sleep(0.01)
    cutting.join()
    assert burst.answers() == [None] * sent
    assert {int(body) for body in drain(rabbitmq_server.url, steps)} == set(range(sent))
    assert states.get(timeout=SECONDS) == "down"
    wait_until(lambda: "up" in states.queue)


def test_publishes_wait_for_a_crashed_server_to_come_back(
    link: AnyLink, topology: Topology, steps: str, key: str, rabbitmq_server: PrivateRabbitMQ
) -> None:
    # A quorum queue that is some seconds old can be lost in a crash (rabbitmq-server, issue 15725): declare at deployment.
    rabbitmq_server.restart()
    link.publish(topology.steps_exchange, key, b"before", props(), deadline_seconds=PATIENCE_SECONDS)
    rabbitmq_server.kill()
    burst = Burst(link, deadline_seconds=PATIENCE_SECONDS)
    burst.publish([(topology.steps_exchange, key, str(number).encode()) for number in range(100)])
    with pytest.raises(BrokerUnavailableError, match=str(rabbitmq_server.port)):
        link.publish(topology.steps_exchange, key, b"hasty", props(), deadline_seconds=0.5)
    rabbitmq_server.start()
    assert burst.answers() == [None] * 100
    bodies = drain(rabbitmq_server.url, steps)
    assert bodies[0] == b"before"
    assert {int(body) for body in bodies[1:]} == set(range(100)), "what was given up was not sent later"


def test_a_held_delivery_comes_again_after_a_cut_and_its_old_tag_does_nothing(
    link: AnyLink, topology: Topology, steps: str, key: str, rabbitmq_server: PrivateRabbitMQ
) -> None:
    taker = Taker(link, steps)
    link.publish(topology.steps_exchange, key, b"x", props(), deadline_seconds=SECONDS)
    old = taker.delivery()
    cut(rabbitmq_server)
    assert "a test" in str(taker.loss())
    new = taker.delivery()
    assert (new.body, new.redelivered, new.tag) == (b"x", True, old.tag)
    assert old.is_stale
    taker.ack(old, multiple=True)
    on_thread(link, lambda _one: taker.consumer.end())
    wait_until(lambda: drain(rabbitmq_server.url, steps) == [b"x"])


def test_a_blocked_server_makes_publishers_wait_up_to_their_deadline(
    open_link: Callable[..., AnyLink],
    topology: Topology,
    steps: str,
    key: str,
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    blocked: queue.Queue[bool] = queue.Queue()
    other = open_link(on_blocked=blocked.put)
    other.connect(SECONDS)
    with alarm(rabbitmq_server):
        started = time.monotonic()
        with pytest.raises(BrokerBusyError, match="memory or disk"):
            other.publish(topology.steps_exchange, key, b"hasty", props(), deadline_seconds=1)
        assert 0.9 < time.monotonic() - started < SECONDS
        assert blocked.get(timeout=SECONDS) is True
        assert other.link.is_blocked
        patient = Burst(other, deadline_seconds=PATIENCE_SECONDS)
        patient.publish([(topology.steps_exchange, key, b"patient")] * 10)
        # The other connection is not blocked: consuming, acknowledging and declaring go on.
        other.declare(topology.workflow_resources("another", "1"), deadline_seconds=SECONDS)
        assert other.count(steps, deadline_seconds=SECONDS) is not None
        assert other.get(steps, deadline_seconds=SECONDS) is None
    assert blocked.get(timeout=SECONDS) is False
    assert patient.answers() == [None] * 10
    # The hasty one was on the wire before RabbitMQ said that it blocks: it may arrive, the patient ones do.
    assert drain(rabbitmq_server.url, steps).count(b"patient") == 10
    with outside(rabbitmq_server.url) as channel:
        channel.queue_delete(topology.steps_queue("another", "1"))
        channel.exchange_delete(topology.reports_exchange("another"))


def test_closing_does_not_wait_for_a_blocked_server(
    open_link: Callable[..., AnyLink],
    topology: Topology,
    steps: str,
    key: str,
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    other = open_link()
    other.connect(SECONDS)
    with alarm(rabbitmq_server):
        burst = Burst(other)
        burst.publish([(topology.steps_exchange, key, b"x")] * 10)
        wait_until(lambda: other.link.is_blocked)
        started = time.monotonic()
        other.close(0.5)
        assert time.monotonic() - started < 8
    assert {type(answer) for answer in burst.answers()} == {BrokerUnavailableError}


def test_a_delivery_held_too_long_is_lost_and_told(
    link: AnyLink, topology: Topology, steps: str, key: str, rabbitmq_server: PrivateRabbitMQ
) -> None:
    """RabbitMQ's consumer timeout: up to 4.2 it closes the channel, 4.3 cancels the consumer."""
    settings = {"consumer_timeout": "1000", "channel_tick_interval": "500"}
    for name, value in settings.items():
        rabbitmq_server.rabbitmqctl("eval", f"application:set_env(rabbit, {name}, {value}).")
    try:
        taker = Taker(link, steps)
        link.publish(topology.steps_exchange, key, b"x", props(), deadline_seconds=SECONDS)
        old = taker.delivery()
        loss = taker.loss()
        assert "timed out" in str(loss) or "cancelled" in str(loss)
        assert old.is_stale
        new = taker.delivery()
        assert new.redelivered
        taker.ack(new)
    finally:
        rabbitmq_server.rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        rabbitmq_server.rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 60000).")


def test_a_request_survives_a_cut(
    open_link: Callable[..., AnyLink],
    link: AnyLink,
    topology: Topology,
    steps: str,
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    asked = Taker(open_link(), topology.commands_queue, ack=True)
    answers: queue.Queue[Any] = queue.Queue()
    on_thread(
        link,
        lambda one: one.rpc(
            topology.commands_exchange,
            "",
            b"ask",
            props(codec.COMMAND),
            on_reply=answers.put,
            deadline_seconds=PATIENCE_SECONDS,
        ),
    )
    first = asked.delivery()
    cut(rabbitmq_server)
    second = asked.delivery()
    while second.properties.reply_to == first.properties.reply_to:
        second = asked.delivery()  # the acknowledgement of the first went down with the connection
    link.publish(
        "",
        str(second.properties.reply_to),
        b"answer",
        props(codec.REPLY, correlation_id=second.properties.correlation_id),
        deadline_seconds=SECONDS,
    )
    answer = answers.get(timeout=SECONDS)
    assert isinstance(answer, Delivery)
    assert answer.body == b"answer"


@pytest.mark.parametrize("kind", ["asyncio"])  # the stream is
def test_a_watcher_is_told_of_the_gap(
    rabbitmq_server: PrivateRabbitMQ, topology: Topology, steps: str
) -> None:
    """Events that passed meanwhile cannot be told any more, so that they may be missing has to be."""
    url = rabbitmq_server.url

    async def publish(number: int) -> None:
        async with AsyncLink(url, name="test") as link:
            await link.publish(
                topology.events_exchange,
                topology.events_key("a", "1", "e"),
                codec.encode({"n": number}),
                props(codec.EVENT),
                deadline_seconds=SECONDS,
            )

    async def watch() -> None:
        async with EventStream(url, topology) as stream, asyncio.timeout(PATIENCE_SECONDS):
            events = aiter(stream)
            await publish(1)
            first = await anext(events)
            assert first is not None
            assert first.data == {"n": 1}
            await asyncio.to_thread(cut, rabbitmq_server)
            assert await anext(events) is None
            await publish(2)
            second = await anext(events)
            assert second is not None
            assert second.data == {"n": 2}

    asyncio.run(watch())

"""Requests and their answers, and how a worker that may declare nothing is told to stop."""

from __future__ import annotations

import queue
from collections.abc import Callable

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO, Topology
from fuseline.amqp.wire import ControlKind, ControlNotice, Heartbeat, read
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, UnroutableError
from tests.integration.amqp.harness import SECONDS, AnyLink, Taker, on_thread, props, wait_until


class Answerer:
    """Answers each command with its body in capitals, or keeps silent."""

    def __init__(self, link: AnyLink, topology: Topology) -> None:
        self.link = link
        self.asked: queue.Queue[Delivery] = queue.Queue()
        self.is_silent = False
        on_thread(link, lambda one: one.consume(topology.commands_queue, 10, self._took))

    def _took(self, delivery: Delivery) -> None:
        if not self.is_silent:
            self.answer(delivery)
        self.link.link.ack(delivery)
        self.asked.put(delivery)  # last: the test may change its mind about the silence now

    def answer(self, delivery: Delivery) -> None:
        self.link.link.publish(
            DEFAULT_EXCHANGE,
            str(delivery.properties.reply_to),
            delivery.body.upper(),
            props(codec.REPLY, correlation_id=delivery.properties.correlation_id),
            on_done=lambda _error: None,
            deadline_seconds=SECONDS,
        )


@pytest.fixture
def answerer(open_link: Callable[..., AnyLink], topology: Topology, steps: str) -> Answerer:
    """Another process's side."""
    return Answerer(open_link(), topology)


def test_a_request_gets_its_own_answer(link: AnyLink, topology: Topology, answerer: Answerer) -> None:
    answers: queue.Queue[tuple[int, object]] = queue.Queue()

    def ask(_one: object) -> None:
        for number in range(50):
            link.link.rpc(
                topology.commands_exchange,
                "",
                f"request {number}".encode(),
                props(codec.COMMAND),
                on_reply=lambda reply, number=number: answers.put((number, reply)),  # type: ignore[misc]
                deadline_seconds=SECONDS,
            )

    on_thread(link, ask)
    for _ in range(50):
        number, reply = answers.get(timeout=SECONDS)
        assert isinstance(reply, Delivery)
        assert reply.body == f"REQUEST {number}".encode()


def test_nobody_answers(link: AnyLink, topology: Topology, answerer: Answerer) -> None:
    answerer.is_silent = True
    with pytest.raises(DeadlineExceededError, match="nobody answered"):
        link.rpc(topology.commands_exchange, "", b"x", props(codec.COMMAND), deadline_seconds=0.5)
    answerer.is_silent = False
    on_thread(answerer.link, lambda _one: answerer.answer(answerer.asked.get(timeout=SECONDS)))
    answer = link.rpc(topology.commands_exchange, "", b"y", props(codec.COMMAND), deadline_seconds=SECONDS)
    assert answer.body == b"Y", "the late answer of another request is none of its business"


def test_nobody_can_be_asked(
    open_link: Callable[..., AnyLink], link: AnyLink, topology: Topology, steps: str
) -> None:
    with pytest.raises(UnroutableError, match="nowhere"):
        link.rpc("", f"{topology.prefix}.nowhere", b"x", props(codec.COMMAND), deadline_seconds=SECONDS)
    away = open_link("amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(BrokerUnavailableError):
        away.rpc(topology.commands_exchange, "", b"x", props(codec.COMMAND), deadline_seconds=0.3)


def test_a_request_is_asked_again_when_its_reply_address_is_lost(
    link: AnyLink, topology: Topology, answerer: Answerer
) -> None:
    """P1: the answer to the old address can never come."""
    answerer.is_silent = True
    answers: queue.Queue[object] = queue.Queue()
    on_thread(
        link,
        lambda one: one.rpc(
            topology.commands_exchange,
            "",
            b"x",
            props(codec.COMMAND),
            on_reply=answers.put,
            deadline_seconds=SECONDS,
        ),
    )
    first = answerer.asked.get(timeout=SECONDS)
    answerer.is_silent = False
    # A mistake of another message costs the channel, and with it the reply address.
    with pytest.raises(UnroutableError):
        link.publish(f"{topology.prefix}.nowhere", "", b"x", props(), deadline_seconds=SECONDS)
    second = answerer.asked.get(timeout=SECONDS)
    assert second.properties.correlation_id == first.properties.correlation_id
    assert second.properties.reply_to != first.properties.reply_to
    answer = answers.get(timeout=SECONDS)
    assert isinstance(answer, Delivery)
    assert answer.body == b"X"


def test_a_coordinator_reaches_a_worker_by_the_address_of_its_beats(
    open_link: Callable[..., AnyLink], link: AnyLink, topology: Topology, steps: str
) -> None:
    """P5: a holder that lost its attempt is told, and every coordinator can tell it, more than once."""
    notices: queue.Queue[Delivery] = queue.Queue()
    worker = open_link(on_notice=notices.put)
    coordinators = [open_link(), link]
    takers = [
        Taker(one, topology.heartbeats_queue(f"c{index}"), ack=True) for index, one in enumerate(coordinators)
    ]
    for taker in takers:
        wait_until(lambda taker=taker: bool(taker.consumer.is_consuming))  # type: ignore[misc]
    beat = Heartbeat(worker_id="w", sent_at=1.0)
    worker.publish(
        topology.heartbeats_exchange,
        "",
        codec.encode(beat),
        props(codec.HEARTBEAT, reply_to=REPLY_TO),
        deadline_seconds=SECONDS,
        mandatory=False,
    )
    addresses = []
    for coordinator, taker in zip(coordinators, takers, strict=True):
        delivery = taker.delivery()
        assert read(Heartbeat, delivery.body) == beat
        addresses.append(str(delivery.properties.reply_to))
        for attempt in (1, 2):
            notice = ControlNotice(kind=ControlKind.STOP, instance_id="run", attempts=[("s", attempt)])
            coordinator.publish(
                DEFAULT_EXCHANGE,
                addresses[-1],
                codec.encode(notice),
                props(codec.CONTROL),
                deadline_seconds=SECONDS,
            )
            got = notices.get(timeout=SECONDS)
            assert got.properties.type == codec.CONTROL
            assert read(ControlNotice, got.body) == notice
    assert addresses[0] == addresses[1]
    worker.close()
    link.publish(DEFAULT_EXCHANGE, addresses[0], b"{}", props(codec.CONTROL), deadline_seconds=SECONDS)

"""P4 and P7: what was confirmed is there, and what could not be sent is told, with the reason, in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from fuseline.amqp.codec import Properties
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.resources import Queue
from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO, Topology
from fuseline.errors import (
    BrokerBusyError,
    BrokerUnavailableError,
    InvalidMessageError,
    UnroutableError,
)
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import (
    SECONDS,
    AnyLink,
    Burst,
    delete_all,
    drain,
    make_link,
    on_thread,
    outside,
    props,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_confirmed_message_is_in_its_queue(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    key = topology.steps_key(*WORKFLOW)
    link.publish(topology.steps_exchange, key, b"one", props(), deadline_seconds=SECONDS)
    assert drain(amqp_url, steps) == [b"one"]


def test_a_burst_does_not_wait_for_each_message_and_keeps_its_order(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    key = topology.steps_key(*WORKFLOW)
    burst = Burst(link)
    bodies = [str(number).encode() for number in range(3_000)]
    burst.publish([(topology.steps_exchange, key, body) for body in bodies])
    assert burst.answers() == [None] * 3_000
    assert drain(amqp_url, steps) == bodies


def test_no_more_than_the_window_is_in_flight(
    open_link: Callable[..., AnyLink], topology: Topology, steps: str, amqp_url: str
) -> None:
    """P6."""
    narrow = open_link(limits=LinkLimits(max_in_flight=3))
    burst = Burst(narrow)
    bodies = [str(number).encode() for number in range(100)]
    burst.publish([(topology.steps_exchange, topology.steps_key(*WORKFLOW), body) for body in bodies])
    assert burst.answers() == [None] * 100
    assert drain(amqp_url, steps) == bodies


def test_an_unroutable_message_is_told_with_exchange_and_key(
    link: AnyLink, topology: Topology, steps: str
) -> None:
    with pytest.raises(UnroutableError) as caught:
        link.publish(topology.steps_exchange, "no.such", b"x", props(), deadline_seconds=SECONDS)
    assert topology.steps_exchange in str(caught.value)
    assert "no.such" in str(caught.value)


def test_an_unroutable_message_that_is_not_mandatory_is_fine(
    link: AnyLink, topology: Topology, steps: str
) -> None:
    link.publish(topology.events_exchange, "a.b.c", b"x", props(), deadline_seconds=SECONDS, mandatory=False)


def test_in_a_burst_only_the_unroutable_messages_fail(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    key = topology.steps_key(*WORKFLOW)
    burst = Burst(link)
    burst.publish(
        [
            (topology.steps_exchange, "no.such" if number % 3 == 0 else key, str(number).encode())
            for number in range(300)
        ]
    )
    answers = burst.answers()
    assert [isinstance(answer, UnroutableError) for answer in answers] == [n % 3 == 0 for n in range(300)]
    assert [answer for answer in answers if not isinstance(answer, UnroutableError)] == [None] * 200
    assert len(drain(amqp_url, steps)) == 200


def test_a_full_queue_refuses(link: AnyLink, topology_prefix: str, amqp_url: str) -> None:
    name = f"{topology_prefix}.full"
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    link.declare([Queue(name, arguments)], deadline_seconds=SECONDS)
    try:
        refusals = []
        for _ in range(20):  # the limit of a quorum queue is not exact
            burst = Burst(link)
            burst.publish([("", name, b"x")])
            refusals += [answer for answer in burst.answers() if answer is not None]
        assert {type(refusal) for refusal in refusals} == {BrokerBusyError}
        assert name in str(refusals[0])
    finally:
        delete_all(amqp_url, [name], [])


def test_a_missing_exchange_costs_nobody_but_the_message_that_named_it(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    """RabbitMQ closes the whole channel over it, with all that is in flight."""
    key = topology.steps_key(*WORKFLOW)
    burst = Burst(link)
    messages = [(topology.steps_exchange, key, str(number).encode()) for number in range(60)]
    messages[20] = (f"{topology.prefix}.nowhere", "a", b"x")
    messages[40] = (f"{topology.prefix}.nowhere", "b", b"x")
    burst.publish(messages)
    answers = burst.answers()
    guilty = [number for number, answer in enumerate(answers) if answer is not None]
    assert guilty == [20, 40]
    assert isinstance(answers[20], UnroutableError)
    assert f"{topology.prefix}.nowhere" in str(answers[20])
    # At least once: those in flight when the channel closed may have arrived before.
    assert {int(body) for body in drain(amqp_url, steps)} == set(range(60)) - {20, 40}
    link.publish(topology.steps_exchange, key, b"after", props(), deadline_seconds=SECONDS)


def test_what_amqp_cannot_carry_is_refused_and_the_link_goes_on(
    link: AnyLink, topology: Topology, steps: str
) -> None:
    key = topology.steps_key(*WORKFLOW)
    with pytest.raises(InvalidMessageError, match="255"):
        link.publish(topology.steps_exchange, "k" * 256, b"x", props(), deadline_seconds=SECONDS)
    for wrong, told in (
        (props(headers={"x": object()}), "object"),
        (Properties(expiration="soon"), "soon"),
    ):
        with pytest.raises(InvalidMessageError, match=told):
            link.publish(topology.steps_exchange, key, b"x", wrong, deadline_seconds=SECONDS)
    link.publish(topology.steps_exchange, key, b"x", props(), deadline_seconds=SECONDS)


def test_without_a_server_the_deadline_ends_the_wait_with_the_reason(
    open_link: Callable[..., AnyLink],
) -> None:
    port = free_port()
    alone = open_link(f"amqp://guest:guest@127.0.0.1:{port}/")
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}.*[Rr]efused"):
        alone.publish("x", "y", b"z", props(), deadline_seconds=0.5)
    assert 0.4 < time.monotonic() - started < 5


def test_a_wrong_password_is_named_as_the_reason(open_link: Callable[..., AnyLink], amqp_url: str) -> None:
    wrong = open_link(amqp_url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(BrokerUnavailableError, match=r"password|ACCESS_REFUSED") as caught:
        wrong.publish("x", "y", b"z", props(), deadline_seconds=3)
    assert "wrong" not in str(caught.value)


def test_the_first_server_that_answers_is_taken(open_link: Callable[..., AnyLink], amqp_url: str) -> None:
    link = open_link([f"amqp://guest:guest@127.0.0.1:{free_port()}/", amqp_url])
    assert link.connect(SECONDS).product == "RabbitMQ"


def test_too_many_waiting_messages_are_refused_at_once(open_link: Callable[..., AnyLink]) -> None:
    """P6: memory is bounded while the server is away."""
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    by_count = Burst(open_link(url, limits=LinkLimits(max_pending=10)), deadline_seconds=0.5)
    by_count.publish([("x", "y", b"z")] * 12)
    answers = by_count.answers()
    assert [type(answer) for answer in answers] == [BrokerUnavailableError] * 10 + [BrokerBusyError] * 2

    by_bytes = Burst(open_link(url, limits=LinkLimits(max_pending_bytes=50_000)), deadline_seconds=0.5)
    by_bytes.publish([("x", "y", b"z" * 100_000), ("x", "y", b"z"), ("x", "y", b"z")])
    answers = by_bytes.answers()
    assert [type(answer) for answer in answers] == [BrokerUnavailableError] + [BrokerBusyError] * 2


def test_closing_waits_for_what_is_under_way(
    open_link: Callable[..., AnyLink], topology: Topology, steps: str, amqp_url: str
) -> None:
    other = open_link()
    burst = Burst(other)
    burst.publish([(topology.steps_exchange, topology.steps_key(*WORKFLOW), b"x")] * 500)
    other.close(SECONDS)
    assert burst.answers() == [None] * 500
    assert len(drain(amqp_url, steps)) == 500


def test_a_message_past_its_expiration_is_dead_lettered(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    key = topology.steps_key(*WORKFLOW)
    link.publish(
        topology.steps_exchange, key, b"late", props(expiration_seconds=0.01), deadline_seconds=SECONDS
    )
    deadline = time.monotonic() + SECONDS
    while not (dead := drain(amqp_url, topology.dead_queue)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert dead == [b"late"]
    with outside(amqp_url) as channel:
        assert channel.queue_declare(steps, passive=True).method.message_count == 0


def test_closing_while_it_connects(kind: str, amqp_url: str) -> None:
    """Left alone, pika fails over its own assertion when it is told to stop connecting."""
    for pause_seconds in (0, 0.001, 0.002, 0.004, 0.008):
        link = make_link(kind, amqp_url)
        on_thread(link, lambda _one: None)
        time.sleep(pause_seconds)
        started = time.monotonic()
        link.close(0)
        assert time.monotonic() - started < 1.5, "it did not wait until it would give up"


def test_an_address_of_nobody_holds_up_no_other_message(
    link: AnyLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    """P1: RabbitMQ 3.10 ends the connection over it (541), and would again each time that it is sent."""
    nowhere = (DEFAULT_EXCHANGE, f"{REPLY_TO}.x.y", b"answer")
    for _ in range(2):
        burst = Burst(link)
        burst.publish([nowhere, (topology.steps_exchange, topology.steps_key(*WORKFLOW), b"step")])
        lost, sent = burst.answers()
        assert sent is None
        assert lost is None or isinstance(lost, BrokerUnavailableError)
    assert set(drain(amqp_url, steps)) == {b"step"}

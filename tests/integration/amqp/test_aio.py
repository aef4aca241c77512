"""What is particular to asyncio code: cancelled waits, and mistakes that a loop outlives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from fuseline.amqp.aio import AsyncLink
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, FuselineError
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import SECONDS, props


@pytest.fixture
def kind() -> str:
    return "asyncio"


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a loop of that make."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(call: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(call)

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_callbacks_that_raise_are_told_to_the_loop_and_cost_nobody_else(
    run: Run, amqp_url: str, topology: Topology, steps: str
) -> None:
    """Left to pika they would cost the connection, each time again."""

    async def test() -> None:
        told: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: told.append(context["exception"])
        )
        answers: list[FuselineError | None] = []
        bodies: list[bytes] = []
        all_answers, all_messages = asyncio.Event(), asyncio.Event()

        def answered(error: FuselineError | None) -> None:
            answers.append(error)
            if len(answers) == 10:
                all_answers.set()
            if len(answers) == 3:
                raise ZeroDivisionError("an answer")

        def took(delivery: Delivery) -> None:
            bodies.append(delivery.body)
            link.ack(delivery)
            if len(bodies) == 10:
                all_messages.set()
            if len(bodies) == 3:
                raise ZeroDivisionError("a message")

        async with AsyncLink(amqp_url, name="test") as link:
            for number in range(10):
                link.link.publish(
                    topology.steps_exchange,
                    topology.steps_key(*WORKFLOW),
                    str(number).encode(),
                    props(),
                    on_done=answered,
                    deadline_seconds=SECONDS,
                )
            async with asyncio.timeout(SECONDS):
                await all_answers.wait()
                link.consume(steps, 10, took)
                await all_messages.wait()
            assert link.link.is_up
        assert answers == [None] * 10
        assert bodies == [str(number).encode() for number in range(10)]
        assert [str(error) for error in told] == ["an answer", "a message"]

    run(test())


def test_a_cancelled_wait_leaves_the_link_as_it_was(
    run: Run, amqp_url: str, topology: Topology, steps: str
) -> None:
    async def test() -> None:
        async with AsyncLink(amqp_url, name="test") as link:
            await link.connect(SECONDS)
            ask = asyncio.create_task(
                link.rpc(topology.commands_exchange, "", b"x", props(), deadline_seconds=SECONDS)
            )
            await asyncio.sleep(0)
            ask.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ask
            assert await link.get(steps, deadline_seconds=SECONDS) is None

    run(test())


def test_a_link_that_never_came_up_says_why_and_closes(run: Run) -> None:
    async def test() -> None:
        ups: list[str] = []
        downs: list[FuselineError] = []
        link = AsyncLink(
            "amqp://guest:guest@127.0.0.1:1/",
            name="test",
            on_up=lambda: ups.append("up"),
            on_down=downs.append,
        )
        with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
            await link.connect(0.3)
        await link.close()
        await link.close()
        assert not ups
        assert downs

    run(test())


def test_after_close_every_call_says_so(run: Run, amqp_url: str) -> None:
    async def test() -> None:
        link = AsyncLink(amqp_url, name="test")
        await link.connect(SECONDS)
        await link.close()
        message = ("x", "y", b"z", props())
        for call in (
            link.publish(*message, deadline_seconds=SECONDS),
            link.rpc(*message, deadline_seconds=SECONDS),
            link.get("q", deadline_seconds=SECONDS),
            link.declare([], deadline_seconds=SECONDS),
            link.verify([], deadline_seconds=SECONDS),
            link.count("q", deadline_seconds=SECONDS),
        ):
            with pytest.raises(BrokerUnavailableError, match="closed"):
                await call
        with pytest.raises(BrokerUnavailableError, match="closed"):
            link.consume("q", 1, print)

    run(test())


def test_closing_ends_every_call_that_waits(run: Run) -> None:
    """P7: a hang is no answer."""

    async def test() -> None:
        link = AsyncLink("amqp://guest:guest@127.0.0.1:1/", name="test")
        message = ("x", "y", b"z", props())
        async with asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(_outcome(call))
                for call in (
                    link.publish(*message, deadline_seconds=60),
                    link.rpc(*message, deadline_seconds=60),
                    link.get("q", deadline_seconds=60),
                    link.get("q", deadline_seconds=60),
                    link.count("q", deadline_seconds=60),
                )
            ]
            await asyncio.sleep(0)
            async with asyncio.timeout(SECONDS):
                await link.close(0.1)
        assert {type(task.result()) for task in waiting} == {BrokerUnavailableError}
        assert {str(task.result()) for task in waiting} == {"the link to RabbitMQ is closed"}

    run(test())


def test_a_silent_server_ends_no_wait_but_the_deadline_does(run: Run) -> None:
    """Something listens, takes the connection and says nothing."""

    async def test() -> None:
        clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        server = await asyncio.start_server(lambda *client: clients.append(client), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = AsyncLink(f"amqp://guest:guest@127.0.0.1:{port}/", name="test")
        for call in (
            link.publish("x", "y", b"z", props(), deadline_seconds=0.2),
            link.count("q", deadline_seconds=0.2),
            link.get("q", deadline_seconds=0.2),
        ):
            outcome = await _outcome(call)
            assert isinstance(outcome, BrokerUnavailableError | DeadlineExceededError)
            assert str(port) in str(outcome)
        async with asyncio.timeout(SECONDS):
            await link.close()
            server.close()
            for reader, writer in clients:
                writer.write_eof()
                await reader.read()  # to the end: the link has let go
                writer.close()

    run(test())


async def _outcome(call: Coroutine[Any, Any, object]) -> object:
    try:
        return await call
    except FuselineError as error:
        return error


def test_what_is_published_leaves_at_once_when_it_is_told_to(
    run: Run, amqp_url: str, topology: Topology, steps: str
) -> None:
    """A lone step waits for each turn of its worker's loop. Where there is no connection there is nothing to tell."""

    async def test() -> None:
        async with AsyncLink(amqp_url, name="flushing") as link:
            link.link.flush()
            await link.connect(SECONDS)
            answered = asyncio.Event()
            connection: Any = link.link._publishing.pika
            link.link.publish(
                topology.steps_exchange,
                topology.steps_key(*WORKFLOW),
                b"{}",
                props(),
                on_done=lambda _error: answered.set(),
                deadline_seconds=SECONDS,
            )
            assert connection._out
            link.link.flush()
            assert connection._out == []
            await asyncio.wait_for(answered.wait(), SECONDS)

    run(test())

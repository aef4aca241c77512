"""Watching events, from the subscription on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.aio import AsyncLink
from fuseline.amqp.events import Event, EventStream
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError, UnroutableError
from tests.integration.amqp.harness import SECONDS, props


@pytest.fixture
def kind() -> str:
    """The stream is asyncio's."""
    return "asyncio"


async def publish(url: str, topology: Topology, *events: tuple[str, str, str, bytes]) -> None:
    async with AsyncLink(url, name="test") as link:
        for workflow_id, instance_id, name, body in events:
            await link.publish(
                topology.events_exchange,
                topology.events_key(workflow_id, instance_id, name),
                body,
                props(codec.EVENT),
                deadline_seconds=SECONDS,
                mandatory=False,
            )


async def take(events: AsyncIterator[Event | None], count: int) -> list[Event | None]:
    async with asyncio.timeout(SECONDS):
        return [await anext(events) for _ in range(count)]


def test_only_what_was_asked_for_arrives_in_order(amqp_url: str, topology: Topology, steps: str) -> None:
    async def watch() -> None:
        async with EventStream(amqp_url, topology, workflow_id="a.b", instance_id="1") as stream:
            await publish(
                amqp_url,
                topology,
                ("a.b", "1", "step_started", b'{"n":1}'),
                ("a.b", "2", "step_started", b'{"n":2}'),
                ("a", "1", "step_started", b'{"n":3}'),
                ("a.b", "1", "step_failed", b"not json"),
                ("a.b", "1", "step_finished", b'{"n":4}'),
            )
            got = await take(aiter(stream), 2)
            assert [event and event.data for event in got] == [{"n": 1}, {"n": 4}]
            assert got[0] is not None
            assert got[0].key == "a%2Eb.1.step_started"

    asyncio.run(watch())


def test_a_probe_is_no_event(amqp_url: str, topology: Topology, steps: str) -> None:
    async def watch() -> None:
        async with EventStream(amqp_url, topology) as stream, AsyncLink(amqp_url, name="test") as link:
            for kind, body in ((codec.PROBE, b"{}"), (codec.EVENT, b'{"n":1}')):
                await link.publish(
                    topology.events_exchange, "a.1.e", body, props(kind), deadline_seconds=SECONDS
                )
            assert [event and event.data for event in await take(aiter(stream), 1)] == [{"n": 1}]

    asyncio.run(watch())


@pytest.mark.parametrize("names", ["workflow_id", "instance_id", "event"])
def test_a_watcher_is_noticed_by_whoever_asks_without_naming_a_run(
    amqp_url: str, topology: Topology, steps: str, names: str
) -> None:
    """However he names what he watches; and only where he watches such events."""
    named: dict[str, Any] = {"workflow_id": "a.b", "instance_id": "1", "event": "step_failed"}

    async def is_noticed(workflow_id: str, event: str) -> bool:
        async with AsyncLink(amqp_url, name="test") as link:
            key = topology.any_run_key(workflow_id, event)
            try:
                await link.publish(
                    topology.events_exchange, key, b"{}", props(codec.PROBE), deadline_seconds=SECONDS
                )
            except UnroutableError:
                return False
        return True

    async def watch() -> None:
        assert not await is_noticed("a.b", "step_failed")
        async with EventStream(amqp_url, topology, **{names: named[names]}):
            assert await is_noticed("a.b", "step_failed")
            assert await is_noticed("a", "step_failed") == (names != "workflow_id")
            assert await is_noticed("a.b", "step_started") == (names != "event")

    asyncio.run(watch())


def test_a_slow_watcher_bounds_what_is_on_its_way(amqp_url: str, topology: Topology, steps: str) -> None:
    async def watch() -> None:
        async with EventStream(amqp_url, topology) as stream:
            await publish(amqp_url, topology, *[("a", "1", "e", b'{"n":%d}' % n) for n in range(300)])
            got = await take(aiter(stream), 300)
            assert [event and event.data["n"] for event in got] == list(range(300))

    asyncio.run(watch())


def test_without_a_server_entering_fails_in_time(topology_prefix: str) -> None:
    async def watch() -> None:
        stream = EventStream(
            "amqp://guest:guest@127.0.0.1:1/", Topology(topology_prefix), deadline_seconds=0.3
        )
        with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
            await stream.__aenter__()

    asyncio.run(watch())

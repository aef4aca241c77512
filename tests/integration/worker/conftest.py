from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from fuseline.amqp.topology import Topology
from tests.integration.worker.harness import PlayedCoordinator, Relay, ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[PlayedCoordinator]:
    """Played by the test, and serving."""
    played = PlayedCoordinator(amqp_url, topology)
    played.declare()
    played.serve()
    yield played
    played.close()


@pytest.fixture
def bodies() -> CallableCatalog:
    """What the steps do."""
    return CallableCatalog()


@pytest.fixture
def make_worker(
    amqp_url: str, topology: Topology, bodies: CallableCatalog
) -> Iterator[Callable[..., ThreadedWorker]]:
    """Makes workers, not started yet, and sees to it that they end."""
    workers: list[ThreadedWorker] = []

    def make(url: str = amqp_url, catalog: CallableCatalog = bodies, **options: Any) -> ThreadedWorker:
        workers.append(ThreadedWorker(url, topology, catalog, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture
def relay(amqp_url: str) -> Iterator[Relay]:
    """A way to RabbitMQ that can be cut."""
    parameters = pika.URLParameters(amqp_url)
    one = Relay(parameters.host, parameters.port)
    yield one
    one.close()


@pytest.fixture
def relay_url(amqp_url: str, relay: Relay) -> str:
    """RabbitMQ through the relay."""
    parameters = pika.URLParameters(amqp_url)
    return amqp_url.replace(f"{parameters.host}:{parameters.port}", f"127.0.0.1:{relay.port}")

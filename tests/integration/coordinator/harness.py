"""A real coordinator for a test: on a thread, over a real RabbitMQ, and gone afterwards with all that it declared."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fuseline.amqp.topology import Topology
from fuseline.coordinator import Coordinator
from fuseline.engine import Rules
from fuseline.storage import RuntimeStorage
from tests.integration.amqp.harness import SECONDS, delete_topology


@contextmanager
def coordinating(
    url: str, topology: Topology, storage: RuntimeStorage, rules: Rules | None = None
) -> Iterator[Coordinator]:
    """A coordinator that is ready; it must have ended in order when the context is closed."""
    try:
        with running(url, topology, storage, rules) as coordinator:
            yield coordinator
    finally:
        delete_topology(url, topology, [stored.schema.key for stored in storage.list_schemas()])


@contextmanager
def running(
    url: str, topology: Topology, storage: RuntimeStorage, rules: Rules | None = None
) -> Iterator[Coordinator]:
    """The same; what it declared stays."""
    ready = threading.Event()
    coordinator = Coordinator(storage, url, topology=topology, rules=rules, on_ready=ready.set)
    thread = threading.Thread(target=coordinator.run)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield coordinator
    finally:
        coordinator.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()

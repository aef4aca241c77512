from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.engine import Rules
from fuseline.storage import MemoryRuntimeStorage, RuntimeStorage
from tests.integration.amqp.harness import SECONDS
from tests.integration.coordinator.harness import coordinating

Serve = Callable[[Rules], AmqpBroker]


@contextmanager
def served(
    url: str, topology: Topology, rules: Rules, storage: RuntimeStorage | None = None
) -> Iterator[AmqpBroker]:
    """A coordinator with these rules on a thread, and a broker that asks it."""
    with (
        coordinating(url, topology, storage or MemoryRuntimeStorage(), rules),
        AmqpBroker(url, topology=topology, call_seconds=SECONDS) as broker,
    ):
        yield broker


@pytest.fixture
def serve(amqp_url: str, topology: Topology) -> Iterator[Serve]:
    """Starts a coordinator with the rules that the test wants, and gives a broker over it."""
    with ExitStack() as stack:
        yield lambda rules: stack.enter_context(served(amqp_url, topology, rules))

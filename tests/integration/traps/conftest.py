"""The known traps: a real worker, a real coordinator and a real server each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from tests.integration.cli.conftest import fuseline, on_rabbitmq
from tests.integration.traps.parties import Party

__all__ = ["fuseline", "on_rabbitmq"]  # the command line, as a process

Gather = Callable[..., Party]


@pytest.fixture
def gather(topology: Topology) -> Iterator[Gather]:
    """Brings together a coordinator, a broker and workers on one server; see `Party`."""
    with ExitStack() as stack:
        yield lambda url, named=topology, **rules: stack.enter_context(Party(url, named, **rules))


@pytest.fixture
def party(gather: Gather, amqp_url: str) -> Party:
    """A party on the shared server."""
    return gather(amqp_url)


@pytest.fixture
def broker(party: Party) -> AmqpBroker:
    """What the party's clients use."""
    return party.broker

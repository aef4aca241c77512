from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuseline.amqp.topology import Topology
from tests.integration.amqp.harness import AnyLink, delete_topology, make_link

WORKFLOW = ("flow.one", "1.0")


@pytest.fixture
def topology(topology_prefix: str, amqp_url: str) -> Iterator[Topology]:
    """Names of this test's own; whatever was declared under them is removed."""
    topology = Topology(topology_prefix)
    yield topology
    delete_topology(amqp_url, topology, [WORKFLOW])


@pytest.fixture(params=["select", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every promise holds on both loops."""
    return str(request.param)


@pytest.fixture
def open_link(amqp_url: str, kind: str) -> Iterator[Callable[..., AnyLink]]:
    """Makes links, to the shared server unless told otherwise, and closes them."""
    links: list[AnyLink] = []

    def make(url: str | list[str] = amqp_url, **options: Any) -> AnyLink:
        links.append(make_link(kind, url, **options))
        return links[-1]

    yield make
    for link in links:
        link.close(0)


@pytest.fixture
def link(open_link: Callable[..., AnyLink]) -> AnyLink:
    """One link to the shared server."""
    return open_link()


@pytest.fixture
def steps(link: AnyLink, topology: Topology) -> str:
    """The step queue of a declared workflow version."""
    link.declare(topology.base_resources() + topology.workflow_resources(*WORKFLOW), deadline_seconds=20)
    return topology.steps_queue(*WORKFLOW)

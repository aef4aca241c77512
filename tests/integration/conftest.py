from __future__ import annotations

import pytest

from fuseline.amqp.topology import Topology


@pytest.fixture
def topology(topology_prefix: str) -> Topology:
    """Names of this test's own; who declares under them removes it."""
    return Topology(topology_prefix)

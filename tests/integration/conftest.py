from __future__ import annotations

import pytest

from fuseline.amqp.topology import Topology
from tests.integration.traps.defects import plant_named


@pytest.fixture
def topology(topology_prefix: str) -> Topology:
    """Names of this test's own; who declares under them removes it."""
    return Topology(topology_prefix)


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out the defence that the environment names, if it names one (see `traps/prove.py`)."""
    plant_named(monkeypatch)

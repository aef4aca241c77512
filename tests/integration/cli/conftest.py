from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.harness import FLOWS, Fuseline, remove_topology

VERSIONS = [("ingest", "1"), ("failing", "1"), ("waiting", "1"), ("stdlib-report", "1")]


@pytest.fixture
def fuseline(tmp_path: Path) -> Iterator[Fuseline]:
    """The program in a folder of its own, with `flows.py` in it, and no server to talk to."""
    (tmp_path / "flows.py").write_text(FLOWS)
    with Fuseline(tmp_path, {"FUSELINE_CALL_SECONDS": "10"}) as program:
        yield program


@pytest.fixture
def on_rabbitmq(fuseline: Fuseline, amqp_url: str, topology_prefix: str) -> Iterator[Fuseline]:
    """The program with a RabbitMQ, on which nothing is declared yet."""
    fuseline.environment |= {"FUSELINE_AMQP_URL": amqp_url, "FUSELINE_PREFIX": topology_prefix}
    yield fuseline
    for process in fuseline.started:
        process.kill()
        process.wait()
    remove_topology(amqp_url, topology_prefix, VERSIONS)


@pytest.fixture
def installation(on_rabbitmq: Fuseline) -> Fuseline:
    """With a coordinator on a SQLite file, and a worker, both processes of their own."""
    on_rabbitmq.background("coordinator")
    on_rabbitmq.wait_for(lambda: on_rabbitmq("workflows", "--json").returncode == 0)
    on_rabbitmq.background("worker", "flows:several", "flows:waiting")
    on_rabbitmq.wait_for(lambda: len(on_rabbitmq.json("workers")) == 1)
    return on_rabbitmq

"""The worker on RabbitMQ asks a step's own policies about a timeout, apart from its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fuseline.amqp.topology import Topology
from fuseline.model import Cause, FailureDecision
from fuseline.worker import asking
from fuseline.worker.workflows import WorkflowCatalog
from tests.integration.worker.harness import PlayedCoordinator, ThreadedWorker
from tests.unit.worker import late
from tests.unit.worker.bodies import sealer

SCHEMA = late.flow.to_schema()


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[PlayedCoordinator]:
    played = PlayedCoordinator(amqp_url, topology, [SCHEMA])
    played.declare()
    played.serve()
    yield played
    played.close()


def test_a_policy_decides_about_a_timeout_or_is_not_waited_for(
    coordinator: PlayedCoordinator,
    make_worker: Callable[..., ThreadedWorker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late.let_go.clear()
    worker = make_worker(catalog=WorkflowCatalog([late.flow], sealer()), concurrency=3)
    worker.start()
    for name in ("plain", "waiting"):
        coordinator.assign("i", name, schema=SCHEMA, timeout=0.1)
    for _ in range(2):
        report = coordinator.report()
        assert report.error is not None
        assert report.error.cause is Cause.TIMEOUT
        assert report.decision is not None
        assert report.decision.decision is FailureDecision.SKIP
    monkeypatch.setattr(asking, "OPINION_SECONDS", 0.1)
    coordinator.assign("i", "stuck", schema=SCHEMA, timeout=0.1)
    report = coordinator.report()
    assert report.error is not None
    assert (report.error.cause, report.decision) == (Cause.TIMEOUT, None)
    late.let_go.set()
    worker.stop()
    worker.join()
    assert coordinator.ready(SCHEMA) == 0

"""P1, P3: a step that is longer than RabbitMQ lets anybody hold a delivery (half an hour, here a second)."""

from __future__ import annotations

import threading

import pytest

from fuseline.model import RunStatus, StepAssignment
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.traps.conftest import Gather
from tests.integration.traps.parties import one_step

TIMEOUT_SECONDS = 2.0
SCHEMA = one_step()


@pytest.mark.slow
@pytest.mark.fault
def test_a_step_longer_than_the_consumer_timeout_is_executed_once(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """It is claimed and acknowledged long before; RabbitMQ has nothing to complain of, and nobody else gets it."""
    settings = {"consumer_timeout": int(TIMEOUT_SECONDS * 1000), "channel_tick_interval": 500}
    usual = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}
    for name, value in settings.items():
        rabbitmq_server.rabbitmqctl("eval", f"application:set_env(rabbit, {name}, {value}).")
    try:
        party = gather(rabbitmq_server.url)
        over = threading.Event()
        executed = []

        def long(assignment: StepAssignment) -> str:
            executed.append(assignment)
            over.wait(3 * TIMEOUT_SECONDS)
            return "done"

        for _ in range(2):
            _, bodies = party.worker(SCHEMA, claim_after_seconds=0.2, concurrency=1)
            bodies.sync["a"] = long
        run = party.wait(party.broker.dispatch_workflow(SCHEMA))
        assert run.state is RunStatus.SUCCEEDED
        assert len(executed) == 1
        told = [one.message for one in caplog.records if one.name.startswith("fuseline.worker")]
        assert not [text for text in told if "timed out" in text or "cancelled" in text]
    finally:
        for name, value in usual.items():
            rabbitmq_server.rabbitmqctl("eval", f"application:set_env(rabbit, {name}, {value}).")

"""P1: a step that takes down whoever executes it is quarantined, and does not take down one worker after the other.

Broker contract, by lease alone: `test_a_step_that_takes_down_worker_after_worker_is_poison`.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from fuseline.amqp.topology import Topology
from fuseline.model import Cause, RunStatus, RunView, Status
from fuseline.settings import Settings
from fuseline.worker import Worker
from tests.integration.amqp.harness import wait_until
from tests.integration.traps import flows
from tests.integration.traps.conftest import Gather
from tests.integration.traps.supervised import WorkerProcess

MAX_LOSSES = 2
POISONING = {"lease_seconds": 1.5, "max_losses": MAX_LOSSES}

pytestmark = pytest.mark.slow


def victims(path: Path) -> list[int]:
    """The processes in which the step began."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def assert_is_poison(run: RunView, step: str) -> None:
    assert run.state is RunStatus.FAILED
    error = run.steps[step].error
    assert error is not None
    assert error.cause is Cause.POISON


def test_a_step_that_kills_its_worker_before_it_is_claimed_is_quarantined(
    gather: Gather, amqp_url: str, topology_prefix: str, tmp_path: Path
) -> None:
    """The first to take an attempt dies unknown; who gets it after that claims it first, so that its loss is counted.

    RabbitMQ is no help: quorum queues give up after 20 deliveries, and classic ones, which these are, never.
    """
    topology = Topology(topology_prefix, "classic")
    party = gather(amqp_url, topology, **POISONING)
    path = tmp_path / "victims"
    with WorkerProcess(amqp_url, topology, "killing"):
        run = party.wait(party.broker.dispatch_workflow(flows.killing.to_schema(), {"path": str(path)}))
    assert_is_poison(run, "kill_worker")
    assert 2 <= len(victims(path)) <= 2 * MAX_LOSSES


def test_a_step_whose_worker_is_killed_for_its_memory_is_quarantined(
    gather: Gather, amqp_url: str, topology: Topology, tmp_path: Path
) -> None:
    """SIGKILL from outside, as the kernel sends it, when the step runs and its lease is known."""
    party = gather(amqp_url, topology, **POISONING)
    path = tmp_path / "victims"
    with WorkerProcess(amqp_url, topology, "filling", claim_after=0.05):
        instance_id = party.broker.dispatch_workflow(flows.filling.to_schema(), {"path": str(path)})
        killed: set[int] = set()

        def kill_next() -> bool:
            run = party.broker.get_run(instance_id)
            if run.steps["fill_memory"].state is Status.RUNNING:
                for pid in set(victims(path)) - killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            return run.state.is_terminal

        wait_until(kill_next, 60.0)
    assert_is_poison(party.wait(instance_id), "fill_memory")
    assert 1 <= len(killed) <= MAX_LOSSES


@pytest.mark.parametrize("by", ["itself", "the kernel"])
def test_a_step_that_kills_its_own_process_is_quarantined_and_the_worker_lives(
    gather: Gather, amqp_url: str, topology: Topology, tmp_path: Path, by: str
) -> None:
    """With `executor="process"` only the child dies, and its worker reports it: thirty retries do not mean thirty dead."""
    party = gather(amqp_url, topology, max_losses=MAX_LOSSES)
    path = tmp_path / "victims"
    name = "killing_process" if by == "itself" else "filling_process"
    workflow = getattr(flows, name)
    worker = Worker(
        amqp_url,
        f"tests.integration.traps.flows:{name}",
        executor="process",
        concurrency=1,
        topology=topology,
        settings=Settings(),
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        instance_id = party.broker.dispatch_workflow(workflow.to_schema(), {"path": str(path)})
        if by == "the kernel":
            for count in range(1, MAX_LOSSES + 1):
                wait_until(lambda count=count: len(victims(path)) >= count, 60.0)  # type: ignore[misc]
                os.kill(victims(path)[-1], signal.SIGKILL)
        run = party.wait(instance_id)
        assert_is_poison(run, next(iter(run.steps)))
        assert len(victims(path)) == MAX_LOSSES
        assert thread.is_alive()
    finally:
        worker.stop()
        thread.join(60)

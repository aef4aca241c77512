"""P3, P4: a rolling restart under load. SIGTERM again and again, and no step is lost or executed twice."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from fuseline.amqp.topology import Topology
from fuseline.model import RunStatus
from tests.integration.amqp.harness import wait_until
from tests.integration.traps import flows
from tests.integration.traps.conftest import Gather
from tests.integration.traps.parties import PATIENCE_SECONDS
from tests.integration.traps.supervised import WorkerProcess

RESTARTS = 3
BATCH = 20


@pytest.mark.slow
def test_a_warm_shutdown_under_load_loses_and_repeats_nothing(
    gather: Gather, amqp_url: str, topology: Topology, tmp_path: Path
) -> None:
    """Each process gets one SIGTERM, in the middle of its work: the second one would end it at once, as it should."""
    party = gather(amqp_url, topology)
    path = tmp_path / "done"
    path.touch()
    schema, inputs = flows.noting.to_schema(), {"path": str(path)}
    runs: list[str] = []
    told: set[int] = set()
    with (
        WorkerProcess(amqp_url, topology, "noting", concurrency=4) as one,
        WorkerProcess(amqp_url, topology, "noting", concurrency=4) as other,
    ):

        def tell(worker: WorkerProcess) -> bool:
            runs.extend(party.broker.dispatch_workflow(schema, inputs) for _ in range(BATCH))
            pid = worker.pid
            if pid in told or str(pid) not in path.read_text().split():
                return False  # it has not begun yet, or is on its way out
            told.add(pid)
            worker.send(signal.SIGTERM)
            return True

        for number in range(RESTARTS):
            worker = (one, other)[number % 2]
            wait_until(lambda worker=worker: tell(worker), PATIENCE_SECONDS)  # type: ignore[misc]
        ended = [party.wait(run) for run in runs]
        wait_until(lambda: len(one.exit_codes + other.exit_codes) == RESTARTS, PATIENCE_SECONDS)
        assert set(one.exit_codes + other.exit_codes) == {0}
    assert {run.state for run in ended} == {RunStatus.SUCCEEDED}
    assert {step.attempt for run in ended for step in run.steps.values()} == {1}
    executed = Counter(line.split()[0] for line in path.read_text().splitlines())
    assert executed == Counter(f"{run}/{step}/1" for run in runs for step in ("note_first", "note_second"))

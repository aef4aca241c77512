"""A worker process and its signals: what a service manager does to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuseline.amqp.topology import Topology
from fuseline.model import Status
from tests.integration.amqp.harness import wait_until
from tests.integration.worker.harness import SECONDS, PlayedCoordinator
from tests.unit.worker.flows import flow

PROGRAM = """
import sys
from fuseline.amqp.topology import Topology
from fuseline.settings import Settings
from fuseline.worker import Worker

url, prefix, executor, drain, claim = sys.argv[1:]
worker = Worker(
    url,
    "tests.unit.worker.flows:flow",
    executor=executor,
    concurrency=1,
    drain_seconds=float(drain),
    topology=Topology(prefix),
    settings=Settings(claim_after_seconds=float(claim), heartbeat_seconds=0.2),
)
print(worker.run(), flush=True)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[PlayedCoordinator]:
    """Played by the test, for the workflow of the program."""
    played = PlayedCoordinator(amqp_url, topology, (flow.to_schema(),))
    played.declare()
    played.serve()
    yield played
    played.close()


@pytest.fixture
def start(amqp_url: str, topology: Topology) -> Iterator[Start]:
    """Starts worker processes, and kills those that are left."""
    processes: list[subprocess.Popen[str]] = []

    def run(executor: str = "thread", drain: float = 0.0, claim: float = 60.0) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, amqp_url, topology.prefix, executor, str(drain), str(claim)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[3],
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def linger(coordinator: PlayedCoordinator, path: Path) -> int:
    """Queue a step that lasts, wait until it runs; the pid that it runs in."""
    coordinator.assign("i1", "linger", schema=flow.to_schema(), inputs={"path": str(path)})
    wait_until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_signal_lets_the_worker_finish_report_and_exit_0(
    coordinator: PlayedCoordinator, start: Start, tmp_path: Path, executor: str, number: signal.Signals
) -> None:
    process = start(executor, drain=SECONDS)
    pid = linger(coordinator, tmp_path / "x")
    os.kill(process.pid, number)
    if executor == "process":
        os.kill(pid, number)  # the service manager signals the whole group
    coordinator.assign("i2", "greet", schema=flow.to_schema())
    (tmp_path / "x.go").touch()
    report = coordinator.report()
    assert (report.state, report.result) == (Status.SUCCEEDED, "lingered")
    assert process.wait(SECONDS) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "1\n"
    wait_until(lambda: coordinator.ready(flow.to_schema()) == 1)  # i2 is for others


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_does_not_end_in_time_is_handed_back_and_exits_0(
    coordinator: PlayedCoordinator, start: Start, tmp_path: Path, executor: str
) -> None:
    """P1: the next worker gets it; a body on a thread cannot hold the process up, one in a process is killed."""
    process = start(executor, drain=0.1)
    pid = linger(coordinator, tmp_path / "x")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    wait_until(lambda: coordinator.ready(flow.to_schema()) == 1)
    assert coordinator.incoming.empty()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_second_signal_ends_it_at_once_and_a_lease_is_released(
    coordinator: PlayedCoordinator, start: Start, tmp_path: Path
) -> None:
    process = start(drain=3600.0, claim=0.1)
    linger(coordinator, tmp_path / "x")
    assert not coordinator.claim().released
    coordinator.beat(lambda one: bool(one.leases))
    process.send_signal(signal.SIGTERM)
    # The queue has no consumer when the first signal was understood.
    queue = coordinator.topology.steps_queue(*flow.to_schema().key)
    wait_until(
        lambda: (c := coordinator.link.count(queue, deadline_seconds=SECONDS)) is not None and not c.consumers
    )
    process.send_signal(signal.SIGTERM)
    assert coordinator.claim().released
    assert process.wait(SECONDS) == 0


def test_a_killed_worker_leaves_no_step_running(
    coordinator: PlayedCoordinator, start: Start, tmp_path: Path
) -> None:
    """The message is back for the next worker, so the orphan would be the second to execute it."""
    process = start("process")
    pid = linger(coordinator, tmp_path / "x")
    process.kill()

    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    wait_until(is_gone)
    wait_until(lambda: coordinator.ready(flow.to_schema()) == 1)

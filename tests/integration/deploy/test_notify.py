"""The daemons tell a service manager how they are, as systemd would hear it: over a socket, from processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WATCHDOG_SECONDS = 1.0
FUSELINE = str(shutil.which("fuseline", path=str(Path(sys.executable).parent)))

WORKFLOW = """
from fuseline import Workflow, step

@step
def greet(name: str) -> str:
    return f"Hello, {name}"

hello = Workflow(outputs=[greet], workflow_id="hello", version="1")
"""


class ServiceManager:
    """Starts a process as systemd does a `Type=notify` service, and hears what it says."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._address = folder / "notify"
        self._environment = environment
        self._listening = {
            "NOTIFY_SOCKET": str(self._address),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
        }
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(30)
        self._socket.bind(str(self._address))

    def close(self) -> None:
        self._socket.close()

    @contextmanager
    def running(self, *command: str, notify: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")}
        process = subprocess.Popen(
            [FUSELINE, *command],
            cwd=self._folder,
            env={
                **inherited,
                **self._environment,
                **(self._listening if notify else {}),
            },
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def hears(self, line: str) -> list[str]:
        """The message that has the line, and what else is in it; others are passed over."""
        while True:
            said = self._message()
            if line in said:
                return said

    def hears_beginning(self, start: str) -> list[str]:
        """The message that has a line which begins like this."""
        while True:
            said = self._message()
            if any(line.startswith(start) for line in said):
                return said

    def _message(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")


@pytest.fixture
def manager(tmp_path: Path, amqp_url: str, topology_prefix: str) -> Iterator[ServiceManager]:
    (tmp_path / "hello.py").write_text(WORKFLOW)
    made = ServiceManager(tmp_path, {"FUSELINE_AMQP_URL": amqp_url, "FUSELINE_PREFIX": topology_prefix})
    yield made
    made.close()


@contextmanager
def coordinating(manager: ServiceManager) -> Iterator[None]:
    """A coordinator that nobody listens to."""
    with manager.running("coordinator", notify=False) as process:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def check_life(manager: ServiceManager, process: subprocess.Popen[bytes]) -> None:
    """Ready, alive, stopping, and gone with 0."""
    status = manager.hears("READY=1")
    assert any(line.startswith("STATUS=") for line in status)
    check_life_after_ready(manager, process)


def check_life_after_ready(manager: ServiceManager, process: subprocess.Popen[bytes]) -> None:
    """Alive, stopping, and gone with 0."""
    manager.hears("WATCHDOG=1")
    manager.hears("WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    assert process.wait(30) == 0


def test_a_coordinator(manager: ServiceManager) -> None:
    with manager.running("coordinator") as process:
        check_life(manager, process)


def test_a_worker_is_ready_when_a_coordinator_knows_it(manager: ServiceManager) -> None:
    with manager.running("worker", "hello:hello") as worker:
        waiting = manager.hears_beginning("STATUS=waiting for a coordinator")
        assert "READY=1" not in waiting
        with coordinating(manager):
            message = manager.hears("READY=1")
            assert message[1].startswith("STATUS=executing steps of hello 1")
            check_life_after_ready(manager, worker)


def test_the_http_service(manager: ServiceManager) -> None:
    with manager.running("serve", "--embedded", "--port", "0") as process:
        message = manager.hears("READY=1")
        assert message[1].startswith("STATUS=serves http://")
        process.send_signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        assert process.wait(30) == 0


def test_a_worker_of_the_http_service(manager: ServiceManager) -> None:
    with manager.running("serve", "--embedded", "--port", "0"):
        (status,) = (line for line in manager.hears("READY=1") if line.startswith("STATUS=serves "))
        url = status.split()[1]
        with manager.running("worker", "--http-url", url, "hello:hello") as worker:
            assert any(line.endswith("takes steps") for line in manager.hears("READY=1"))
            check_life_after_ready(manager, worker)

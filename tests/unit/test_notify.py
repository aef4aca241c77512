"""The notify protocol, spoken over real unix sockets."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseline.errors import FatalError
from fuseline.notify import Notifier

PID = 4242


class ServiceManager:
    """What systemd is to a daemon: a datagram socket."""

    def __init__(self, address: str, variable: str) -> None:
        self.variable = variable
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind(address)

    def heard(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def heard_nothing(self) -> bool:
        """Sending is done when the call returns, so what is not here by now is not coming."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    if request.param == "path":
        found = ServiceManager(str(tmp_path / "notify"), str(tmp_path / "notify"))
    else:
        if sys.platform != "linux":
            pytest.skip("abstract sockets are Linux's")
        name = f"fuseline-{secrets.token_hex(8)}"
        found = ServiceManager(f"\0{name}", f"@{name}")
    with found.socket:
        yield found


def notifier(manager: ServiceManager, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.variable, **more}, pid=PID)


def test_ready_with_and_without_a_status(manager: ServiceManager) -> None:
    told = notifier(manager)
    told.ready("2 connections to RabbitMQ")
    assert manager.heard() == ["READY=1", "STATUS=2 connections to RabbitMQ"]
    told.ready()
    assert manager.heard() == ["READY=1"]


def test_status_and_stopping(manager: ServiceManager) -> None:
    told = notifier(manager)
    told.status("PostgreSQL is away since 12 s")
    assert manager.heard() == ["STATUS=PostgreSQL is away since 12 s"]
    told.stopping()
    assert manager.heard() == ["STOPPING=1"]
    told.stopping("draining")
    assert manager.heard() == ["STOPPING=1", "STATUS=draining"]


def test_a_status_cannot_say_more_than_a_status(manager: ServiceManager) -> None:
    """An error's text may have lines of its own, and `MAINPID=1` among them would be obeyed."""
    told = notifier(manager)
    told.status("refused:\nMAINPID=1\r\n\tREADY=1\n")
    assert manager.heard() == ["STATUS=refused: MAINPID=1 READY=1"]
    told.status("  \n")
    assert manager.heard_nothing()


def test_reloading_says_when(manager: ServiceManager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier(manager).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = manager.heard()
    name, _, value = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(value) <= after


def test_the_watchdog_is_fed_at_half_its_interval(manager: ServiceManager) -> None:
    told = notifier(manager, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(PID))
    assert told.watchdog_seconds == 15.0
    told.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_watchdog_without_a_process_is_ours(manager: ServiceManager) -> None:
    told = notifier(manager, WATCHDOG_USEC="500000")
    assert told.watchdog_seconds == 0.25
    told.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID + 1)}])
def test_a_watchdog_that_is_not_for_us_is_not_fed(manager: ServiceManager, more: dict[str, str]) -> None:
    """A child that inherits the environment must not keep its dead parent alive."""
    told = notifier(manager, **more)
    assert told.watchdog_seconds is None
    told.watchdog()
    assert manager.heard_nothing()


def test_without_a_service_manager_nothing_happens() -> None:
    told = Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, pid=PID)
    assert not told.enabled
    assert told.watchdog_seconds is None
    told.ready("up")
    told.status("well")
    told.reloading()
    told.watchdog()
    told.stopping()


def test_a_service_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    told = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000000"}, pid=PID)
    assert told.enabled
    told.ready("up")
    told.watchdog()


def test_a_service_manager_that_does_not_read_blocks_nobody(manager: ServiceManager) -> None:
    """P7: datagrams to a full buffer would block for ever; they are dropped instead."""
    told = notifier(manager)
    for number in range(5_000):
        told.status(f"{number}: {'x' * 1000}")
    assert manager.heard()[0].startswith("STATUS=0:")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "NOTIFY_SOCKET"),
        ({"NOTIFY_SOCKET": "relative/path"}, "NOTIFY_SOCKET"),
        ({"WATCHDOG_USEC": "30s"}, "WATCHDOG_USEC"),
        ({"WATCHDOG_USEC": "-5"}, "WATCHDOG_USEC"),
        ({"WATCHDOG_USEC": "0"}, "WATCHDOG_USEC"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(FatalError, match=named):
        Notifier(environ)


def test_it_reads_the_environment_of_its_own_process(manager: ServiceManager) -> None:
    """As systemd sets it: in another process, whose pid is in WATCHDOG_PID."""
    program = (
        "import os\n"
        "os.environ['WATCHDOG_PID'] = str(os.getpid())\n"
        "from fuseline.notify import Notifier\n"
        "told = Notifier()\n"
        "told.ready(f'every {told.watchdog_seconds} s')\n"
        "told.watchdog()\n"
    )
    environ = {**os.environ, "NOTIFY_SOCKET": manager.variable, "WATCHDOG_USEC": "4000000"}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=30)
    assert manager.heard() == ["READY=1", "STATUS=every 2.0 s"]
    assert manager.heard() == ["WATCHDOG=1"]

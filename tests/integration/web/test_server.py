"""The service as a process of its own: the line it prints, its signals, its exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from fuseline.broker import HttpBroker, MemoryBroker
from fuseline.errors import FatalError
from fuseline.model.status import RunStatus
from fuseline.testing.flows import Player, graph
from fuseline.web.server import serve

SINGLE = graph("single", {"a": []}, outputs=["a"])
SCRIPT = """
import sys
from pathlib import Path
from fuseline.broker import MemoryBroker
from fuseline.web.server import serve

with MemoryBroker() as broker:
    serve(broker, "127.0.0.1", 0, grace_seconds=5)
Path(sys.argv[1]).write_text("closed")
"""


class Service:
    """A process that serves."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(trace)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        self.url = self.line.rpartition(" ")[2]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    one = Service(tmp_path / "trace")
    yield one
    if one.process.poll() is None:
        one.process.kill()
    one.process.communicate()


def test_it_says_where_it_listens_and_works(service: Service) -> None:
    assert service.line.startswith("fuseline serves http://127.0.0.1:")
    with HttpBroker(service.url) as broker:
        worker = Player(broker, broker.register_worker([SINGLE]))
        run = broker.dispatch_workflow(SINGLE)
        worker.do("a", result=1)
        view = broker.wait(run, 10)
        assert (view.state, view.outputs) == (RunStatus.SUCCEEDED, {"a": 1})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_in_order(service: Service, number: signal.Signals) -> None:
    """The exit code is 0, and the broker was closed: what systemd and scripts go by."""
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    assert service.end(number) == 0
    assert service.trace.read_text() == "closed"


def test_a_request_that_waits_does_not_hold_it_up(service: Service) -> None:
    """P7: within the grace time, though a run is waited for that never ends."""
    with HttpBroker(service.url) as broker:
        run = broker.dispatch_workflow(SINGLE)
    waits = threading.Event()

    def wait() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            waits.set()
            with suppress(httpx.TransportError):  # cut off, as it must be
                client.get(f"/runs/{run}/wait", params={"timeout_seconds": 30})

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    httpx.get(f"{service.url}/livez")  # a round trip later the service has the other request too
    assert service.end(signal.SIGTERM) == 0
    thread.join(10)
    assert not thread.is_alive()


def test_an_address_in_use_is_told(service: Service) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with MemoryBroker() as broker, pytest.raises(FatalError, match=f"cannot listen on {host}:{port}"):
        serve(broker, host, int(port))


def test_an_address_that_is_none_is_told() -> None:
    with MemoryBroker() as broker, pytest.raises(FatalError, match=r"cannot listen on nowhere\.invalid:80"):
        serve(broker, "nowhere.invalid", 80)

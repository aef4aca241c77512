"""Workers in processes of their own, as a service manager keeps them: one that dies is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Self

from fuseline.amqp.topology import Topology

ROOT: Final = Path(__file__).parents[3]
PROGRAM: Final = """
import sys

import pytest

from fuseline.amqp.topology import Topology
from fuseline.settings import Settings
from fuseline.worker import Worker
from tests.integration.traps.defects import plant_named

url, prefix, queue_type, workflow, concurrency, claim = sys.argv[1:]
plant_named(pytest.MonkeyPatch())
Worker(
    url,
    f"tests.integration.traps.flows:{workflow}",
    concurrency=int(concurrency),
    drain_seconds=60.0,
    topology=Topology(prefix, queue_type),
    settings=Settings(claim_after_seconds=float(claim), heartbeat_seconds=0.2),
).run()
"""


class WorkerProcess:
    """One worker that is started again whenever it has ended, until the context is left."""

    def __init__(
        self, url: str, topology: Topology, workflow: str, *, concurrency: int = 1, claim_after: float = 60.0
    ) -> None:
        self._command = [
            sys.executable,
            "-c",
            PROGRAM,
            url,
            topology.prefix,
            topology.queue_type,
            workflow,
            str(concurrency),
            str(claim_after),
        ]
        self._lock = threading.Lock()
        self._is_over = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep)
        self.exit_codes: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self._is_over = True
            self._process.kill()
        self._thread.join()

    @property
    def pid(self) -> int:
        """The process that runs now."""
        with self._lock:
            return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Signal the process that runs now."""
        with self._lock:
            os.kill(self._process.pid, number)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd=ROOT)

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            with self._lock:
                self.exit_codes.append(code)
                if self._is_over:
                    return
                self._process = self._start()

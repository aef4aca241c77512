"""Erlang's port mapper: it tells the nodes of one machine where each other and their tools are."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from fuseline.testing.servers.base import LOOPBACK, free_ports
from fuseline.testing.servers.installation import Installation


class Epmd:
    """An epmd of one's own, on a free port, for the nodes that share `cookie`.

    A node starts an epmd if there is none, and leaves it behind for ever; so it is started first, and ended.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.cookie = secrets.token_hex(16)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1, the same for good."""
        with self._lock:
            self._port = self._port or free_ports(1)[0]
            return self._port

    @property
    def pid(self) -> int | None:
        """The process, where there is one."""
        return None if self._process is None else self._process.pid

    def start(self, environment: Mapping[str, str], folder: Path, output: IO[bytes]) -> None:
        """Start it, if it does not run."""
        port = str(self.port)
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self.installation.start(
                    "epmd",
                    "-address",
                    LOOPBACK,
                    "-port",
                    port,
                    environment=environment,
                    folder=folder,
                    output=output,
                )

    def stop(self) -> None:
        """End it. Nodes that still run are not found by others any more."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None

"""A coordinator in a process of its own, whose log can be waited for."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.integration.cli.harness import Fuseline
from tests.integration.traps.defects import VARIABLE

SECONDS = 60.0
ROOT: Final = Path(__file__).parents[3]
# Before a coordinator's own script, where a defence is to be taken out of it as well.
PLANTING: Final = """
import sys

sys.path.insert(0, {root!r})
import pytest

from tests.integration.traps.defects import DEFECTS

DEFECTS[{name!r}].plant(pytest.MonkeyPatch())
"""
COORDINATOR: Final = """
from fuseline.cli.main import main

sys.argv = ["fuseline", "coordinator"]
main()
"""


class Daemon:
    """One `fuseline` command that runs on. Its log is read from a pipe, so that no limit on files touches it."""

    def __init__(self, program: Fuseline, *arguments: str, script: str | None = None) -> None:
        command = ["-m", "fuseline", *arguments] if script is None else ["-c", script, *arguments]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=program.folder,
            env={**kept, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._unread: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, text: str) -> str:
        """The next line of its log that has this text in it."""
        deadline = time.monotonic() + SECONDS
        while True:
            line = self._unread.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, self.lines
            self.lines.append(line)
            if text in line:
                return line

    def kill(self) -> None:
        """At once, as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Make sure that it is gone."""
        self.kill()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as log:
            for line in log:
                self._unread.put(line)
        self._unread.put(None)


@contextmanager
def coordinator_process(program: Fuseline, script: str | None = None) -> Iterator[Daemon]:
    """A coordinator that is ready. `script`: Python that runs one in place of the command."""
    if name := os.environ.get(VARIABLE):
        script = PLANTING.format(root=str(ROOT), name=name) + (script or COORDINATOR)
    daemon = Daemon(program, *(() if script else ("coordinator",)), script=script)
    try:
        daemon.wait_for("ready:")
        yield daemon
    finally:
        daemon.end()

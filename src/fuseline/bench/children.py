"""Processes of a benchmark as their parent sees them: `child` is the other end.

Each is `python -m fuseline.bench.child ROLE`. It gets its job as one line of JSON (an address may hold a password, which
is nobody's business who lists processes), says `{"ready": true}`, and answers one line to each line. It ends when its
input does, so that it cannot outlive its parent, however that went.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fuseline.bench.failing import BenchFailedError

READY_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 20.0


class Child:
    """One of them, started and not waited for. `name` is for messages and for its log in `folder`."""

    def __init__(self, role: str, name: str, job: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuseline.bench.child", role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # A Ctrl-C reaches the parent alone, which then ends its children.
                start_new_session=True,
                text=True,
                # What a user has set for his own installation is not what is measured.
                env={name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")},
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"fuseline bench {name}", daemon=True)
        self._reader.start()
        self._say(job)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Until it can begin. Raises `BenchFailedError` with the end of its log."""
        self._hear(seconds, "becoming ready")

    def ask(self, what: str, seconds: float, **more: Any) -> dict[str, Any]:
        """Have it do something, and return its answer. Raises `BenchFailedError`."""
        self._say({"do": what, **more})
        return self._hear(seconds, what)

    def check(self) -> None:
        """Raise `BenchFailedError` when it has ended."""
        if self._process.poll() is not None:
            raise BenchFailedError(f"{self.name} ended with {self._process.returncode}: {self.log_tail()}")

    def log_tail(self, lines: int = 8) -> str:
        """The end of what it printed to stderr."""
        text = self.log_file.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:]) or "(its log is empty)"

    def close(self) -> None:
        """Let it end in order; kill it when it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, what: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._process.wait()
            self.check()

    def _hear(self, seconds: float, what: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise BenchFailedError(
                f"{self.name}: {what} took over {seconds:g} s: {self.log_tail()}"
            ) from None
        if not line:
            self._process.wait()
            self.check()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

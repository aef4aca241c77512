"""What every private server has: a temporary folder, ports, a process, and a guard that ends it with its owner."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fuseline.errors import FatalError
from fuseline.testing.servers.installation import Installation

LOOPBACK = "127.0.0.1"
# Below the range that the kernel hands out to clients (32768 and up on Linux): a port from there can be taken by any
# outgoing connection while the server is down, and then the server cannot come back.
_PORTS = range(20_000, 32_000)
_POLL_SECONDS = 0.05

# Waits until its owner is gone, however it went (even by SIGKILL: the kernel closes the pipe), then ends the processes
# listed in the folder and removes the folder.
_GUARD = """
cat >/dev/null
for pid in $(cat "$1/guarded"); do kill -KILL "$pid"; done
for try in 1 2 3 4 5; do rm -rf "$1" && break; sleep 1; done
"""


class ServerUnavailable(FatalError):
    """No server could be had; the message says what was tried and what to do."""

    code = "server_unavailable"


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on at loopback."""
    chosen: list[int] = []
    held: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            probe = socket.socket()
            held.append(probe)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen.append(port)
            if len(chosen) == count:
                return chosen
        raise ServerUnavailable(f"fewer than {count} free ports from {_PORTS.start} to {_PORTS.stop - 1}")
    finally:
        for probe in held:
            probe.close()


class PrivateServer(ABC):
    """A server of one's own in a temporary folder, on loopback only.

    `start` and `stop` as often as wanted: address and data stay. `kill` is a crash: SIGKILL, nothing flushed. `close`
    (or leaving a `with` block) stops it and removes the data. If the owning process dies first, a guard does that.

    The methods are for one thread at a time. Every wait has a deadline, `timeout_seconds`, after which
    `ServerUnavailable` is raised with the end of the server's log.
    """

    name: str

    def __init__(self, installation: Installation, timeout_seconds: float = 90) -> None:
        self.installation = installation
        self.timeout_seconds = timeout_seconds
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a kind of server says about itself

    @abstractmethod
    def _prepare(self) -> None:
        """Choose ports and lay out `self.folder`, once, before the first start."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether clients are served by now."""

    @property
    @abstractmethod
    def _stop_signal(self) -> signal.Signals:
        """What makes it stop in order, without waiting for clients."""

    @property
    @abstractmethod
    def log_file(self) -> Path:
        """Where the server's own log is, as this process sees it."""

    # -- what users call

    @property
    def folder(self) -> Path:
        """The server's folder as the server sees it."""
        if self._folder is None:
            raise ServerUnavailable(f"{self.name} was not started yet")
        return self._folder

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id, for signals of the caller's own (SIGSTOP, say)."""
        if self._process is None:
            raise ServerUnavailable(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start it, or do nothing if it runs; return when clients are served."""
        if self.running:
            return self
        if self._folder is None:
            self._make_folder()
            self._prepare()
        deadline = time.monotonic() + self.timeout_seconds
        self._process = process = self._launch()
        self._note_guarded()
        while not self._answers():
            ended = process.poll() is not None
            if ended and self._may_launch_again() and time.monotonic() < deadline:
                self._process = process = self._launch()
                self._note_guarded()
            elif ended or time.monotonic() > deadline:
                what = (
                    f"ended with {process.returncode}"
                    if ended
                    else f"is silent for {self.timeout_seconds:g} s"
                )
                log = self.log_tail()
                self.close()
                raise ServerUnavailable(f"{self.name} {what}; the end of its log:\n{log}")
            time.sleep(_POLL_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it in order; the data stays for the next `start`."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """Crash it: SIGKILL to the server and to all its processes. The data stays, as far as it was on disk."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it in order and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        if self._guard is not None:
            # The guard would do the rest, but later; whoever closes may count on its being done.
            self._guard.kill()
            self._guard.wait()
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self.installation.outside(self._folder), ignore_errors=True)
            self._folder = None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        if self._folder is None or not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside

    def _may_launch_again(self) -> bool:
        """Whether a process that ended at once is tried again: what a crash left behind may take a moment to go."""
        return False

    def _make_folder(self) -> None:
        base = self.installation.outside(Path("/tmp")) if self.installation.root is not None else None
        outside = Path(tempfile.mkdtemp(prefix=f"fuseline-{self.name.lower()}-", dir=base))
        self._folder = outside if base is None else Path("/tmp") / outside.name
        (outside / "guarded").write_text("")
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(outside)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def give(self, path: Path, mode: int | None = None) -> None:
        """Hand `path` (as this process sees it) and what is in it to the server's user."""
        if mode is not None:
            path.chmod(mode)
        owner = self.installation.owner()
        if owner is not None:
            for one in (path, *path.rglob("*")):
                os.chown(one, *owner)

    def _guarded_pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    def _note_guarded(self) -> None:
        pids = " ".join(str(pid) for pid in self._guarded_pids())
        (self.installation.outside(self.folder) / "guarded").write_text(pids)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        children = _descendants(process.pid)
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(self.timeout_seconds / 2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # A server's children notice its death by themselves, but not at once, and until then they keep ports, locks and
        # shared memory that the next start needs.
        for orphan in children & _processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan.pid, signal.SIGKILL)
        self._process = None
        self._note_guarded()


class _Process(NamedTuple):
    """One process of the machine; the start time tells it from a later one that was given the same number."""

    pid: int
    started: str


def _processes() -> set[_Process]:
    return set(_parents())


def _parents() -> dict[_Process, int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,lstart="],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    ).stdout
    rows = (line.split(maxsplit=2) for line in listing.splitlines())
    return {_Process(int(pid), started): int(parent) for pid, parent, started in rows}


def _descendants(pid: int) -> set[_Process]:
    parents = _parents()
    found: set[_Process] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        children = [process for process, its_parent in parents.items() if its_parent == parent]
        found.update(children)
        waiting += [child.pid for child in children]
    return found

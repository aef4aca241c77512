"""Processes of ours that a demonstration starts: each with a log of its own, and none outlives the demonstration."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fuseline.errors import FatalError

_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
# Waits until its owner is gone, however it went (even by SIGKILL: the kernel closes the pipe), then ends the process
# and those that it started. (No "--" before a negative number: dash takes that for one.)
_GUARD: Final = 'cat >/dev/null; kill -KILL "-$1"'


class OurProcess:
    """`fuseline ARGUMENTS` in a session of its own, so that a Ctrl-C reaches it through us alone."""

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], log_file: Path
    ) -> None:
        self.name = name
        self.log_file = log_file
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuseline", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        """Until `condition` holds. Raises `FatalError` with the end of its log when it ends first, or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if self.exit_code is not None:
                raise FatalError(f"{self.name} ended with {self.exit_code}: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise FatalError(f"{self.name}: {what} took over {timeout_seconds:g} s: {self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of what it said."""
        return " | ".join(self.log_file.read_text(errors="replace").splitlines()[-lines:]) or "(no log)"

    def kill(self) -> None:
        """SIGKILL: it gets no chance to say goodbye, nor do its own processes."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does, with its own processes; `thaw` lets it go on."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        if self.exit_code is None:
            self._signal(signal.SIGTERM)
            self.thaw()  # a frozen one hears nothing

    def close(self) -> None:
        """SIGTERM, and SIGKILL when it does not end by that."""
        if self.exit_code is None:
            self.ask_to_end()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        # First the guard: the number of a process that is gone may be given to another one.
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGTERM:
                os.kill(self.pid, number)  # what becomes of its own processes is its business
            else:
                os.killpg(self.pid, number)  # it leads its session's only group


class OurProcesses:
    """Several of them, which are asked to end all at once: what each takes to finish its work does not add up."""

    def __init__(self) -> None:
        self._started: list[OurProcess] = []

    def start(
        self, name: str, arguments: list[str], environment: Mapping[str, str], log_file: Path
    ) -> OurProcess:
        """One more, which ends with the others."""
        process = OurProcess(name, arguments, environment, log_file)
        self._started.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as closing:
            for process in self._started:
                closing.callback(process.close)
            for process in self._started:
                process.ask_to_end()


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: through every `with` that cleans up."""

    def handle(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The parties under fire: coordinators and workers as real processes, restarted when they end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fuseline.cli.demo.processes import OurProcess
from tests.fault.history import History

Role = Literal["coordinator", "worker"]

_LOOK_SECONDS: Final = 0.25
_STARTING_SECONDS: Final = 30.0
_AWAY: Final = 4
"""The exit code of who finds RabbitMQ or the database away as it starts: its service manager starts it again."""


@dataclass
class Party:
    """A coordinator or worker: one process after the other. `is_down`: the adversary's doing, so nobody restarts it."""

    name: str
    role: Role
    arguments: list[str]
    environment: Mapping[str, str]
    logs: Path
    process: OurProcess | None = None
    incarnation: int = 0
    started_at: float = 0.0
    is_down: bool = False
    may_die: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        """Start its next incarnation, with a log of its own."""
        with self.lock:
            self.close()
            self.incarnation += 1
            self.started_at = time.monotonic()
            log = self.logs / f"{self.name}.{self.incarnation}.log"
            self.process = OurProcess(self.name, self.arguments, self.environment, log)
            self.is_down = False

    @property
    def pid(self) -> int:
        """Of the present incarnation."""
        assert self.process is not None
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self.process is None else self.process.exit_code

    def close(self) -> None:
        """End the present incarnation, in order if it listens."""
        if self.process is not None:
            self.process.close()
            self.process = None

    def state(self) -> str:
        """The process's state as the kernel says it: T is stopped."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0]


class Supervisor:
    """Restarts parties that end by themselves, and remembers it."""

    def __init__(self, parties: list[Party], history: History) -> None:
        self.parties = parties
        self.unexpected: list[str] = []
        self._history = history
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start all of them, and watch."""
        for party in self.parties:
            party.start()
        self._thread.start()

    def close(self) -> None:
        """End all of them at once."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for party in self.parties:
            if party.process is not None:
                party.process.ask_to_end()
        for party in self.parties:
            party.close()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for party in self.parties:
                with party.lock:
                    code = party.exit_code
                    if party.is_down or party.process is None or code is None:
                        continue
                    tail = party.process.log_tail(3)
                    is_starting = time.monotonic() < party.started_at + _STARTING_SECONDS
                    expected = party.may_die or (code == _AWAY and is_starting)
                    self._history.write("exited", party=party.name, code=code, expected=expected, log=tail)
                    if not expected:
                        self.unexpected.append(f"{party.name} ended by itself with {code}: {tail}")
                    party.start()


class LogBook:
    """All logs of a folder, from where they stood at a mark."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self) -> dict[Path, int]:
        """Where each log ends now."""
        return {path: path.stat().st_size for path in self._folder.glob("*.log")}

    def since(self, mark: Mapping[Path, int], pattern: str) -> list[str]:
        """What was logged since `mark` and matches: "party: line"."""
        found = []
        wanted = re.compile(pattern)
        for path in sorted(self._folder.glob("*.log")):
            with path.open("rb") as file:
                file.seek(mark.get(path, 0))
                text = file.read().decode(errors="replace")
            found += [f"{path.stem}: {line}" for line in text.splitlines() if wanted.search(line)]
        return found

    def wait(self, mark: Mapping[Path, int], pattern: str, seconds: float) -> str | None:
        """The first such line, waited for; None when none comes."""
        deadline = time.monotonic() + seconds
        while not (found := self.since(mark, pattern)):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)
        return found[0]

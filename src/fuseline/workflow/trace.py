"""What happens in a run, as JSON lines: the events that the events exchange carries, in the same form."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fuseline.clock import Clock


class Trace:
    """Writes one run's events, each as soon as it is known. Thread-safe.

    `target` is a path, which is written anew, or an open text file, which is left open.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | IO[str],
        clock: Clock,
        *,
        workflow_id: str,
        workflow_version: str,
        instance_id: str,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = {
            "workflow_id": workflow_id,
            "workflow_version": workflow_version,
            "instance_id": instance_id,
        }
        self._is_ours = isinstance(target, str | os.PathLike)
        # Opened here and closed by `__exit__`: a path that cannot be written is an error before the run begins.
        self._file: IO[str] = _open(target) if isinstance(target, str | os.PathLike) else target

    def write(self, kind: str, step: str | None = None, attempt: int | None = None, **detail: Any) -> None:
        """Add an event."""
        event = {"kind": kind, "at": self._clock.now(), **self._ids, "step_name": step, "attempt": attempt}
        line = json.dumps(event | detail, default=str)
        with self._lock:
            if not self._file.closed:  # a body that was abandoned may have something to tell later
                self._file.write(f"{line}\n")
                self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._is_ours:
                self._file.close()


def _open(path: str | os.PathLike[str]) -> IO[str]:
    return Path(path).open("w", encoding="utf-8")

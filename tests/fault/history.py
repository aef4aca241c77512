"""What happened, as the harness saw it: lines of JSON, in the order of time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class History:
    """Appends events to a file; from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")

    def write(self, what: str, **more: Any) -> float:
        """Note an event; returns its time, in seconds since the epoch."""
        with self._lock:
            at = time.time()
            self._file.write(json.dumps({"at": at, "what": what, **more}) + "\n")
            self._file.flush()
        return at

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file; a last line that was cut off is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                if line.endswith("\n"):
                    raise

"""The parent as its child sees it: lines of JSON on stdin, answers on stdout."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Parent:
    """Who started this process. `job` is its first line."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = json.loads(sys.stdin.readline())

    def tell(self, what: Mapping[str, Any]) -> None:
        """One answer; from any thread, one at a time."""
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    def ready(self) -> None:
        """Say that the work can begin."""
        self.tell({"ready": True})

    def questions(self) -> Iterator[dict[str, Any]]:
        """What it asks, until it ends or wants this process to end."""
        for line in sys.stdin:
            yield json.loads(line)

    def listen(self, heard: Callable[[dict[str, Any]], None], gone: Callable[[], None]) -> None:
        """Hear its questions on a thread of its own."""

        def run() -> None:
            for question in self.questions():
                heard(question)
            gone()

        threading.Thread(target=run, name="fuseline bench parent", daemon=True).start()

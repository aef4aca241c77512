"""Who waits for a run to end, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fuseline.engine.state import RunRow


class Ending(threading.Event):
    """The end of a run, and how many wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiters = 0


class Endings:
    """An `Ending` for each run that somebody waits for, and for no other (P6). Not thread-safe."""

    def __init__(self) -> None:
        self._endings: dict[str, Ending] = {}

    def enter(self, instance_id: str) -> Ending:
        """One more waits; `leave` when it does no longer."""
        ending = self._endings.setdefault(instance_id, Ending())
        ending.waiters += 1
        return ending

    def leave(self, instance_id: str, ending: Ending) -> None:
        """One less waits."""
        ending.waiters -= 1
        if not ending.waiters and self._endings.get(instance_id) is ending:
            del self._endings[instance_id]

    def ended(self, instance_id: str) -> None:
        """The run has ended."""
        if (ending := self._endings.pop(instance_id, None)) is not None:
            ending.set()

    def look(self, read: Callable[[str], RunRow | None]) -> None:
        """Whether those that somebody waits for have ended; the header tells."""
        for instance_id in list(self._endings):
            row = read(instance_id)
            if row is None or row.status.is_terminal:
                self.ended(instance_id)

    def close(self) -> None:
        """Nobody is to wait any more."""
        for ending in self._endings.values():
            ending.set()

"""Who waits for a run to end, in this process."""

from __future__ import annotations

import threading


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

    def close(self) -> None:
        """Nobody is to wait any more."""
        for ending in self._endings.values():
            ending.set()

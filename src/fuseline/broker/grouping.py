"""Group commit: calls that arrive while a transaction is under way share the next one; a lone call waits for nobody."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from fuseline.errors import FuselineError
from fuseline.ledger import Dispatch, Occurrence, Outcome
from fuseline.model.messages import StepAssignment

MAX_CALLS: Final = 500
"""That share a transaction at most (P6)."""


class Call(ABC):
    """Something to be decided on and committed, for a thread that waits for it.

    `wanted`: how many steps the worker `worker_id` would take. `taken` is how many there were for it, `handed` those
    that it got: of others the attempt was over. `is_detached`: it may change their payloads, which are copies.
    """

    worker_id: str = ""
    wanted: int = 0
    is_detached: bool = True

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_done = False
        self.taken = 0
        self.handed: list[StepAssignment] = []

    @abstractmethod
    def prepare(self) -> Sequence[Dispatch | Occurrence]:
        """What to decide on. Raises `FuselineError` for what cannot be asked. May be called again if nothing came of it."""

    @abstractmethod
    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """It is committed. Raises what the caller is to be told."""

    def fail(self, error: BaseException) -> None:
        """The caller is to get this error."""
        self.error, self.is_done = error, True

    def succeed(self, outcomes: Sequence[Outcome]) -> None:
        """The caller is to get his answer."""
        try:
            self.settle(outcomes)
        except FuselineError as error:
            self.error = error
        self.is_done = True


class Group:
    """Whoever gets the lock first works for all that wait for it.

    `work` is called with the lock held; it answers every call that it gets, or raises.
    """

    def __init__(self, lock: threading.Lock, work: Callable[[Sequence[Call]], None]) -> None:
        self._lock = lock
        self._work = work
        self._waiting: deque[Call] = deque()

    def do(self, call: Call) -> None:
        """Have it committed, alone or with others. Raises its error."""
        self._waiting.append(call)
        with self._lock:
            while not call.is_done:
                self._work(self._take(call))
        if call.error is not None:
            raise call.error

    def _take(self, call: Call) -> list[Call]:
        taken: list[Call] = []
        while self._waiting and len(taken) < MAX_CALLS:
            taken.append(self._waiting.popleft())
        # Somebody who was interrupted (Ctrl-C) may have taken it along, and never came to answer it.
        return taken or [call]

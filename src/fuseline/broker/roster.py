"""The workers of a broker in this process: who lives, and until when that carries their leases. Memory only (P8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fuseline.broker.ready import Fence
from fuseline.clock import Clock
from fuseline.errors import UnknownWorkerError
from fuseline.model.views import WorkerView
from fuseline.storage.base import Due

FORGET_AFTER_LEASES = 5
"""A worker that holds nothing is forgotten after so many lease times of silence."""


@dataclass(slots=True)
class _Worker:
    view: WorkerView
    workflows: tuple[tuple[str, str], ...]
    seen: float  # monotonic, so that a clock that is set ends no lease
    beat_at: float  # monotonic: the last keep_alive. Asking for steps carries none that was lost on the way
    holds_until: float  # monotonic: the latest time that a step was handed to it for
    beats: bool = False  # it says keep_alive, so its leases may be short
    holds: frozenset[Fence] | None = None  # what it says it holds; None: it does not say


class Roster:
    """Not thread-safe."""

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock = clock
        self.lease_seconds = lease_seconds
        self._workers: dict[str, _Worker] = {}
        # After a start nobody has been heard yet: silence counts only after one lease time of listening.
        self._listening_since = clock.monotonic()

    def __len__(self) -> int:
        return len(self._workers)

    def add(self, views: Iterable[WorkerView]) -> None:
        """Workers that registered, now or with an earlier process."""
        now = self._clock.monotonic()
        for view in views:
            self._workers[view.worker_id] = _Worker(view, tuple(view.workflows), now, now, now)

    def seen(self, worker_id: str) -> tuple[tuple[str, str], ...]:
        """The worker is here; returns its (workflow_id, version) pairs. Raises `UnknownWorkerError`."""
        worker = self._workers.get(worker_id)
        if worker is None:
            raise UnknownWorkerError(f"no worker {worker_id!r} is registered, or it was silent for too long")
        worker.seen = self._clock.monotonic()
        return worker.workflows

    def beat(self, worker_id: str, holds: Iterable[Fence] | None) -> None:
        """The worker says that it lives, and perhaps what it holds. Raises `UnknownWorkerError`."""
        self.seen(worker_id)
        worker = self._workers[worker_id]
        worker.beats, worker.beat_at = True, worker.seen
        worker.holds = None if holds is None else frozenset(holds)

    def lease_for(self, worker_id: str, hold_seconds: float) -> float:
        """The lease of a step that a worker which is here may hold for so long.

        One that sends keep-alives is known to be gone when they stop. Of one that never does only the end of its time
        tells, so it has all of it.
        """
        return min(self.lease_seconds, hold_seconds) if self._workers[worker_id].beats else hold_seconds

    def handed_out(self, worker_id: str, hold_seconds: float) -> None:
        """The worker got a step."""
        worker = self._workers[worker_id]
        worker.holds_until = max(worker.holds_until, self._clock.monotonic() + hold_seconds)

    def renewed_until(self, due: Due) -> float | None:
        """Until when (wall time) a lease is carried; None when its holder has been silent."""
        if due.holder is None:
            return None
        worker = self._workers.get(due.holder)
        held = None if worker is None else worker.holds
        if held is not None and (due.instance_id, due.step, due.attempt) not in held:
            return None  # it lives, and never got this step or has given it up
        last = self._listening_since if worker is None else max(worker.beat_at, self._listening_since)
        left = last + self.lease_seconds - self._clock.monotonic()
        return self._clock.now() + left if left > 0 else None

    def views(self) -> list[WorkerView]:
        """All workers, in the order that they came in."""
        return [
            worker.view.model_copy(
                update={"last_seen_at": self._last_seen_at(worker), "alive": self._lives(worker)}
            )
            for worker in self._workers.values()
        ]

    def last_seen(self) -> dict[str, float]:
        """{worker_id: last seen (wall time)}."""
        return {worker_id: self._last_seen_at(worker) for worker_id, worker in self._workers.items()}

    def count_alive(self) -> int:
        """How many were heard within the last lease time."""
        return sum(self._lives(worker) for worker in self._workers.values())

    def forgettable(self) -> list[str]:
        """Workers that are silent for long and cannot hold anything any more."""
        silent_since = self._clock.monotonic() - FORGET_AFTER_LEASES * self.lease_seconds
        return [
            worker_id
            for worker_id, worker in self._workers.items()
            if max(worker.seen, worker.holds_until) < silent_since
        ]

    def forget(self, worker_ids: Iterable[str]) -> None:
        """Drop these workers."""
        for worker_id in worker_ids:
            self._workers.pop(worker_id, None)

    def _lives(self, worker: _Worker) -> bool:
        return self._clock.monotonic() - worker.seen <= self.lease_seconds

    def _last_seen_at(self, worker: _Worker) -> float:
        return self._clock.now() - (self._clock.monotonic() - worker.seen)

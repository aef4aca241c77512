"""What heartbeats say, kept in memory: who lives, what they hold, and how to reach them. No row is written a beat (P8).

Every coordinator hears every beat. A lease's due time in storage is only when to look here; after a start or a
reconnect nothing is known yet, so no lease ends before one lease time of listening (ADR 0003).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fuseline.amqp.wire import Heartbeat
from fuseline.clock import Clock
from fuseline.storage.base import Due

Lease = tuple[str, str, int]
"""(instance_id, step name, attempt)."""


@dataclass(slots=True)
class _Worker:
    workflow_ids: frozenset[str]
    address: str | None
    last_seen_at: float
    last_beat: float
    leases: frozenset[Lease] = frozenset()


@dataclass(slots=True)
class WorkerBook:
    """The workers that this coordinator hears. Times inside are monotonic, so that a clock jump ends no lease."""

    clock: Clock
    lease_seconds: float
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _beats: dict[tuple[str, Lease], float] = field(default_factory=dict)
    _unsaved: dict[str, float] = field(default_factory=dict)
    _unverified: set[tuple[str, Lease]] = field(default_factory=set)
    _listening_since: float = 0.0
    heard_until: float | None = None
    """All that was said before that time (monotonic) has been heard. None: take it that this is so of all until now."""

    def __post_init__(self) -> None:
        self._listening_since = self.clock.monotonic()

    def listen_anew(self) -> None:
        """Beats may have been missed (a reconnect): trust silence only after a whole lease time again."""
        self._listening_since = self.clock.monotonic()

    def beat(self, beat: Heartbeat, address: str | None) -> None:
        """A worker lives and holds these leases."""
        now = self.clock.monotonic()
        leases = frozenset(beat.leases)
        known = self._workers.get(beat.worker_id)
        for lease in leases:
            self._beats[beat.worker_id, lease] = now
        if known is not None:
            for lease in known.leases - leases:
                self._beats.pop((beat.worker_id, lease), None)
        # A lease that is new here, or carried on after an address changed, may be one that storage ended meanwhile.
        fresh = leases - known.leases if known is not None and known.address == address else leases
        self._unverified.update((beat.worker_id, lease) for lease in fresh)
        workflow_ids = frozenset(workflow_id for workflow_id, _ in beat.workflows)
        self._workers[beat.worker_id] = _Worker(workflow_ids, address, self.clock.now(), now, leases)
        self._unsaved[beat.worker_id] = self.clock.now()

    def renewed_until(self, due: Due) -> float | None:
        """Until when (wall time) a lease is carried; None when its holder has been silent."""
        now = self.clock.monotonic()
        if self.heard_until is not None:
            now = min(now, self.heard_until)
        last = self._listening_since
        if due.step is not None and due.holder is not None:
            last = max(last, self._beats.get((due.holder, (due.instance_id, due.step, due.attempt)), last))
        remaining = last + self.lease_seconds - now
        return self.clock.now() + remaining if remaining > 0 else None

    def addresses(self, workflow_id: str) -> list[str]:
        """Where to send notices for all workers of a workflow that still live."""
        return [
            worker.address
            for worker in self._workers.values()
            if worker.address is not None and workflow_id in worker.workflow_ids and self._lives(worker)
        ]

    def address(self, worker_id: str) -> str | None:
        """Where to send a notice for one worker; None when it was never heard."""
        worker = self._workers.get(worker_id)
        return None if worker is None else worker.address

    def lists(self, worker_id: str, lease: Lease) -> bool:
        """Whether a worker said with its latest beat that it holds this."""
        worker = self._workers.get(worker_id)
        return worker is not None and lease in worker.leases

    def take_unverified(self) -> set[tuple[str, Lease]]:
        """(worker_id, lease) pairs that nobody has compared with storage yet."""
        taken, self._unverified = self._unverified, set()
        return taken

    def verify_again(self) -> None:
        """Compare all leases with storage at the next chance: a stop notice may have been missed."""
        self._unverified.update(
            (worker_id, lease) for worker_id, worker in self._workers.items() for lease in worker.leases
        )

    def take_unsaved(self) -> dict[str, float]:
        """{worker_id: last seen (wall time)} of beats since the last call, to be saved in one statement."""
        taken, self._unsaved = self._unsaved, {}
        return taken

    def forget_silent(self) -> None:
        """Drop workers that have been silent for long, so that memory follows the workers that live (P6)."""
        gone = [worker_id for worker_id, worker in self._workers.items() if not self._lives(worker, 3.0)]
        for worker_id in gone:
            for lease in self._workers.pop(worker_id).leases:
                self._beats.pop((worker_id, lease), None)

    def _lives(self, worker: _Worker, leases: float = 1.0) -> bool:
        return self.clock.monotonic() - worker.last_beat < leases * self.lease_seconds

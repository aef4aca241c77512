"""Seeds, one or many: simulate, judge, count."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

from fuseline.amqp import connection
from fuseline.amqp.limits import LinkLimits
from fuseline.testing.simulation.checker import Checker
from fuseline.testing.simulation.faults import Adversary
from fuseline.testing.simulation.plants import PLANTS
from fuseline.testing.simulation.replays import plan_replays
from fuseline.testing.simulation.room import Room
from fuseline.testing.simulation.world import START

CHUNK = 25
_PARAMETERS = connection.parameters_of("amqp://simulated/", "simulated", LinkLimits())


@dataclass(slots=True)
class Result:
    """One seed. `recovery_seconds`: virtual time from the last fault until all was over; `timeline` only if asked for."""

    seed: int
    violations: list[str]
    recovery_seconds: float
    calls: int
    counts: Counter[str]
    timeline: str = ""


@dataclass(slots=True)
class Summary:
    """Many seeds. `failed` are those with violations, with the first of them."""

    seeds: int = 0
    failed: list[tuple[int, list[str]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one more."""
        self.seeds += 1
        self.counts.update(result.counts)
        self.recoveries.append(result.recovery_seconds)
        if result.violations:
            self.failed.append((result.seed, result.violations))

    def merge(self, other: Summary) -> None:
        """Count others' seeds too."""
        self.seeds += other.seeds
        self.counts.update(other.counts)
        self.recoveries += other.recoveries
        self.failed += other.failed

    def recovery(self, share: float) -> float:
        """The recovery time that `share` of the seeds kept, in virtual seconds."""
        ordered = sorted(self.recoveries)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def simulate(seed: int, *, timeline: bool = False) -> Result:
    """Live through one seed and judge it. The same seed gives the same result (under one `PYTHONHASHSEED`)."""
    with _quiet(), mock.patch.object(connection, "parameters_of", _no_parameters):
        room = Room(seed)
        room.start_all()
        Adversary(room).plan()
        plan_replays(room, seed)
        room.run()
        history = room.world.history
        violations = Checker(history, room.work.versions).check(room.left_over())
        text = history.timeline(START) if timeline else ""
        result = Result(seed, violations, room.recovery_seconds, room.world.calls, history.counts, text)
        room.clear()
        return result


def simulate_many(seeds: Iterable[int], plant: str | None = None) -> Summary:
    """Simulate seeds one after another, with a planted bug if one is named."""
    summary = Summary()
    with PLANTS[plant]() if plant else contextlib.nullcontext(), _own_collections() as collect:
        for seed in seeds:
            summary.add(simulate(seed))
            collect()
    return summary


def first_failure(seeds: Iterable[int], plant: str | None = None) -> tuple[int, Result] | None:
    """(how many seeds it took, the first failing one); None when all pass."""
    with PLANTS[plant]() if plant else contextlib.nullcontext(), _own_collections() as collect:
        for count, seed in enumerate(seeds, 1):
            result = simulate(seed)
            if result.violations:
                return count, result
            collect()
    return None


def run_seeds(
    seeds: Sequence[int],
    jobs: int = 1,
    plant: str | None = None,
    on_progress: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Simulate `seeds` on `jobs` processes; `on_progress` is called now and then with what is known so far."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    summary = Summary()
    work = partial(simulate_many, plant=plant)
    with _results(work, chunks, jobs) as results:
        for part in results:
            summary.merge(part)
            on_progress(summary)
    summary.failed.sort()
    return summary


def _no_parameters(_url: str, _name: str, _limits: object) -> Any:
    """What pika would be told about an address, which nobody asks here."""
    return _PARAMETERS


@contextlib.contextmanager
def _results(
    work: Callable[[Sequence[int]], Summary], chunks: Sequence[Sequence[int]], jobs: int
) -> Iterator[Iterable[Summary]]:
    if jobs <= 1:
        yield map(work, chunks)
        return
    # Spawned, not forked: whoever calls this may have threads. The environment, and so the hash seed, is inherited.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool.imap_unordered(work, chunks)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the system logs about faults is no news here, and formatting it would take most of the time."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _own_collections() -> Iterator[Callable[[], None]]:
    """Collect garbage between seeds rather than in the middle of them: a seed is one large cycle."""
    was_enabled = gc.isenabled()
    done = 0

    def collect() -> None:
        nonlocal done
        done += 1
        if not done % 50:
            gc.collect()

    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()

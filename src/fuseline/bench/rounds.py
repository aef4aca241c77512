"""Rounds: the systems take turns at each work, so that what else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuseline.bench.places import Places
from fuseline.bench.samples import Sample
from fuseline.bench.systems import Place, Setting, System
from fuseline.bench.works import Work


@dataclass(frozen=True, slots=True)
class Measured:
    """The samples of one system at one work, one a round."""

    system: str
    work: Work
    fusion: bool
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """What is next. `done` of `total` measurements are over; `last` says what the last one found."""

    done: int
    total: int
    text: str


def measure(
    systems: Sequence[System],
    works: Sequence[Work],
    rounds: int,
    places: Places | None,
    setting: Setting,
    tell: Callable[[Progress], None] = lambda _progress: None,
) -> list[Measured]:
    """All systems at all works, `rounds` times. Who begins changes from round to round."""
    found = {
        (system.name, system.fusion, work.name): Measured(system.name, work, system.fusion)
        for work in works
        for system in systems
    }
    total = rounds * len(found)
    done = 0

    def one_round(number: int, place: Place | None) -> None:
        nonlocal done
        turns = list(systems) if number % 2 == 0 else list(reversed(systems))
        for work in works:
            for system in turns:
                fused = ", fused" if system.fusion else ""
                tell(Progress(done, total, f"round {number + 1}: {work.name}, {system.name}{fused}"))
                sample = system.measure(work, place if system.needs_servers else None, setting)
                found[system.name, system.fusion, work.name].samples.append(sample)
                done += 1

    for number in range(rounds):
        if places is None:
            one_round(number, None)
        else:
            tell(Progress(done, total, f"round {number + 1}: starting servers"))
            with places() as place:
                one_round(number, place)
    tell(Progress(total, total, "done"))
    return list(found.values())

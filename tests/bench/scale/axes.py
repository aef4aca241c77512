"""What a step costs as one thing grows and all else stays: CPU time by process, and a coordinator's memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fuseline.bench.driving import Driver
from fuseline.bench.places import Places
from fuseline.bench.samples import Sample
from fuseline.bench.systems import Floor, Fuseline, Installation, Place, Setting
from fuseline.bench.works import Metric, Shape, Work
from fuseline.testing.flows import graph
from tests.bench.scale.found import Found, Memory, Point
from tests.bench.scale.meters import Watch
from tests.bench.scale.plan import CALLS, Plan, Section
from tests.bench.scale.statements import purged, statements
from tests.unit.storage.filling import fill

READY_SECONDS: Final = 600.0
FOLLOW_SECONDS: Final = 1_500.0
"""A busy machine takes its time for a hundred thousand steps."""
WARM_STEPS: Final = 500
CHAINS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a plan is measured."""

    plan: Plan
    where: Places
    folder: Path

    @property
    def chains(self) -> Work:
        """Chains of ten, as many as a point has."""
        return chain(10, self.plan.steps)

    @contextmanager
    def on(self, place: Place, work: Work, workers: int = 2, coordinators: int = 1) -> Iterator[Installation]:
        """A Fuseline for this work."""
        setting = Setting(self.folder, workers, ready_seconds=READY_SECONDS)
        with Fuseline().started(work, place, setting, coordinators) as installation:
            yield installation


def fan(width: int, steps: int) -> Work:
    """Runs of a step, `width` parallel ones and a join."""
    return Work(f"fan of {width}", "", Shape.FAN, width, max(1, steps // width), False, (Metric.SECONDS,))


def chain(length: int, steps: int, flows: int = 1) -> Work:
    """Runs of a chain, of several workflows in turn."""
    return Work(
        f"chain of {length}",
        "",
        Shape.CHAIN,
        length,
        max(1, steps // length),
        False,
        (Metric.SECONDS,),
        flows,
    )


def cost(section: Section, size: int, work: Work, installation: Installation, calls: int = 1) -> Point:
    """Some runs to warm up, then the work."""
    driver = Driver(
        installation.broker,
        installation.storage,
        check=installation.check,
        follow_seconds=FOLLOW_SECONDS,
        calls=calls,
    )
    # One run of a wide fan is the whole of the work, and long enough to be warm for most of it.
    runs = min(work.runs, max(work.flows, WARM_STEPS // work.size))
    if runs < work.runs:
        driver.do(replace(work, runs=runs))
    watch = Watch(installation)
    sample = installation.sample_of(work, driver)
    return point(section, size, work, sample, watch.memory())


def point(section: Section, size: int, work: Work, sample: Sample, memory: Memory) -> Point:
    """By step."""
    rate = work.steps / sample.timing.seconds
    return Point(
        section.short,
        size,
        per_step(sample.cpu_seconds, work, 1000),
        memory,
        per_step(sample.counts, work),
        (rate, rate, rate),
    )


def per_step(values: Mapping[str, float], work: Work, factor: float = 1.0) -> dict[str, float]:
    """These, of the whole work, by step."""
    return {name: factor * value / work.steps for name, value in values.items()}


def widths(stage: Stage) -> Iterator[Point]:
    """Up to a hundred thousand steps in a run, all ready at once."""
    with stage.where() as place:
        for width in stage.plan.widths:
            work = fan(width, stage.plan.steps)
            with stage.on(place, work) as installation:
                yield cost(Section.WIDTH, width, work, installation)


def lengths(stage: Stage) -> Iterator[Point]:
    """Long chains, and as many at once whatever their length, as batches are of what goes on at once."""
    runs = min(CHAINS_AT_ONCE, stage.plan.steps // stage.plan.lengths[0])
    with stage.where() as place:
        for length in stage.plan.lengths:
            work = chain(length, length * runs)
            with stage.on(place, work) as installation:
                times = max(1, stage.plan.steps // work.steps)
                points = [cost(Section.LENGTH, length, work, installation) for _ in range(times)]
            yield middle(points, statistics.mean)


def registered(stage: Stage) -> Iterator[Point]:
    """Other workflows with a queue each, for one worker that never asks."""
    with stage.where() as place:
        for count in stage.plan.registered:
            with stage.on(place, stage.chains) as installation:
                others = [graph(f"other-{number}", {"a": []}, outputs=["a"]) for number in range(count - 1)]
                for start in range(0, len(others), 50):
                    installation.broker.register_worker(others[start : start + 50])
                yield cost(Section.REGISTERED, count, stage.chains, installation)


def used(stage: Stage) -> Iterator[Point]:
    """Runs of many workflows in turn, which the workers all consume."""
    with stage.where() as place:
        for count in stage.plan.used:
            work = chain(10, stage.plan.steps, count)
            with stage.on(place, work) as installation:
                yield cost(Section.USED, count, work, installation, CALLS)


def floors(stage: Stage) -> Iterator[Point]:
    """The same runs by the least code that keeps them: what is RabbitMQ's own part of what many queues cost."""
    for count in stage.plan.used:
        with stage.where() as place:
            work = chain(10, stage.plan.steps, count)
            sample = Floor().measure(work, place, Setting(stage.folder, ready_seconds=READY_SECONDS))
            yield point(Section.FLOOR, count, work, sample, Memory(0.0, 0.0, 0.0))


def repeated(stage: Stage) -> Iterator[Point]:
    """Runs of one step, more and more of them, by one coordinator: does it keep anything of a run that is over?"""
    with stage.where() as place:
        first = stage.plan.repeated[0]
        with stage.on(place, chain(1, first)) as installation:
            done = 0
            for count in stage.plan.repeated:
                work = chain(1, count - done)
                yield cost(Section.REPEATED, count, work, installation)
                done = count


def coordinators(stage: Stage) -> Iterator[Point]:
    """One and two of them in turn, the other one first in every other round; medians of the rounds."""
    found: dict[int, list[Point]] = {1: [], 2: []}
    with stage.where() as place:
        for number in range(stage.plan.rounds):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                with stage.on(place, stage.chains, coordinators=count) as installation:
                    found[count].append(cost(Section.COORDINATORS, count, stage.chains, installation))
    yield from (middle(points) for points in found.values())


def middle(points: list[Point], of: Callable[[Iterable[float]], float] = statistics.median) -> Point:
    """The medians (or what else is asked for) of several measurements of one point, and the range of its rate."""
    rates = [one.steps_per_s[0] for one in points if one.steps_per_s is not None]
    most = max((one.memory for one in points), key=lambda one: one.peak)
    return replace(
        points[0],
        cpu_ms={name: of(one.cpu_ms[name] for one in points) for name in points[0].cpu_ms},
        counts={name: of(one.counts[name] for one in points) for name in points[0].counts},
        memory=most,
        steps_per_s=(of(rates), min(rates), max(rates)),
    )


def recorded(stage: Stage, found: Found) -> Iterator[Point]:
    """Runs that ended long ago, three steps and a join each, one of a thousand open."""
    for runs in stage.plan.recorded:
        with stage.where() as place:
            if runs > 1:
                fill(place.database_url, runs)
                found.statements += statements(place.database_url, runs)
            with stage.on(place, stage.chains) as installation:
                yield cost(Section.RECORDED, runs, stage.chains, installation)
            if runs > 1:
                found.purges.append(purged(place.database_url, runs))

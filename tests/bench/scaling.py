"""`python -m tests.bench.scaling`: what a step costs as things grow, and what a system costs that rests; `make scale`.

Costs are CPU time, which what else the machine does changes little; each axis is a ratio to its own smallest point,
measured in the same run. Takes half an hour, `--quick` some minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fuseline.bench.page import table
from fuseline.bench.places import Places, places
from fuseline.bench.results import machine
from fuseline.bench.systems import Fuseline, Installation, Place, Setting
from fuseline.bench.works import WORKS, Metric, Shape, Work
from fuseline.testing.flows import graph
from tests.unit.storage.filling import fill

BEGIN: Final = "<!-- scale: begin -->"
END: Final = "<!-- scale: end -->"
STEPS: Final = 10_000
"""About so many are executed for a point."""
IDLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement. `cpu_ms` a step, or a second of rest, by who used them."""

    axis: str
    size: int
    cpu_ms: Mapping[str, float]

    @property
    def total(self) -> float:
        """Of all together."""
        return sum(self.cpu_ms.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    widths: Sequence[int]
    lengths: Sequence[int]
    recorded: Sequence[int]
    workflows: Sequence[int]
    workers: Sequence[int]
    steps: int
    idle_seconds: float


WHOLE: Final = Plan(
    widths=(10, 100, 1_000, 10_000, 30_000),
    lengths=(10, 100, 1_000),
    recorded=(0, 20_000, 1_000_000),
    workflows=(1, 10, 100, 500),
    workers=(1, 8, 40),
    steps=STEPS,
    idle_seconds=IDLE_SECONDS,
)
QUICK: Final = Plan((10, 1_000), (10, 100), (0, 20_000), (1, 50), (1, 4), 1_000, 5.0)


def _fan(width: int, steps: int) -> Work:
    return Work(f"fan of {width}", "", Shape.FAN, width, max(1, steps // width), False, (Metric.SECONDS,))


def _chain(length: int, steps: int) -> Work:
    return Work(
        f"chain of {length}", "", Shape.CHAIN, length, max(1, steps // length), False, (Metric.SECONDS,)
    )


def _cost(axis: str, size: int, work: Work, installation: Installation) -> Point:
    sample = installation.sample(work)
    return Point(axis, size, {name: 1000 * used / work.steps for name, used in sample.cpu_seconds.items()})


def _register(installation: Installation, count: int) -> None:
    """Other workflows with a queue each, for one worker that then never asks."""
    schemas = [graph(f"other-{number}", {"a": []}, outputs=["a"]) for number in range(count)]
    for start in range(0, count, 50):
        installation.broker.register_worker(schemas[start : start + 50])


def _idle(installation: Installation, workers: int, seconds: float) -> Point:
    """What is used where nothing is asked for; the first seconds after the start do not count."""
    time.sleep(5.0)
    before = installation.read_cpu()
    time.sleep(seconds)
    after = installation.read_cpu()
    used = {name: 1000 * (after[name] - before[name]) / seconds for name in before if name != "dispatcher"}
    return Point("workers at rest", workers, used)


def measure(plan: Plan, where: Places, folder: Path) -> Iterator[Point]:
    """All points of a plan, one after the other."""
    system, setting = Fuseline(), Setting(folder)
    w1 = WORKS["W1"].of_size(min(1.0, plan.steps / WORKS["W1"].steps))

    @contextmanager
    def started(work: Work, runs: int = 0, workers: int = 2, coordinators: int = 1) -> Iterator[Installation]:
        with where() as place:
            assert isinstance(place, Place)
            if runs:
                fill(place.database_url, runs)
            one = Setting(folder, workers, setting.concurrency)
            with system.started(work, place, one, coordinators) as installation:
                yield installation

    for width in plan.widths:
        work = _fan(width, plan.steps)
        with started(work) as installation:
            yield _cost("steps side by side in a run", width, work, installation)
    for length in plan.lengths:
        work = _chain(length, plan.steps)
        with started(work) as installation:
            yield _cost("steps one after the other in a run", length, work, installation)
    for runs in plan.recorded:
        with started(w1, runs) as installation:
            yield _cost("runs in the database", runs, w1, installation)
    for count in plan.workflows:
        with started(w1) as installation:
            _register(installation, count - 1)
            yield _cost("workflows (queues)", count, w1, installation)
    for coordinators in (1, 2):
        with started(w1, coordinators=coordinators) as installation:
            yield _cost("coordinators", coordinators, w1, installation)
    for workers in plan.workers:
        with started(w1, workers=workers) as installation:
            yield _idle(installation, workers, plan.idle_seconds)


def shown(points: Sequence[Point], command: str) -> str:
    """The part of the page: a table for each axis."""
    about = machine()
    parts = [f"Made by `{command}` on {about['cpus']} CPUs, {about['system']}, Python {about['python']}."]
    for axis in dict.fromkeys(one.axis for one in points):
        found = [one for one in points if one.axis == axis]
        who = list(found[0].cpu_ms)
        unit = "a second" if axis == "workers at rest" else "a step"
        rows = [
            [
                f"{one.size:,}",
                *(f"{one.cpu_ms[name]:.3f}" for name in who),
                f"{one.total:.3f}",
                f"{one.total / found[0].total:.2f}" if found[0].total else "",
            ]
            for one in found
        ]
        parts += [
            f"### {axis.capitalize()}",
            f"CPU milliseconds {unit}.",
            table([axis, *who, "all", "ratio"], rows),
        ]
    return "\n\n".join(parts)


def write(page: Path, text: str) -> None:
    """Put it between its marks in a page that has them."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few small points")
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--page", type=Path, help="a Markdown page that has the marks")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    points = []
    with places(None, None) as where:
        for point in measure(QUICK if given.quick else WHOLE, where, given.folder):
            points.append(point)
            print(f"{point.axis}: {point.size:,}: {point.total:.3f} ms", file=sys.stderr, flush=True)
    (given.folder / "scaling.json").write_text(json.dumps([asdict(one) for one in points], indent=1) + "\n")
    text = shown(points, "make scale" if not given.quick else "python -m tests.bench.scaling --quick")
    if given.page is not None:
        write(given.page, text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a step costs altogether, to plan an installation with: CPU, messages, statements, bytes to disk and over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fuseline.bench.cpu import difference
from fuseline.bench.driving import Driver
from fuseline.bench.systems import FUSION_HOPS, Fuseline, Setting
from fuseline.bench.works import WORKS, Metric, Shape, Work
from tests.bench.scale.axes import FOLLOW_SECONDS, READY_SECONDS, Stage, per_step
from tests.bench.scale.found import Price
from tests.bench.scale.meters import Meters, Watch, kinds

CHAIN: Final = "chain"
FUSED: Final = "chain, fused"
FAN: Final = "fan"
SINGLE: Final = "single"
LARGE: Final = "large"
ALONE: Final = "alone"

_SECONDS: Final = (Metric.SECONDS,)
_WORKS: Final[dict[str, tuple[Work, int]]] = {
    CHAIN: (Work("chain", "chains of 10 steps", Shape.CHAIN, 10, 1_000, False, _SECONDS), 0),
    FUSED: (Work("chain", "the same, steps fused", Shape.CHAIN, 10, 1_000, False, _SECONDS), FUSION_HOPS),
    FAN: (Work("fan", "1 step, 1,000 parallel ones, a join", Shape.FAN, 1_000, 10, False, _SECONDS), 0),
    SINGLE: (Work("single", "runs of one step", Shape.CHAIN, 1, 10_000, False, _SECONDS), 0),
    LARGE: (WORKS["W5"], 0),
    ALONE: (WORKS["W2"], 0),
}
"""By the name of its price: a work, and hops that are fused."""
_TITLES: Final = {LARGE: "random graphs, results of 10 KB", ALONE: "one chain of 20 steps alone"}


def prices(stage: Stage) -> Iterator[Price]:
    """Each on a system of its own."""
    with stage.where() as place:
        for name, (whole, hops) in _WORKS.items():
            work = whole.of_size(stage.plan.works_scale)
            setting = Setting(stage.folder, ready_seconds=READY_SECONDS)
            with Fuseline(hops).started(work, place, setting) as installation:
                driver = Driver(
                    installation.broker,
                    installation.storage,
                    check=installation.check,
                    follow_seconds=FOLLOW_SECONDS,
                )
                driver.do(work.warm_up())
                meters = Meters(place, installation)
                reductions, octets = meters.reductions(), meters.octets()
                watch, written = Watch(installation), meters.written()
                sample = installation.sample_of(work, driver)
                memory, wrote = watch.memory(), difference(written, meters.written())
                carried = difference(octets, meters.octets())
                yield Price(
                    name,
                    _TITLES.get(name, work.title),
                    work.steps,
                    work.runs,
                    work.steps / sample.timing.seconds,
                    per_step(sample.cpu_seconds, work, 1000),
                    per_step(sample.counts, work),
                    per_step({**carried, **wrote}, work),
                    kinds(reductions, meters.reductions()),
                    memory,
                )

"""What must be reached, and whether it is: ratios to the floor of the same run, and a few figures by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fuseline.bench.results import Result
from fuseline.bench.works import Metric


class Verdict(StrEnum):
    """How it stands."""

    REACHED = "reached"
    MISSED = "not reached"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """`system` must do at least, or at most, `bound` at `work`: times the floor's figure, or by itself."""

    work: str
    metric: Metric
    bound: float
    at_least: bool
    system: str = "fuseline"
    fusion: bool = False
    of_floor: bool = True

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.bound:g} x floor" if self.of_floor else f"{sign} {self.bound:,g}"


BARS: Final[list[Bar]] = [
    Bar("W1", Metric.STEPS_PER_S, 0.6, True),
    Bar("W1", Metric.STEPS_PER_S, 1.1, True, fusion=True),
    Bar("W2", Metric.P50_MS_A_HOP, 1.1, False),
    Bar("W2", Metric.P50_MS_A_HOP, 0.6, False, fusion=True),
    Bar("W3-1000", Metric.SECONDS, 1.75, False),
    Bar("W3-10000", Metric.SECONDS, 1.5, False),
    Bar("W4", Metric.STEPS_PER_S, 0.4, True),
    Bar("W1", Metric.STEPS_PER_S, 10_000, True, "fuseline-embedded", of_floor=False),
    Bar("W2", Metric.P50_MS_A_HOP, 0.5, False, "fuseline-embedded", of_floor=False),
    Bar("W1", Metric.STEPS_PER_S, 20_000, True, "fuseline-local", of_floor=False),
]


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar with what was found. `ratio`: to the floor, None for a bar without it."""

    bar: Bar
    verdict: Verdict
    floor: float | None = None
    found: float | None = None

    @property
    def ratio(self) -> float | None:
        """Of what was found to the floor."""
        if not self.bar.of_floor or self.floor is None or self.found is None:
            return None
        return self.found / self.floor


def judge(results: Sequence[Result]) -> list[Judged]:
    """Each bar, by the medians."""
    medians = {(one.system, one.fusion, one.work, one.metric): one.median for one in results}
    judged = []
    for bar in BARS:
        found = medians.get((bar.system, bar.fusion, bar.work, bar.metric))
        floor = medians.get(("floor", False, bar.work, bar.metric))
        against = floor if bar.of_floor else 1.0
        if found is None or against is None:
            judged.append(Judged(bar, Verdict.UNKNOWN, floor, found))
            continue
        bound = bar.bound * against
        reached = found >= bound if bar.at_least else found <= bound
        judged.append(Judged(bar, Verdict.REACHED if reached else Verdict.MISSED, floor, found))
    return judged

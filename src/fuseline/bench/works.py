"""The works: what is measured, how much of it, and what figure is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from fuseline.bench.failing import BenchRefusedError
from fuseline.bench.graphs import Graph, RandomGraph, chain, fan

PAYLOAD: Final[dict[str, Any]] = {
    "order": "9f2d3c0a4b5e4f7c8d1e2a3b4c5d6e7f",
    "customer": {"id": 48213, "name": "somebody with a name", "tags": ["new", "north"]},
    "amount": 129.95,
    "note": "n" * 60,
}
"""About 200 bytes of JSON: what a run begins with, and what its steps hand on."""

RESULT_BYTES: Final = 10_000
RANDOM_GRAPHS: Final = 10
RANDOM_STEPS: Final = 50


class Shape(StrEnum):
    """What the steps of a run look like."""

    CHAIN = "chain"
    FAN = "fan"
    RANDOM = "random"


class Metric(StrEnum):
    """The figures."""

    STEPS_PER_S = "steps_per_s"
    P50_MS_A_HOP = "p50_ms_a_hop"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Work:
    """`runs` runs of a shape of `size` (length or width).

    `serial`: one after the other, on an idle system; else all are dispatched as fast as can be. `flows`: of so many
    workflows, in turn; chains alone may be of several.
    """

    name: str
    title: str
    shape: Shape
    size: int
    runs: int
    serial: bool
    metrics: tuple[Metric, ...]
    flows: int = 1

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made, after a journey as JSON."""
        shape, metrics = Shape(told["shape"]), tuple(Metric(one) for one in told["metrics"])
        return cls(**{**told, "shape": shape, "metrics": metrics})

    def graph(self, run: int) -> Graph:
        """What is executed in run number `run`."""
        if self.shape is Shape.CHAIN:
            return chain(self.size)
        if self.shape is Shape.FAN:
            return fan(self.size)
        return self.random_graph(run).taken

    def random_graph(self, run: int) -> RandomGraph:
        """The random graph of run number `run`: there are a few, in turn."""
        return RandomGraph(self.size, run % RANDOM_GRAPHS)

    @property
    def steps(self) -> int:
        """Steps that are executed in all of its runs; attempts that fail are not counted."""
        if self.shape is not Shape.RANDOM:
            return self.runs * len(self.graph(0))
        lengths = [len(self.random_graph(number).taken) for number in range(RANDOM_GRAPHS)]
        return sum(lengths[run % RANDOM_GRAPHS] for run in range(self.runs))

    def of_size(self, scale: float) -> Work:
        """A smaller one, for a quick look: fewer runs, of a fan narrower ones."""
        if self.shape is Shape.FAN:
            return replace(self, size=max(2, round(self.size * scale)))
        return replace(self, runs=max(2, round(self.runs * scale)))

    def warm_up(self) -> Work:
        """What is done once before it is measured, so that nobody is measured while he imports or plans."""
        if self.shape is Shape.FAN:
            return self
        return replace(self, runs=min(self.runs, 20 if not self.serial else 2), serial=False)


WORKS: Final[dict[str, Work]] = {
    work.name: work
    for work in [
        Work(
            "W1",
            "500 runs of a chain of 10 steps",
            Shape.CHAIN,
            10,
            500,
            False,
            (Metric.STEPS_PER_S, Metric.SECONDS),
        ),
        Work("W2", "one chain of 20 steps at a time", Shape.CHAIN, 20, 20, True, (Metric.P50_MS_A_HOP,)),
        Work("W3-1000", "1 step, 1,000 parallel ones, 1 join", Shape.FAN, 1_000, 1, True, (Metric.SECONDS,)),
        Work(
            "W3-10000", "1 step, 10,000 parallel ones, 1 join", Shape.FAN, 10_000, 1, True, (Metric.SECONDS,)
        ),
        Work(
            "W4",
            "10,000 runs of one step, dispatch included",
            Shape.CHAIN,
            1,
            10_000,
            False,
            (Metric.STEPS_PER_S, Metric.SECONDS),
        ),
        Work(
            "W5",
            "200 runs of random graphs of 50 steps: 10 KB results, branches, joins, 5 % retries",
            Shape.RANDOM,
            RANDOM_STEPS,
            200,
            False,
            (Metric.STEPS_PER_S, Metric.SECONDS),
        ),
    ]
}


def chosen(names: Sequence[str], scale: float) -> list[Work]:
    """The works by name (all without names), made smaller by `scale`. Raises `BenchRefusedError` for a strange name."""
    strange = [name for name in names if name not in WORKS]
    if strange:
        raise BenchRefusedError(f"there is no work {strange[0]!r}: {', '.join(WORKS)}")
    if not 0 < scale <= 1:
        raise BenchRefusedError(f"scale {scale:g}: over 0 and up to 1")
    wanted = [work for name, work in WORKS.items() if not names or name in names]
    return [work if scale == 1 else work.of_size(scale) for work in wanted]

"""What was found, as JSON that pages can be made of anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from fuseline.bench.results import machine, rounded
from tests.bench.scale.plan import Section


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes (10^6 bytes) of a coordinator: before the work, at most, afterwards."""

    before: float
    peak: float
    after: float


@dataclass(frozen=True, slots=True)
class Point:
    """One size of a section. `cpu_ms` a step (at rest: a second), by who used them.

    `counts` are a step's (at rest: a second's). `steps_per_s` with its least and greatest, where it is the figure.
    """

    section: str
    size: int
    cpu_ms: dict[str, float]
    memory: Memory
    counts: dict[str, float] = field(default_factory=dict)
    steps_per_s: tuple[float, float, float] | None = None

    @property
    def total(self) -> float:
        """CPU of all together."""
        return sum(self.cpu_ms.values())


@dataclass(frozen=True, slots=True)
class Price:
    """What a step of one work costs, all of it by step.

    `written`: bytes, by where they went. `erlang`: the part of RabbitMQ's work that each kind of its processes had.
    """

    work: str
    title: str
    steps: int
    runs: int
    steps_per_s: float
    cpu_ms: dict[str, float]
    counts: dict[str, float]
    written: dict[str, float]
    erlang: dict[str, float]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Statement:
    """The least time that PostgreSQL took for a statement, and blocks of 8 KiB touched, by runs in the database."""

    name: str
    runs: int
    ms: float
    blocks: int
    complaints: list[str]


@dataclass(frozen=True, slots=True)
class Purge:
    """How fast old runs of `rows` rows each are deleted from a database with so many."""

    runs: int
    rows: int
    runs_per_s: float


@dataclass
class Found:
    """Everything. `start` by what was started: `wall_ms`, `cpu_ms`, and sizes."""

    machine: dict[str, Any] = field(default_factory=machine)
    points: list[Point] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    start: dict[str, dict[str, float]] = field(default_factory=dict)
    purges: list[Purge] = field(default_factory=list)

    def of(self, section: Section) -> list[Point]:
        """The points of a section, as they came."""
        return [one for one in self.points if one.section == section.short]

    def forget(self, sections: Sequence[Section]) -> None:
        """Make room for these to be measured anew."""
        again = {one.short for one in sections}
        self.points = [one for one in self.points if one.section not in again]
        if Section.WORKS in sections:
            self.prices = []
        if Section.RECORDED in sections:
            self.statements, self.purges = [], []
        if Section.START in sections:
            self.start = {}

    def price(self, work: str) -> Price | None:
        """What a step of this work costs, if that was measured."""
        return next((one for one in self.prices if one.work == work), None)

    def save(self, file: Path) -> None:
        """As JSON."""
        file.write_text(json.dumps(rounded(asdict(self)), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Self:
        """What `save` wrote; nothing where there is no such file."""
        if not file.exists():
            return cls()
        told = json.loads(file.read_text())
        return cls(
            told["machine"],
            [_point(one) for one in told["points"]],
            [Price(**{**one, "memory": Memory(**one["memory"])}) for one in told["prices"]],
            [Statement(**one) for one in told["statements"]],
            told["start"],
            [Purge(**one) for one in told["purges"]],
        )


def _point(told: dict[str, Any]) -> Point:
    rate = told["steps_per_s"]
    return Point(
        **{
            **told,
            "memory": Memory(**told["memory"]),
            "steps_per_s": None if rate is None else tuple(rate),
        }
    )

"""How much is measured, and in which sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Section(StrEnum):
    """What can be measured by itself: `--only`. The value is what a table of it says, and what its sizes count."""

    WIDTH = "steps side by side in a run"
    LENGTH = "steps one after the other in a run"
    RECORDED = "runs in the database"
    REGISTERED = "workflows (queues) that are there, one of them in use"
    USED = "workflows (queues) in use"
    FLOOR = "queues of the floor in use"
    REPEATED = "runs that one coordinator has done"
    COORDINATORS = "coordinators"
    REST = "workers at rest"
    WORKS = "what a step costs"
    START = "starting"

    @property
    def short(self) -> str:
        """What one asks for it by."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps`: about so many are executed for a point. `rounds`: of one and two coordinators, in turn."""

    widths: Sequence[int]
    lengths: Sequence[int]
    recorded: Sequence[int]
    registered: Sequence[int]
    used: Sequence[int]
    repeated: Sequence[int]
    rounds: int
    resting: Sequence[int]
    crowd: int
    steps: int
    works_scale: float
    rest_seconds: float
    starts: int


WHOLE: Final = Plan(
    widths=(10, 100, 1_000, 10_000, 100_000),
    lengths=(10, 100, 1_000),
    recorded=(1, 20_000, 1_000_000),
    registered=(1, 500),
    used=(1, 10, 100, 500),
    repeated=(10_000, 20_000, 30_000, 40_000, 50_000),
    rounds=5,
    resting=(1, 50, 500),
    crowd=125,
    steps=10_000,
    works_scale=1.0,
    rest_seconds=60.0,
    starts=15,
)
QUICK: Final = Plan(
    widths=(10, 1_000),
    lengths=(10, 100),
    recorded=(1, 20_000),
    registered=(1, 20),
    used=(1, 20),
    repeated=(500, 1_000),
    rounds=1,
    resting=(1, 20),
    crowd=10,
    steps=1_000,
    works_scale=0.1,
    rest_seconds=5.0,
    starts=3,
)
CALLS: Final = 500
"""Dispatches of the works of several workflows, whatever their number: what a call costs is not what is asked."""

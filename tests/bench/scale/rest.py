"""What a system uses when nobody asks for anything (P8)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from fuseline.bench.cpu import difference
from fuseline.bench.systems import Fuseline, Installation, Setting
from tests.bench.scale.axes import READY_SECONDS, Stage
from tests.bench.scale.found import Point
from tests.bench.scale.meters import Watch
from tests.bench.scale.plan import Section

SETTLE_SECONDS: Final = 15.0
"""The end of starting is no rest: queues settle, and what was said of many workers is written."""


def crowds(workers: int, most: int) -> list[int]:
    """So many workers in processes of `most` each at most."""
    return [most] * (workers // most) + ([workers % most] if workers % most else [])


def rest(stage: Stage) -> Iterator[Point]:
    """A coordinator with more and more workers, each with its own connections, consumers and heartbeats."""
    with stage.where() as place:
        for workers in stage.plan.resting:
            setting = Setting(stage.folder, 0, ready_seconds=READY_SECONDS)
            groups = crowds(workers, stage.plan.crowd)
            with Fuseline().started(stage.chains, place, setting, crowds=groups) as installation:
                yield _rest(installation, workers, stage.plan.rest_seconds)


def _rest(installation: Installation, workers: int, seconds: float) -> Point:
    time.sleep(min(SETTLE_SECONDS, 3 * seconds))
    watch = Watch(installation)
    counts = installation.read_counts()
    before = installation.read_cpu()
    time.sleep(seconds)
    used = difference(before, installation.read_cpu())
    done = difference(counts, installation.read_counts())
    installation.check()
    used.pop("dispatcher")  # that is this process, which sleeps
    return Point(
        Section.REST.short,
        workers,
        {name: 1000 * value / seconds for name, value in used.items()},
        watch.memory(),
        {name: value / seconds for name, value in done.items()},
    )

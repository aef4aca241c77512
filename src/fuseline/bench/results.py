"""What comes of the samples: medians, for programs (`results.json`, `details.json`) and for pages."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuseline.bench.rounds import Measured
from fuseline.bench.samples import Sample
from fuseline.bench.works import Metric


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: its median over the rounds, and how far they were apart."""

    system: str
    work: str
    fusion: bool
    metric: Metric
    median: float
    min: float
    max: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step costs one system at one work: medians over the rounds, by who used it or what was counted."""

    system: str
    work: str
    fusion: bool
    cpu_ms_per_step: dict[str, float]
    counts_per_step: dict[str, float]


def results_of(measured: Iterable[Measured]) -> list[Result]:
    """All figures."""
    found = []
    for one in measured:
        for metric in one.work.metrics:
            values = [sample.figure(one.work, metric) for sample in one.samples]
            found.append(
                Result(
                    one.system,
                    one.work.name,
                    one.fusion,
                    metric,
                    statistics.median(values),
                    min(values),
                    max(values),
                    len(values),
                )
            )
    return found


def costs_of(measured: Iterable[Measured]) -> list[Cost]:
    """What each system used."""
    return [
        Cost(
            one.system,
            one.work.name,
            one.fusion,
            _medians([sample.cpu_seconds for sample in one.samples], 1000 / one.work.steps),
            _medians([sample.counts for sample in one.samples], 1 / one.work.steps),
        )
        for one in measured
    ]


def _medians(values: Sequence[Any], factor: float) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in values) * factor for name in values[0]}


def write(folder: Path, measured: Sequence[Measured], scale: float) -> None:
    """`results.json` with the figures, `details.json` with every sample, its costs and the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "results.json", [rounded(asdict(one)) for one in results_of(measured)])
    details = {
        "scale": scale,
        "machine": machine(),
        "costs": [rounded(asdict(one)) for one in costs_of(measured)],
        "samples": [_detail(one, sample) for one in measured for sample in one.samples],
    }
    _write(folder / "details.json", details)


def _detail(one: Measured, sample: Sample) -> dict[str, Any]:
    told = {"system": one.system, "work": one.work.name, "fusion": one.fusion, "steps": one.work.steps}
    made: dict[str, Any] = rounded({**told, **asdict(sample)})
    return made


def _write(file: Path, what: Any) -> None:
    file.write_text(json.dumps(what, indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Numbers to six digits after the point, in lists and dicts too."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value


def machine() -> dict[str, Any]:
    """What it ran on, as far as it says something about speed."""
    return {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }

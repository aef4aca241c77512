"""How a benchmark waits for what it has dispatched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fuseline.bench import driving
from fuseline.bench.driving import Driver
from fuseline.bench.works import WORKS
from fuseline.model import RunStatus


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class System:
    """Each run takes `seconds`; `looks` are those at runs that are not over."""

    def __init__(self, time: Time, seconds: float) -> None:
        self._time = time
        self._seconds = seconds
        self._ends: dict[str, float] = {}
        self.looks: list[int] = []

    def dispatch_workflow(self, *_given: Any) -> str:
        self.looks.append(0)
        instance_id = f"{len(self._ends):04}"
        self._ends[instance_id] = self._time.now + self._seconds
        return instance_id

    def read_run_row(self, instance_id: str) -> Any:
        is_over = self._time.now >= self._ends[instance_id]
        self.looks[-1] += not is_over
        return SimpleNamespace(status=RunStatus.SUCCEEDED if is_over else RunStatus.RUNNING)

    def list_runs(self, limit: int, before: str) -> list[Any]:
        ended = sorted((i for i in self._ends if i < before), reverse=True)[:limit]
        return [
            SimpleNamespace(instance_id=i, status=RunStatus.SUCCEEDED, finished_at=self._ends[i])
            for i in ended
        ]


@pytest.mark.parametrize("seconds", [0.01, 0.08, 0.7])
def test_of_one_run_after_the_other_none_but_the_first_is_looked_at_before_it_is_over(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A look is in its way: what is measured is a hop of a system that does nothing else."""
    time = Time()
    monkeypatch.setattr(driving, "time", time)
    system: Any = System(time, seconds)
    timing = Driver(system, system).do(WORKS["W2"])
    assert timing.run_seconds == pytest.approx([seconds] * 20)
    assert system.looks[1:] == [0] * 19

"""What one measurement of one system found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from fuseline.bench.works import Metric, Work


@dataclass(frozen=True, slots=True)
class Timing:
    """`seconds` from the first dispatch to the end of the last run (of serial work: the sum over the runs).

    `dispatch_seconds` of those until all were dispatched; `run_seconds` of each run, of serial work alone.
    """

    seconds: float
    dispatch_seconds: float | None = None
    run_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """A timing, and what it cost: CPU seconds by who used them, and counts by what was counted, for the whole work.

    Counts: `messages` published, `frames` of AMQP, `acks`, `sql_statements` and `sql_commits`. What cannot be counted
    (a server on another machine, say) is missing.
    """

    timing: Timing
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def figure(self, work: Work, metric: Metric) -> float:
        """The figure that is wanted of it."""
        if metric is Metric.SECONDS:
            return self.timing.seconds
        if metric is Metric.STEPS_PER_S:
            return work.steps / self.timing.seconds
        return statistics.median(self.timing.run_seconds) * 1000 / work.size

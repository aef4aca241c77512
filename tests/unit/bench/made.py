"""Measurements that nobody made."""

from __future__ import annotations

from fuseline.bench.rounds import Measured
from fuseline.bench.samples import Sample, Timing
from fuseline.bench.works import WORKS


def measured(system: str, work: str, *seconds: float, fusion: bool = False) -> Measured:
    """One sample for each time that the work took; of W2, for each time of its runs."""
    samples = [
        Sample(Timing(one, None, (one,) * 3), {"coordinator": one / 2}, {"messages": 2 * WORKS[work].steps})
        for one in seconds
    ]
    return Measured(system, WORKS[work], fusion, samples)

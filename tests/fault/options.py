"""What one run of the harness is asked for, and the times that the system under fire is set to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Topology = Literal["single", "cluster"]

LEASE_SECONDS: Final = 6.0
MAX_LOSSES: Final = 12
SETTINGS: Final = {
    "FUSELINE_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "FUSELINE_HEARTBEAT_SECONDS": "1",
    "FUSELINE_CLAIM_AFTER_SECONDS": "1",
    "FUSELINE_SWEEP_SECONDS": "8",
    "FUSELINE_CALL_SECONDS": "8",
    "FUSELINE_DRAIN_SECONDS": "3",
    "FUSELINE_MAX_LOSSES": str(MAX_LOSSES),
}
"""Short, so that a recovery fits between two faults. The rules are those of long ones."""


@dataclass(frozen=True, slots=True)
class Options:
    """One world's run. `faults`: stop after so many, however long it has been. `folder` takes all artefacts."""

    seed: int
    seconds: float
    topology: Topology
    folder: Path
    faults: int | None = None
    faults_per_minute: float = 10.0
    runs_per_second: float = 2.0
    within_seconds: float = 120.0
    """T: how long after the last fault every acknowledged run has to have ended."""
    warm_seconds: float = 8.0
    fusion_hops: int = 0
    """Step fusion in the workers: so many steps in a row; 0 is off."""
    is_quick: bool = False
    """Only faults that take little time; for `make test`."""
    is_watched: bool = True
    """With the database's trigger and the harness's queues. Not in a soak, where they would fill the disk."""

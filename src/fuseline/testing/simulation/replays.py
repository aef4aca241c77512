"""An operator who replays dead letters now and then, and what a replay allows in a history."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.status import RunStatus
from fuseline.testing.simulation.parties import SimClient
from fuseline.testing.simulation.room import Room
from fuseline.testing.simulation.world import START

SHARE_OF_SEEDS: Final = 0.2
MAX_LOOKS: Final = 4


def plan_replays(room: Room, seed: int) -> None:
    """In a part of the seeds: looks for dead letters at some times, and replays the latest.

    Drawn apart from everything else, so that the other seeds are what they would be without an operator.
    """
    random = Random(f"{seed}/operator")
    if random.random() >= SHARE_OF_SEEDS:
        return
    for _ in range(random.randint(1, MAX_LOOKS)):
        at = START + room.horizon_seconds * random.uniform(0.2, 2.0)
        room.world.at(at, room.on_client, SimClient.replay_latest)


def is_replay(old: RunRow | None, new: RunRow) -> bool:
    """Whether a run goes on that has failed, and counts it."""
    return (
        old is not None
        and old.status is RunStatus.FAILED
        and new.status is RunStatus.RUNNING
        and new.replays == old.replays + 1
    )


def standing(rows: Mapping[str, StepRow]) -> dict[str, StepRow]:
    """The rows of a run without those that a replay has put back to before they were decided on."""
    return {name: row for name, row in rows.items() if not row.is_reset}

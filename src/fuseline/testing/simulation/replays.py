"""An operator who replays dead letters now and then, and what a replay allows in a history."""

from __future__ import annotations

from collections.abc import Container, Mapping
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


def is_replay(old: RunRow | None, new: RunRow, to_cancel: Container[str]) -> bool:
    """Whether a run goes on that has failed, and counts it; in `to_cancel` are the runs that somebody wants to end."""
    if old is None or old.status is not RunStatus.FAILED or new.replays != old.replays + 1:
        return False
    # Commands that came together share a transaction, and rows say only how it ended. Reports and timers have their own.
    was_cancelled = new.status is RunStatus.CANCELLED and new.instance_id in to_cancel
    return new.status is RunStatus.RUNNING or was_cancelled


def standing(rows: Mapping[str, StepRow]) -> dict[str, StepRow]:
    """The rows of a run without those that a replay has put back to before they were decided on."""
    return {name: row for name, row in rows.items() if not row.is_reset}

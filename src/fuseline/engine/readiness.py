"""When a step starts, by its trigger and what has arrived. The whole meaning of joins is these two functions."""

from __future__ import annotations

from enum import Enum

from fuseline.model.status import Trigger


class EdgeState(Enum):
    """What an edge turned out to be."""

    LIVE = "live"  # the source succeeded (or its own condition skipped it) and took this edge
    DEAD = "dead"  # the source finished without taking it, or was never reached
    FAILED = "failed"  # the source failed or was cancelled


class Fate(Enum):
    """What becomes of a step whose requirements say enough."""

    READY = "ready"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


def fate(trigger: Trigger, unresolved: int, met: int, failed: int) -> Fate | None:
    """Decide on a step with so many requirements unresolved, met and failed (the others are dead); None: wait."""
    if trigger is Trigger.ALL_SUCCESS:
        if failed:
            return Fate.CANCELLED
        if unresolved:
            return None
        return Fate.READY if met else Fate.SKIPPED
    if trigger is Trigger.ALL_DONE:
        if unresolved:
            return None
        return Fate.READY if met or failed else Fate.SKIPPED
    if trigger is Trigger.ONE_SUCCESS:
        if met:
            return Fate.READY
        if unresolved:
            return None
        return Fate.CANCELLED if failed else Fate.SKIPPED
    if failed:  # ONE_FAILED
        return Fate.READY
    return None if unresolved else Fate.SKIPPED


def group_state(edge: EdgeState, open_edges: int, failed_edges: int) -> EdgeState | None:
    """An OR group after one more of its edges: met by its first live one, else failed or dead when none is left."""
    if edge is EdgeState.LIVE:
        return EdgeState.LIVE
    if open_edges:
        return None
    return EdgeState.FAILED if failed_edges else EdgeState.DEAD

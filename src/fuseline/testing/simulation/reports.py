"""Which reports may have ended an attempt, and whether one of them did."""

from __future__ import annotations

from collections.abc import Container

from fuseline.engine.state import StepRow
from fuseline.model.status import Status
from fuseline.testing.simulation.workload import SCRIPTED

Attempt = tuple[str, str, int]
REPORTS = ("report", "fused")
"""What the id of a report ends in."""


def that_end(attempt: Attempt, reports_queue: str) -> list[tuple[str, str]]:
    """(queue, message id) of what may end an attempt: its reports, and its own message when that dies."""
    name = "/".join(map(str, attempt))
    dead = f"{reports_queue.removesuffix('.reports')}.dead", name
    return [dead, *((reports_queue, f"{name}/{what}") for what in REPORTS)]


def has_ended(row: StepRow, attempt: Attempt, ended: Container[tuple[str | None, Attempt, Status]]) -> bool:
    """Whether a report of its holder ended the attempt as it is recorded. `ended`: (worker, attempt, how its body ended).

    A timer leaves the holder in the row, and he may say later that it failed, as the timer did: only the recorded error
    tells whose word it was. A failure policy records what failed as skipped.
    """
    if row.status is Status.SKIPPED and (row.holder, attempt, Status.FAILED) in ended:
        return True
    if row.status is Status.FAILED and (row.error is None or row.error.type != SCRIPTED):
        return False
    return (row.holder, attempt, row.status) in ended

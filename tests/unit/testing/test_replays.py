"""The simulation's judge of replays (P3): a run that has ended goes on by them alone."""

from __future__ import annotations

import pytest

from fuseline.engine.state import RunRow
from fuseline.model.status import RunStatus
from fuseline.testing.simulation.dispatches import Dispatches
from fuseline.testing.simulation.replays import is_replay

RUNNING, FAILED, CANCELLED = RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED
SUCCEEDED = RunStatus.SUCCEEDED


def run(status: RunStatus, replays: int) -> RunRow:
    return RunRow("r", "w", "1", status, 0.0, replays=replays)


@pytest.mark.parametrize("new", [RUNNING, CANCELLED])
def test_a_failed_run_goes_on_and_may_be_cancelled_in_the_same_transaction(new: RunStatus) -> None:
    assert is_replay(run(FAILED, 0), run(new, 1), {"r"})
    assert is_replay(run(FAILED, 1), run(new, 2), {"r"})


def test_a_run_that_is_replayed_ends_at_once_only_if_somebody_wants_it_to() -> None:
    asked = Dispatches()
    asked.queued("dispatch/r/1")
    asked.queued("cancel/another/2")
    assert is_replay(run(FAILED, 0), run(RUNNING, 1), asked.to_cancel)
    assert not is_replay(run(FAILED, 0), run(CANCELLED, 1), asked.to_cancel)
    asked.queued("cancel/r/3")
    assert is_replay(run(FAILED, 0), run(CANCELLED, 1), asked.to_cancel)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, run(RUNNING, 0)),
        (run(FAILED, 0), run(RUNNING, 0)),
        (run(FAILED, 0), run(CANCELLED, 0)),
        (run(FAILED, 0), run(CANCELLED, 2)),
        (run(FAILED, 0), run(FAILED, 1)),
        (run(FAILED, 0), run(SUCCEEDED, 1)),
        (run(CANCELLED, 0), run(RUNNING, 1)),
        (run(CANCELLED, 0), run(CANCELLED, 1)),
        (run(SUCCEEDED, 0), run(CANCELLED, 1)),
        (run(RUNNING, 0), run(CANCELLED, 1)),
    ],
)
def test_everything_else_is_none(old: RunRow | None, new: RunRow) -> None:
    assert not is_replay(old, new, {"r"})

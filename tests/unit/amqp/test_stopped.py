"""Which assignments a stop notice is about, also later."""

from __future__ import annotations

import tracemalloc

from fuseline.amqp.stopped import StoppedRuns
from fuseline.amqp.wire import ControlKind, ControlNotice
from fuseline.model import StepAssignment


def one(run: str, step: str = "a", replays: int = 0) -> StepAssignment:
    return StepAssignment(
        workflow_id="w", instance_id=run, step_name=step, assigned_at=0, expires_at=60, replays=replays
    )


def stop(run: str, *spare: str, replays: int = 0) -> ControlNotice:
    return ControlNotice(kind=ControlKind.STOP, instance_id=run, spare=list(spare), replays=replays)


def test_a_stopped_run_is_all_but_what_is_spared() -> None:
    runs = StoppedRuns()
    runs.add(stop("i", "clean up"))
    assert one("i") in runs
    assert one("i", "clean up") not in runs
    assert one("j") not in runs
    runs.add(stop("i"))  # cancelled while it was failing
    assert one("i", "clean up") in runs


def test_notices_about_attempts_and_of_other_kinds_stop_no_run() -> None:
    runs = StoppedRuns()
    runs.add(ControlNotice(kind=ControlKind.STOP, instance_id="i", attempts=[("a", 1)]))
    runs.add(ControlNotice(kind=ControlKind.DRAIN))
    assert one("i") not in runs


def test_only_the_latest_are_remembered() -> None:
    """P6."""
    runs = StoppedRuns(remembered=2)
    for run in ("i", "j", "i", "k"):
        runs.add(stop(run))
    assert [run for run in ("i", "j", "k") if one(run) in runs] == ["i", "k"]


def test_what_was_spared_is_forgotten_with_its_run() -> None:
    """P6: a worker hears of many runs that failed."""
    runs = StoppedRuns(remembered=2)
    for run in ("i", "j", "k"):
        runs.add(stop(run, "clean up"))
    runs.add(stop("i"))
    assert one("i", "clean up") in runs
    assert one("k", "clean up") not in runs


def test_a_replayed_run_goes_on_where_it_was_stopped() -> None:
    """P1: nobody tells the worker; the assignment itself does, and what was queued before the replay stays stopped."""
    runs = StoppedRuns()
    runs.add(stop("i", "clean up"))
    assert one("i", replays=1) not in runs
    assert one("i") in runs
    runs.add(stop("i", replays=1))
    assert one("i", replays=1) in runs
    assert one("i", "clean up") in runs
    assert one("i", replays=2) not in runs


def test_a_stop_notice_that_is_late_changes_nothing() -> None:
    """P1: notices overtake each other; one of before the replay says nothing about the run as it is now."""
    runs = StoppedRuns()
    runs.add(stop("i", replays=1))
    runs.add(stop("i", "a"))
    assert one("i", replays=1) in runs
    assert one("i") in runs


def test_runs_that_spare_the_same_steps_share_them() -> None:
    """P6: each notice was decoded by itself, and what it spares took half a KB for every run that failed."""
    runs = StoppedRuns()
    tracemalloc.start()
    try:
        for number in range(5_000):
            text = stop(f"{number:032x}", "clean up", "tell the owner", "count it").model_dump_json()
            runs.add(ControlNotice.model_validate_json(text))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 5_000 < 200
    assert one(f"{4_999:032x}") in runs
    assert one(f"{4_999:032x}", "count it") not in runs


def test_many_are_forgotten_together() -> None:
    """P6."""
    runs = StoppedRuns(remembered=80)
    for number in range(500):
        runs.add(stop(str(number), "clean up"))
    assert [one(str(number)) in runs for number in range(420, 500)] == [True] * 80
    assert not any(one(str(number)) in runs for number in range(410))

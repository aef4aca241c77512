"""The machine as a table: what each event means for a step in each state, and what of it changes nothing (P3, P5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseline.engine import (
    FinishRun,
    Notice,
    NotLoaded,
    QueueStep,
    Rules,
    Snapshot,
    StepRow,
    StopSteps,
    Verdict,
    compile_plan,
    decide,
    new_run,
    wanted,
)
from fuseline.engine.events import (
    CancelRequested,
    Event,
    HolderLost,
    RunDispatched,
    RunDuePassed,
    StepClaimed,
    StepDuePassed,
    StepExpired,
    StepOvertaken,
    StepPoisoned,
    StepReleased,
    StepReported,
    StepVanished,
)
from fuseline.errors import UnknownStepError
from fuseline.model import Cause, RunStatus, Status, StepError
from tests.unit.engine.playing import Player, Store
from tests.unit.engine.small import parse, policy

RULES = Rules(lease_seconds=60.0, sweep_seconds=100.0, max_losses=3, timeout_grace_seconds=5.0)

EVENTS: dict[str, Event] = {
    "claimed": StepClaimed("a", 1, "w"),
    "reported": StepReported("a", 1, Status.SUCCEEDED),
    "expired": StepExpired("a", 1),
    "poisoned": StepPoisoned("a", 1),
    "vanished": StepVanished("a", 1),
    "overtaken": StepOvertaken("a", 1),
    "released": StepReleased("a", 1),
    "lost": HolderLost("a", 1),
    "due": StepDuePassed("a"),
}

# A word in capitals is the step's state afterwards; in small letters, the verdict on an event that changes nothing.
TABLE = """
            claimed  reported   expired  poisoned  vanished  overtaken  released  lost     due
NOT_QUEUED  unknown  unknown    unknown  unknown   unknown   unknown    unknown   unknown  unknown
PENDING     stale    stale      stale    stale     stale     stale      stale     stale    QUEUED
QUEUED      RUNNING  SUCCEEDED  FAILED   FAILED    QUEUED    QUEUED     stale     stale    QUEUED
RUNNING     RUNNING  SUCCEEDED  stale    stale     stale     stale      QUEUED    QUEUED   QUEUED
SUCCEEDED   stale    duplicate  stale    stale     stale     stale      stale     stale    stale
FAILED      stale    stale      stale    stale     stale     stale      stale     stale    stale
SKIPPED     stale    stale      stale    stale     stale     stale      stale     stale    stale
CANCELLED   stale    stale      stale    stale     stale     stale      stale     stale    stale
"""
_HEAD, *_ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(row[0], event, cell) for row in _ROWS for event, cell in zip(_HEAD, row[1:], strict=True)]


def player_in(state: str) -> Player:
    """A run of `x -> a; y` in which a is in this state, at its first attempt (at its second, while PENDING)."""
    schema = parse(
        "x -> a; y", {"a": [policy("retry", max_retries=2, wait=9.0)]} if state == "PENDING" else None
    )
    player = Player(compile_plan(schema, RULES), 0.0)
    if state == "NOT_QUEUED":
        return player
    taken = "elsewhere" if state == "SKIPPED" else None
    player.apply(StepReported("x", 1, Status.SUCCEEDED, action=taken))
    if state == "RUNNING":
        player.apply(StepClaimed("a", 1, "w"))
    elif state in ("PENDING", "FAILED"):
        player.apply(StepReported("a", 1, Status.FAILED))
    elif state == "SUCCEEDED":
        player.apply(StepReported("a", 1, Status.SUCCEEDED))
    elif state == "CANCELLED":
        player.apply(StepReported("y", 1, Status.FAILED))
    assert player.store.status("a") == state
    return player


def current(event: Event, attempt: int) -> Event:
    if isinstance(event, StepDuePassed | RunDispatched | CancelRequested | RunDuePassed):
        return event
    return replace(event, attempt=attempt)


@pytest.mark.parametrize(("state", "event", "cell"), CELLS)
def test_what_an_event_means_for_a_step_in_a_state(state: str, event: str, cell: str) -> None:
    player = player_in(state)
    row = player.store.steps.get("a")
    if event == "due" and row is not None and row.due_at is not None:
        player.now = row.due_at
    decision = player.apply(current(EVENTS[event], row.attempt if row is not None and row.attempt else 1))
    if cell.islower():
        assert decision.verdict == cell
    else:
        assert decision.verdict is Verdict.ACCEPTED
        assert player.store.status("a") == cell


@pytest.mark.parametrize("event", [name for name in _HEAD if name != "due"])
@pytest.mark.parametrize("state", ["PENDING", "QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"])
@pytest.mark.parametrize("off", [-1, 1])
def test_an_event_about_another_attempt_changes_nothing(state: str, event: str, off: int) -> None:
    player = player_in(state)
    assert player.refused(current(EVENTS[event], player.store.steps["a"].attempt + off)) is Verdict.STALE


@pytest.mark.parametrize(
    "event",
    [
        StepClaimed("a", 1, "other"),
        StepReported("a", 1, Status.SUCCEEDED, holder="other"),
        StepReleased("a", 1, "other"),
        HolderLost("a", 1, "other"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_only_the_holder_of_an_attempt_is_heard(event: Event) -> None:
    assert player_in("RUNNING").refused(event) is Verdict.STALE


@pytest.mark.parametrize("state", ["PENDING", "QUEUED", "RUNNING"])
def test_a_deadline_that_was_moved_meanwhile_has_not_passed(state: str) -> None:
    player = player_in(state)
    due_at = player.store.steps["a"].due_at
    assert due_at is not None
    player.now = due_at - 0.001
    assert player.refused(StepDuePassed("a")) is Verdict.STALE


@pytest.mark.parametrize(
    ("recorded", "again", "verdict"),
    [
        (StepReported("a", 1, Status.SUCCEEDED, holder="w"), "w", Verdict.DUPLICATE),
        (StepReported("a", 1, Status.SUCCEEDED, holder="w"), None, Verdict.DUPLICATE),
        (StepReported("a", 1, Status.SUCCEEDED), "w", Verdict.DUPLICATE),
        (StepReported("a", 1, Status.SUCCEEDED, holder="w"), "v", Verdict.STALE),
    ],
)
def test_a_report_that_comes_twice_is_a_duplicate_unless_another_worker_sends_it(
    recorded: StepReported, again: str | None, verdict: Verdict
) -> None:
    player = player_in("QUEUED")
    player.apply(recorded)
    assert player.refused(replace(recorded, holder=again)) is verdict
    other = replace(recorded, status=Status.FAILED)
    assert player.refused(other) is Verdict.STALE


# ---- events about the run


@pytest.mark.parametrize(
    ("run", "event", "verdict"),
    [
        (RunStatus.RUNNING, RunDispatched(), Verdict.DUPLICATE),
        (RunStatus.RUNNING, RunDuePassed(), Verdict.STALE),
        (RunStatus.RUNNING, CancelRequested(), Verdict.ACCEPTED),
        (RunStatus.SUCCEEDED, RunDispatched(), Verdict.DUPLICATE),
        (RunStatus.SUCCEEDED, RunDuePassed(), Verdict.STALE),
        (RunStatus.SUCCEEDED, CancelRequested(), Verdict.STALE),
        (RunStatus.FAILED, CancelRequested(), Verdict.STALE),
        (RunStatus.CANCELLED, RunDispatched(), Verdict.DUPLICATE),
        (RunStatus.CANCELLED, RunDuePassed(), Verdict.STALE),
        (RunStatus.CANCELLED, CancelRequested(), Verdict.DUPLICATE),
    ],
)
def test_what_an_event_means_for_a_run_in_a_state(run: RunStatus, event: Event, verdict: Verdict) -> None:
    player = Player(compile_plan(parse("a"), RULES), 0.0)
    if run is RunStatus.CANCELLED:
        player.apply(CancelRequested())
    elif run is not RunStatus.RUNNING:
        player.apply(StepReported("a", 1, Status(run.value)))
    assert player.store.run.status is run
    assert player.apply(event).verdict is verdict


def test_a_cancelled_run_ends_at_once_and_tells_its_workers() -> None:
    player = player_in("RUNNING")
    decision = player.apply(CancelRequested())
    assert StopSteps() in decision.effects
    assert {name: player.store.status(name) for name in "xay"} == {
        "x": Status.SUCCEEDED,
        "a": Status.CANCELLED,
        "y": Status.CANCELLED,
    }
    assert player.refused(StepReported("a", 1, Status.SUCCEEDED, holder="w")) is Verdict.STALE


def test_a_run_that_takes_too_long_ends_failed_and_says_so() -> None:
    schema = parse("a -> b", run_policies=[policy("workflow_timeout", seconds=30)])
    player = Player(compile_plan(schema, RULES), 100.0)
    player.now = 129.9
    assert player.refused(RunDuePassed()) is Verdict.STALE
    player.now = 130.0
    assert StopSteps() in player.apply(RunDuePassed()).effects
    run = player.store.run
    assert (run.status, run.finished_at, run.due_at, run.failed_step) == (RunStatus.FAILED, 130.0, None, None)
    assert run.error is not None
    assert (run.error.cause, run.error.message) == (Cause.RUN_TIMEOUT, "the run did not end within 30 s")
    assert {player.store.status(name) for name in "ab"} == {Status.CANCELLED}


def test_a_run_that_was_failing_when_its_time_was_over_keeps_the_first_error() -> None:
    schema = parse("a; b[all_done]", run_policies=[policy("workflow_timeout", seconds=30)])
    player = Player(compile_plan(schema, RULES), 0.0)
    player.apply(StepReported("a", 1, Status.FAILED, error=StepError(type="Boom")))
    player.now = 30.0
    player.apply(RunDuePassed())
    assert player.store.run.error == StepError(type="Boom")
    assert player.store.run.failed_step == "a"


# ---- a report that may not have been followed up


def test_what_a_redelivered_report_had_queued_is_offered_again_through_what_was_skipped() -> None:
    player = Player(compile_plan(parse("a -> b; a -x> c -> d[all_done] -> e; b -> d; a -> f")), 0.0)
    report = StepReported("a", 1, Status.SUCCEEDED, redelivered=True)
    player.apply(report)
    assert player.store.status("c") is Status.SKIPPED
    player.apply(StepClaimed("f", 1, "w"))
    assert player.apply(report).effects == [QueueStep("b", 1, again=True)]
    player.apply(StepReported("b", 1, Status.SUCCEEDED))
    assert player.apply(report).effects == [QueueStep("d", 1, again=True)]  # by way of c


def test_a_redelivered_report_of_a_failed_attempt_offers_the_next_one_again() -> None:
    player = Player(compile_plan(parse("a", {"a": [policy("retry", max_retries=2)]})), 0.0)
    report = StepReported("a", 1, Status.FAILED, redelivered=True)
    player.apply(report)
    assert player.apply(report).effects == [QueueStep("a", 2, again=True)]
    player.apply(StepReported("a", 2, Status.SUCCEEDED))


def test_a_redelivered_report_that_failed_the_run_offers_its_clean_up_again() -> None:
    player = Player(compile_plan(parse("a; b -> c[all_done]; d -> e[one_failed] -> c")), 0.0)
    report = StepReported("a", 1, Status.FAILED, redelivered=True)
    stop = StopSteps(frozenset({"c", "e"}))
    assert player.apply(report).effects == [QueueStep("e", 1), stop]
    assert player.apply(report).effects == [QueueStep("e", 1, again=True), stop]
    player.apply(StepClaimed("e", 1, "w"))
    assert player.apply(report).effects == [stop]


def test_a_redelivered_report_of_a_run_that_has_ended_says_again_that_it_has() -> None:
    player = Player(compile_plan(parse("a")), 0.0)
    report = StepReported("a", 1, Status.SUCCEEDED, redelivered=True)
    assert player.apply(report).effects == [FinishRun(RunStatus.SUCCEEDED)]
    assert player.apply(report).effects == [FinishRun(RunStatus.SUCCEEDED)]


def test_a_redelivered_report_of_an_attempt_whose_next_is_under_way_offers_nothing() -> None:
    player = Player(compile_plan(parse("a", {"a": [policy("retry", max_retries=2)]})), 0.0)
    report = StepReported("a", 1, Status.FAILED, redelivered=True)
    player.apply(report)
    player.apply(StepClaimed("a", 2, "w"))
    assert player.apply(report).effects == []


def test_a_cancellation_that_comes_again_tells_workers_and_waiters_again() -> None:
    player = player_in("RUNNING")
    told = [StopSteps(), FinishRun(RunStatus.CANCELLED)]
    assert player.apply(CancelRequested()).effects == told
    assert player.apply(CancelRequested()).effects == told


def test_a_dispatch_that_comes_again_offers_what_nobody_has_taken_yet() -> None:
    player = Player(compile_plan(parse("a; b; c")), 0.0)
    player.apply(StepClaimed("b", 1, "w"))
    player.apply(StepReported("c", 1, Status.SUCCEEDED))
    decision = player.apply(RunDispatched())
    assert decision.effects == [QueueStep("a", 1, again=True)]


# ---- what is read


def test_what_a_decision_reads_is_asked_for_and_nothing_is_half_done() -> None:
    plan = compile_plan(parse("a -> c; b -> c"))
    player = Player(plan, 0.0)
    event = StepReported("a", 1, Status.SUCCEEDED)
    snapshot = Snapshot(player.store.run)
    with pytest.raises(NotLoaded) as missing:
        decide(plan, snapshot, event, 0.0)
    assert missing.value.steps == ("a",)
    snapshot.steps["a"] = player.store.steps["a"]
    with pytest.raises(NotLoaded) as missing:
        decide(plan, snapshot, event, 0.0)
    assert missing.value.joins == ("c",)
    assert snapshot.steps == {"a": StepRow("a", Status.QUEUED, queued_at=0.0, due_at=120.0)}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (RunDispatched(), ([], ())),
        (StepClaimed("a", 1, "w"), (["a"], ())),
        (StepReported("a", 1, Status.SUCCEEDED), (["a"], ("c",))),
        (StepReported("nowhere", 1, Status.SUCCEEDED), (["nowhere"], ())),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_event_will_read_is_known_beforehand(
    event: Event, expected: tuple[list[str], tuple[str, ...]]
) -> None:
    assert wanted(compile_plan(parse("a -> c; b -> c; a -> d")), event) == expected


def test_a_row_of_a_step_that_the_schema_does_not_know_is_an_error_that_names_it() -> None:
    plan = compile_plan(parse("a"))
    row = StepRow("gone", Status.QUEUED, due_at=1.0)
    snapshot = Snapshot(new_run(plan, "i", 0.0), {"gone": row}, whole=True)
    with pytest.raises(UnknownStepError, match="'g' 1 has no step 'gone'"):
        decide(plan, snapshot, StepReported("gone", 1, Status.SUCCEEDED), 0.0)


def test_a_redelivered_report_finds_what_was_cancelled_meanwhile_and_offers_none_of_it() -> None:
    player = Player(compile_plan(parse("a; b -> c; b -> d; e -> d; f[all_done]")), 0.0)
    report = StepReported("b", 1, Status.SUCCEEDED, redelivered=True)
    player.apply(report)
    player.apply(StepReported("a", 1, Status.FAILED))
    assert (player.store.status("c"), player.store.status("d")) == (Status.CANCELLED, Status.CANCELLED)
    assert player.apply(report).effects == [QueueStep("f", 1, again=True), StopSteps(frozenset({"f"}))]


def test_what_is_told_of_a_run() -> None:
    schema = parse("a -> b; a -x> c", {"a": [policy("retry", max_retries=2)]})
    player = Player(compile_plan(schema), 0.0)
    events: list[Event] = [
        StepClaimed("a", 1, "w"),
        StepReported("a", 1, Status.FAILED, error=StepError(type="Boom", message="why")),
        StepReported("a", 2, Status.SUCCEEDED),
        StepReported("b", 1, Status.SKIPPED),
    ]
    assert [notice for event in events for notice in player.apply(event).notices] == [
        Notice("step_started", "a", 1, {"worker_id": "w"}),
        Notice("step_failed", "a", 1, {"error": "why", "type": "Boom", "cause": "error", "will_retry": True}),
        Notice("step_enqueued", "a", 2),
        Notice("step_finished", "a", 2, {"action": "default"}),
        Notice("step_skipped", "c", 0, {"by": "untaken branch"}),
        Notice("step_enqueued", "b", 1),
        Notice("step_skipped", "b", 1, {"by": "its own condition"}),
        Notice("workflow_finished", detail={"state": "SUCCEEDED"}),
    ]
    first = Store(compile_plan(schema), 0.0).decide_whole(RunDispatched(), 0.0)
    assert first.notices == [Notice("workflow_started"), Notice("step_enqueued", "a", 1)]

"""What a replay means for a run: where it stands afterwards, and what is refused (P1, P3, P7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseline.engine import QueueStep, Snapshot, Verdict, compile_plan, decide
from fuseline.engine.events import (
    CancelRequested,
    DeadLetterDiscarded,
    RunDuePassed,
    StepClaimed,
    StepExpired,
    StepPoisoned,
    StepReplayed,
    StepReported,
)
from fuseline.engine.state import DeadLetter
from fuseline.model import Cause, RunStatus, Status, StepError, WorkflowSchema
from fuseline.model.messages import ASSIGNMENT_REJECTED
from fuseline.model.status import DeadLetterReason, DeadLetterState
from tests.unit.engine.playing import Player
from tests.unit.engine.small import join, parse, policy

FAILED, OK = Status.FAILED, Status.SUCCEEDED


def begin(schema: WorkflowSchema | str) -> Player:
    return Player(compile_plan(parse(schema) if isinstance(schema, str) else schema), 1_000.0)


def play(player: Player, reports: str) -> None:
    """`a+ b-`: the current attempt of a succeeded, that of b failed; `c>x`: c took action x."""
    for word in reports.split():
        name, action = word.rstrip("+-").partition(">")[::2]
        status = FAILED if word.endswith("-") else OK
        player.now += 1.0
        attempt = player.store.steps[name].attempt
        report = StepReported(name, attempt, status, action=action or None)
        assert player.apply(report).verdict is Verdict.ACCEPTED


def replay(player: Player, step: str) -> list[str]:
    """What is handed out then."""
    player.now += 100.0
    effects = player.apply(StepReplayed(step, player.store.steps[step].attempt)).effects
    return [effect.step for effect in effects if isinstance(effect, QueueStep)]


def ended(player: Player) -> RunStatus:
    return player.store.run.status


def states(player: Player) -> dict[str, Status]:
    return {name: player.store.status(name) for name in player.plan.steps}


def letter(player: Player, step: str, attempt: int = 1) -> DeadLetter:
    return player.store.letters[step, attempt]


def test_what_was_cancelled_can_start_and_what_succeeded_stands() -> None:
    player = begin("a -> c; b -> c; c -> d")
    play(player, "a+ b-")
    assert ended(player) is RunStatus.FAILED
    assert replay(player, "b") == ["b"]
    assert (player.store.run.error, player.store.run.failed_step) == (None, None)
    assert states(player) == {"a": OK, "b": Status.QUEUED, "c": Status.PENDING, "d": Status.PENDING}
    play(player, "b+ c+ d+")
    assert ended(player) is RunStatus.SUCCEEDED
    assert player.store.steps["b"].attempt == 2


def test_steps_that_waited_or_ended_meanwhile_count() -> None:
    """Here b was queued, and c running, when a failed the run; c succeeded all the same."""
    player = begin("a -> e; b -> e; c -> d; d -> e")
    player.apply(StepClaimed("c", 1, "w"))
    play(player, "a- c+")
    assert ended(player) is RunStatus.FAILED
    assert sorted(replay(player, "a")) == ["a", "b", "d"]
    assert {name: player.store.steps[name].attempt for name in "abd"} == {"a": 2, "b": 2, "d": 1}
    play(player, "b+ d+ a+ e+")
    assert ended(player) is RunStatus.SUCCEEDED


def test_clean_up_that_ran_because_of_the_failure_is_decided_on_anew() -> None:
    player = begin("a -> undo[one_failed]; a -> close[all_done]")
    play(player, "a- undo+ close+")
    assert ended(player) is RunStatus.FAILED
    assert replay(player, "a") == ["a"]
    assert states(player) == {"a": Status.QUEUED, "undo": Status.PENDING, "close": Status.PENDING}
    play(player, "a+ close+")
    assert states(player) == {"a": OK, "undo": Status.SKIPPED, "close": OK}
    assert ended(player) is RunStatus.SUCCEEDED
    assert player.store.steps["close"].attempt == 2, "the attempts of before stay refused (P5)"


def test_clean_up_alone_is_replayed_in_a_run_that_something_else_has_failed() -> None:
    player = begin("a -> undo[one_failed]; undo -> told[all_done]; a -> b")
    play(player, "a- undo- told+")
    assert replay(player, "undo") == ["undo"]
    assert player.store.run.failed_step == "a"
    assert states(player)["b"] is Status.CANCELLED
    play(player, "undo+ told+")
    assert ended(player) is RunStatus.FAILED
    assert letter(player, "a").state is DeadLetterState.OPEN
    assert replay(player, "a") == ["a"]
    play(player, "a+ b+")
    assert ended(player) is RunStatus.SUCCEEDED


def test_clean_up_whose_failure_kept_another_step_from_running_sets_the_run_going() -> None:
    """The run names the step that could not run; nothing but the clean-up had failed (seed 1500043290)."""
    player = begin("a -> close[all_done]; close -> pick[one_success]; b -right> pick; pick -> d; e")
    player.apply(StepClaimed("e", 1, "w"))
    play(player, "a+ close- b+")
    assert player.store.run.failed_step == "pick"
    play(player, "e+")
    assert ended(player) is RunStatus.FAILED
    assert replay(player, "close") == ["close"]
    assert not player.store.run.is_failing
    play(player, "close+ pick+ d+")
    assert ended(player) is RunStatus.SUCCEEDED


def test_clean_up_that_the_run_names_though_another_step_failed_it_is_replayed_alone() -> None:
    """What closed its OR group was an edge that nobody took, so the run names no source of the failure."""
    schema = parse("a -> close[all_done]; b -left> close")
    close = schema.steps["close"].model_copy(update={"or_groups": {"p": ["a", "b"]}})
    player = begin(schema.model_copy(update={"steps": {**schema.steps, "close": close}}))
    play(player, "a- b+")
    assert player.store.run.failed_step == "close"
    play(player, "close-")
    assert replay(player, "close") == ["close"]
    assert letter(player, "a").state is DeadLetterState.OPEN
    play(player, "close+")
    assert ended(player) is RunStatus.FAILED


def test_clean_up_in_a_run_that_timed_out_is_replayed_alone() -> None:
    limit = [policy("workflow_timeout", seconds=60.0)]
    player = begin(parse("a -> close[all_done]; close -> c[one_success]; a -> c; b", run_policies=limit))
    play(player, "a+ close- c+")
    player.now += 100.0
    player.apply(RunDuePassed())
    assert replay(player, "close") == ["close"]
    play(player, "close+")
    assert ended(player) is RunStatus.FAILED
    assert player.store.run.error is not None
    assert player.store.run.error.cause is Cause.RUN_TIMEOUT


def test_other_failures_that_would_fail_the_run_come_along() -> None:
    player = begin("a -> c; b -> c; d")
    player.apply(StepClaimed("b", 1, "w"))
    play(player, "a- b-")
    assert sorted(replay(player, "a")) == ["a", "b", "d"]
    assert letter(player, "b").state is DeadLetterState.REPLAYED
    assert player.refused(StepReplayed("b", 1)) is Verdict.DUPLICATE
    play(player, "a+ b+ c+ d+")
    assert ended(player) is RunStatus.SUCCEEDED


def test_a_failure_that_the_run_can_do_without_stays() -> None:
    """The OR group keeps the source that it went by."""
    player = begin(join("abz", "end", "all_success", {"p": ["a", "b"]}))
    play(player, "a- b+ z-")
    assert replay(player, "z") == ["z"]
    assert letter(player, "a").state is DeadLetterState.OPEN
    assert player.store.joins["end"].groups["p"].winner == "b"
    play(player, "z+ end+")
    assert ended(player) is RunStatus.SUCCEEDED
    assert player.refused(StepReplayed("a", 1)) is Verdict.STALE


def test_a_failure_that_somebody_discarded_keeps_the_run_failed() -> None:
    """P7: refused whole, and it names the step."""
    player = begin("a -> c; b -> c")
    player.apply(StepClaimed("b", 1, "w"))
    play(player, "a- b-")
    assert player.apply(DeadLetterDiscarded("b", 1)).verdict is Verdict.ACCEPTED
    decision = player.apply(StepReplayed("a", 1))
    assert decision.verdict is Verdict.STALE
    assert "'b'" in decision.reason
    assert player.refused(DeadLetterDiscarded("b", 1)) is Verdict.DUPLICATE


def test_failures_of_before_there_were_dead_letters_come_along_too() -> None:
    player = begin("a -> c; b -> c")
    player.apply(StepClaimed("b", 1, "w"))
    play(player, "a- b-")
    del player.store.letters["b", 1]
    decision = player.store.decide_whole(StepReplayed("a", 1), player.now)
    assert {effect.step for effect in decision.effects if isinstance(effect, QueueStep)} == {"a", "b"}


def test_a_run_gets_its_whole_time_again() -> None:
    player = begin(parse("a -> b; c", run_policies=[policy("workflow_timeout", seconds=60)]))
    play(player, "a-")
    replay(player, "a")
    assert player.store.run.due_at == player.now + 60
    player.now += 60
    player.apply(RunDuePassed())
    assert ended(player) is RunStatus.FAILED


def test_a_stop_of_before_the_replay_says_so() -> None:
    """P1: a worker must not take it for one of the run as it is now."""
    player = begin("a; b")
    play(player, "a-")
    replay(player, "a")
    assert [
        effect.replays for effect in player.apply(CancelRequested()).effects if hasattr(effect, "replays")
    ] == [1]


def test_whoever_recorded_a_replay_may_have_died_before_he_handed_anything_out() -> None:
    player = begin("a -> b; c")
    play(player, "a-")
    replay(player, "a")
    offered = player.apply(StepReplayed("a", 1, redelivered=True))
    assert offered.verdict is Verdict.DUPLICATE
    assert offered.effects == [QueueStep("a", 2, again=True), QueueStep("c", 2, again=True)]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (StepExpired("a", 1), DeadLetterReason.EXPIRED),
        (StepPoisoned("a", 1), DeadLetterReason.POISON),
        (StepReported("a", 1, FAILED, error=StepError(type="Boom")), DeadLetterReason.FAILED),
        (
            StepReported("a", 1, FAILED, error=StepError(type="StepTimeout", cause=Cause.TIMEOUT)),
            DeadLetterReason.TIMEOUT,
        ),
        (
            StepReported("a", 1, FAILED, error=StepError(type="Bad", cause=Cause.INVALID)),
            DeadLetterReason.INVALID,
        ),
        (
            StepReported("a", 1, FAILED, error=StepError(type=ASSIGNMENT_REJECTED, cause=Cause.INVALID)),
            DeadLetterReason.REJECTED,
        ),
    ],
)
def test_a_dead_letter_knows_why(event: StepExpired, reason: DeadLetterReason) -> None:
    player = begin("a")
    player.apply(event)
    found = letter(player, "a")
    assert (found.reason, found.died_at, found.state) == (reason, player.now, DeadLetterState.OPEN)
    assert found.error == player.store.steps["a"].error


def test_ids_sort_by_time_and_the_same_event_makes_the_same() -> None:
    found = []
    for now in (1_000.0, 1_000.001, 1_700_000_000.0):
        player = begin("a")
        player.now = now
        play(player, "a-")
        found.append(letter(player, "a").letter_id)
    assert found == sorted(found)
    assert len({*found}) == 3
    assert {len(one) for one in found} == {32}


def test_what_is_no_dead_letter_is_unknown() -> None:
    player = begin("a; b")
    assert player.refused(StepReplayed("a", 1)) is Verdict.UNKNOWN
    assert player.refused(DeadLetterDiscarded("a", 1)) is Verdict.UNKNOWN


@pytest.mark.parametrize("step", ["a", "gone"])
def test_a_letter_whose_step_is_not_as_it_was_is_refused(step: str) -> None:
    """The row was changed by other means, or the graph has no such step any more."""
    player = begin("a -> b")
    play(player, "a-")
    store = player.store
    known = replace(letter(player, "a"), step=step)
    rows = {"a": replace(store.steps["a"], status=OK)}
    for steps in (rows, {}):
        snapshot = Snapshot(store.run, dict(steps), {}, True, {known.key: known})
        assert decide(player.plan, snapshot, StepReplayed(step, 1), player.now).verdict is Verdict.STALE

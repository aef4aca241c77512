"""One step's attempts: leases, deadlines, losses, retries, and what a policy's decision does (P1, P5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseline.engine import Notice, QueueStep, Rules, Verdict, compile_plan
from fuseline.engine.events import (
    CancelRequested,
    Event,
    HolderLost,
    RunDispatched,
    StepClaimed,
    StepDuePassed,
    StepExpired,
    StepOvertaken,
    StepPoisoned,
    StepReleased,
    StepReported,
    StepVanished,
)
from fuseline.engine.retry import MAX_WAIT_SECONDS
from fuseline.engine.state import StepRow
from fuseline.engine.turn import MAX_SWEEP_DOUBLINGS
from fuseline.model import (
    Cause,
    FailureDecision,
    PolicyDecision,
    PolicySpec,
    RunStatus,
    Status,
    StepError,
)
from fuseline.model.messages import PROCESS_DIED
from tests.unit.engine.playing import Player
from tests.unit.engine.small import parse, policy

RULES = Rules(lease_seconds=60.0, sweep_seconds=100.0, max_losses=3, timeout_grace_seconds=5.0)
OK, FAILED = Status.SUCCEEDED, Status.FAILED


def one_step(*policies: PolicySpec, rules: Rules = RULES) -> Player:
    return Player(compile_plan(parse("a", {"a": list(policies)}), rules), 1_000.0)


def row(player: Player) -> StepRow:
    return player.store.steps["a"]


def failed(
    attempt: int = 1,
    cause: Cause = Cause.ERROR,
    decision: PolicyDecision | None = None,
    holder: str | None = None,
) -> StepReported:
    error = StepError(type="Boom", message="why", cause=cause, types=["Boom", "Exception"])
    return StepReported("a", attempt, FAILED, error=error, decision=decision, holder=holder)


def error_of(player: Player) -> StepError:
    error = row(player).error
    assert error is not None
    return error


def test_a_claim_makes_a_lease_that_its_holder_renews() -> None:
    player = one_step()
    decision = player.apply(StepClaimed("a", 1, "w"))
    assert (row(player).holder, row(player).started_at, row(player).due_at) == ("w", 1_000.0, 1_060.0)
    assert decision.notices == [Notice("step_started", "a", 1, {"worker_id": "w"})]
    player.now += 30
    player.apply(StepClaimed("a", 1, "w", lease_seconds=10.0))
    assert (row(player).started_at, row(player).due_at) == (1_000.0, 1_040.0)
    player.now += 10
    player.apply(StepDuePassed("a", renewed_until=1_090.0))
    assert (row(player).status, row(player).due_at) == (Status.RUNNING, 1_090.0)


def test_a_lease_never_outlasts_the_execution_timeout_and_its_grace() -> None:
    player = one_step(policy("timeout", seconds=40))
    player.apply(StepClaimed("a", 1, "w"))
    assert row(player).due_at == 1_045.0
    player.now = 1_045.0
    decision = player.apply(StepDuePassed("a", renewed_until=2_000.0))
    assert decision.verdict is Verdict.ACCEPTED
    assert row(player).status is FAILED
    assert error_of(player).cause is Cause.TIMEOUT
    assert error_of(player).message == "attempt 1 ran longer than 40 s, and its worker did not end it"
    assert "TimeoutError" in error_of(player).types


@pytest.mark.parametrize("renewed_until", [None, 1_059.0, 1_060.0])
def test_a_silent_holder_loses_its_attempt(renewed_until: float | None) -> None:
    player = one_step()
    player.apply(StepClaimed("a", 1, "w"))
    player.now = 1_060.0
    decision = player.apply(StepDuePassed("a", renewed_until))
    assert decision.effects == [QueueStep("a", 2)]
    assert (row(player).holder, row(player).started_at, row(player).losses) == (None, None, 1)
    assert player.refused(StepReported("a", 1, OK, holder="w")) is Verdict.STALE
    assert player.refused(StepClaimed("a", 1, "w")) is Verdict.STALE


@pytest.mark.parametrize("kind", [HolderLost, StepVanished, StepOvertaken])
def test_a_step_that_costs_too_many_workers_fails_as_poison_whatever_its_retries(kind: type) -> None:
    player = one_step(policy("retry", max_retries=50))
    for _ in range(RULES.max_losses):
        assert row(player).status is Status.QUEUED
        if kind is HolderLost:
            player.apply(StepClaimed("a", row(player).attempt, "w"))
        player.apply(kind("a", row(player).attempt))
    assert (row(player).status, error_of(player).cause) == (FAILED, Cause.POISON)
    assert "3 time(s) over" in error_of(player).message


def test_a_step_that_takes_down_its_process_again_and_again_is_poison_whatever_its_retries() -> None:
    """P1: the worker lives and reports each death, so a generous retry policy alone would go on and on."""
    player = one_step(policy("retry", max_retries=30))
    error = StepError(type=PROCESS_DIED, message="killed by signal 9", types=[PROCESS_DIED])
    for attempt in (1, 2, 3):
        assert row(player).status is Status.QUEUED
        player.apply(StepReported("a", attempt, FAILED, error=error))
    assert row(player).status is FAILED
    assert error_of(player).cause is Cause.POISON
    assert "killed by signal 9" in error_of(player).message


def test_a_poisoned_assignment_fails_its_step_at_once() -> None:
    player = one_step(policy("retry", max_retries=50))
    player.apply(StepPoisoned("a", 1))
    assert error_of(player).cause is Cause.POISON
    assert player.store.run.status is RunStatus.FAILED


def test_giving_a_step_back_costs_it_neither_a_failure_nor_a_loss() -> None:
    player = one_step(rules=replace(RULES, max_losses=1))
    for attempt in range(1, 6):
        player.apply(StepClaimed("a", attempt, "w"))
        assert player.apply(StepReleased("a", attempt, "w")).effects == [QueueStep("a", attempt + 1)]
    assert (row(player).failures, row(player).losses) == (0, 0)


# ---- waiting in the queue


def test_what_was_overtaken_is_queued_as_the_next_attempt_so_that_the_first_one_counts_no_more() -> None:
    player = one_step()
    player.now = 1_100.0
    assert player.apply(StepOvertaken("a", 1)).effects == [QueueStep("a", 2)]
    assert (row(player).queued_at, row(player).losses) == (1_100.0, 1)
    assert player.refused(StepReported("a", 1, OK, holder="w")) is Verdict.STALE


def test_what_waits_in_its_queue_for_too_long_is_looked_for_and_never_changes_its_attempt() -> None:
    player = one_step()
    assert row(player).due_at == 1_100.0
    player.now = 1_100.0
    assert player.apply(StepDuePassed("a")).effects == [QueueStep("a", 1, again=True)]
    assert (row(player).due_at, row(player).attempt) == (1_200.0, 1)


def test_the_more_often_a_message_vanished_the_longer_until_the_next_look_up_to_a_limit() -> None:
    player = one_step(rules=replace(RULES, max_losses=100))
    waits = []
    for _ in range(MAX_SWEEP_DOUBLINGS + 2):
        assert player.apply(StepVanished("a", 1)).effects == [QueueStep("a", 1, again=True)]
        due_at = row(player).due_at
        assert due_at is not None
        waits.append(due_at - player.now)
    assert waits == [200.0, 400.0, 800.0, 1600.0, 1600.0, 1600.0]


@pytest.mark.parametrize("how", [StepDuePassed("a"), StepExpired("a", 1)], ids=["timer", "dead letter"])
def test_an_assignment_that_nobody_took_in_time_fails_its_attempt(how: Event) -> None:
    player = one_step(policy("expiry", seconds=30))
    assert row(player).due_at == 1_030.0
    player.now = 1_030.0
    player.apply(how)
    assert (row(player).status, error_of(player).cause) == (FAILED, Cause.EXPIRED)
    assert error_of(player).message == "no worker took attempt 1 within 30 s"


def test_an_expiry_beyond_the_sweep_is_kept_across_sweeps() -> None:
    player = one_step(policy("expiry", seconds=150))
    player.now = 1_100.0
    player.apply(StepDuePassed("a"))
    assert row(player).due_at == 1_150.0
    player.now = 1_150.0
    player.apply(StepDuePassed("a"))
    assert error_of(player).cause is Cause.EXPIRED


def test_an_expired_assignment_without_an_expiry_of_its_own_still_says_what_happened() -> None:
    player = one_step()
    player.apply(StepExpired("a", 1))
    assert error_of(player).message == "no worker took attempt 1 within its expiry"


def test_expiry_is_retried_like_any_failure() -> None:
    player = one_step(policy("expiry", seconds=30), policy("retry", max_retries=2, retry_on=["TimeoutError"]))
    assert player.apply(StepExpired("a", 1)).effects == [QueueStep("a", 2)]


# ---- retries


def test_a_failed_attempt_waits_for_its_back_off_and_is_queued_when_that_is_over() -> None:
    player = one_step(policy("retry", max_retries=3, wait=10, backoff=2))
    player.apply(StepClaimed("a", 1, "w"))
    decision = player.apply(failed(holder="w"))
    assert decision.effects == []
    assert decision.notices[-1].detail["will_retry"] is True
    assert (row(player).status, row(player).attempt, row(player).holder) == (Status.PENDING, 2, None)
    assert row(player).due_at == 1_010.0
    player.now = 1_010.0
    assert player.apply(StepDuePassed("a")).effects == [QueueStep("a", 2)]
    player.apply(failed(2))
    assert row(player).due_at == 1_030.0
    player.now = 1_030.0
    player.apply(StepDuePassed("a"))
    assert player.apply(failed(3)).notices[0].detail["will_retry"] is False
    assert (row(player).status, row(player).failures) == (FAILED, 3)


def test_success_after_failures_leaves_no_error() -> None:
    player = one_step(policy("retry", max_retries=2))
    player.apply(failed())
    player.apply(StepReported("a", 2, OK, result=7))
    assert (row(player).error, row(player).result, row(player).failures) == (None, 7, 1)
    assert player.store.run.status is RunStatus.SUCCEEDED


RETRY = policy("retry", max_retries=5, wait=3)


def decided(decision: FailureDecision, delay_seconds: float = 0.0) -> PolicyDecision:
    return PolicyDecision(decision=decision, delay_seconds=delay_seconds)


@pytest.mark.parametrize(
    ("report", "policies", "status"),
    [
        (failed(), [], FAILED),
        (failed(), [RETRY], Status.PENDING),
        (failed(cause=Cause.TIMEOUT), [RETRY], Status.PENDING),
        (failed(cause=Cause.INVALID), [RETRY], FAILED),
        (failed(cause=Cause.POISON), [RETRY], FAILED),
        (failed(), [policy("retry", retry_on=["Other"])], FAILED),
        (failed(decision=decided(FailureDecision.RETRY)), [], Status.QUEUED),
        (failed(decision=decided(FailureDecision.RETRY, 4.0)), [], Status.PENDING),
        (failed(decision=decided(FailureDecision.RETRY), cause=Cause.INVALID), [], Status.QUEUED),
        (failed(decision=decided(FailureDecision.RETRY), cause=Cause.POISON), [], FAILED),
        (failed(decision=decided(FailureDecision.FAIL)), [RETRY], FAILED),
        (failed(decision=decided(FailureDecision.SKIP)), [RETRY], Status.SKIPPED),
        (StepReported("a", 1, Status.CANCELLED), [], FAILED),
        (StepReported("a", 1, Status.CANCELLED), [RETRY], Status.PENDING),
        (StepReported("a", 1, FAILED), [RETRY], Status.PENDING),
    ],
)
def test_what_becomes_of_a_failed_attempt(
    report: StepReported, policies: list[PolicySpec], status: Status
) -> None:
    player = one_step(*policies)
    player.apply(report)
    assert row(player).status is status


def test_a_wait_that_a_policy_of_ones_own_asks_for_is_bounded() -> None:
    """P1: a retry that is due in a billion years is a run that hangs."""
    player = one_step()
    player.apply(failed(decision=decided(FailureDecision.RETRY, 1e300)))
    due_at = row(player).due_at
    assert due_at is not None
    assert due_at - player.now <= MAX_WAIT_SECONDS


def test_a_report_without_an_error_says_that_it_had_none() -> None:
    player = one_step()
    player.apply(StepReported("a", 1, FAILED))
    assert error_of(player) == StepError(type="FAILED", message="the report gave no error")


# ---- in a failing run


def failing_run(text: str, policies: dict[str, list[PolicySpec]] | None = None) -> Player:
    """Step x has failed the run while a was running."""
    player = Player(compile_plan(parse(text, policies), RULES), 0.0)
    player.apply(StepClaimed("a", 1, "w"))
    player.apply(StepReported("x", 1, FAILED))
    assert player.store.run.is_failing
    assert player.store.status("a") is Status.RUNNING
    return player


@pytest.mark.parametrize(
    ("event", "work", "cleanup"),
    [
        (StepReported("a", 1, OK), OK, OK),
        (StepReported("a", 1, Status.CANCELLED), Status.CANCELLED, Status.CANCELLED),
        (StepReported("a", 1, Status.SKIPPED), Status.SKIPPED, Status.SKIPPED),
        (failed(), FAILED, Status.QUEUED),
        (failed(decision=decided(FailureDecision.RETRY)), FAILED, Status.QUEUED),
        (failed(decision=decided(FailureDecision.SKIP)), Status.SKIPPED, Status.SKIPPED),
        (HolderLost("a", 1), Status.CANCELLED, Status.QUEUED),
        (StepReleased("a", 1), Status.CANCELLED, Status.QUEUED),
        (CancelRequested(), Status.CANCELLED, Status.CANCELLED),
    ],
)
def test_a_running_step_of_a_failing_run_ends_but_clean_up_goes_on(
    event: Event, work: Status, cleanup: Status
) -> None:
    retry = {"a": [policy("retry", max_retries=2)]}
    for text, expected in (("x; a", work), ("x; a[all_done]", cleanup)):
        player = failing_run(text, retry)
        player.apply(event)
        assert player.store.status("a") is expected
        assert player.store.run.status.is_terminal is expected.is_terminal


# ---- which edge a report takes


@pytest.mark.parametrize(
    ("report", "taken"),
    [
        (StepReported("a", 1, OK), "default"),
        (StepReported("a", 1, OK, result="left"), "left"),
        (StepReported("a", 1, OK, result="nowhere"), "default"),
        (StepReported("a", 1, OK, result=["left"]), "default"),
        (StepReported("a", 1, OK, result="left", action="right"), "right"),
        (StepReported("a", 1, OK, action="nowhere"), "nowhere"),
        (StepReported("a", 1, Status.SKIPPED), "default"),
        (StepReported("a", 1, Status.SKIPPED, action="left"), "left"),
    ],
)
def test_a_report_takes_the_edges_of_one_action(report: StepReported, taken: str) -> None:
    player = Player(compile_plan(parse("a -> default; a -left> left; a -right> right")), 0.0)
    decision = player.apply(report)
    assert row(player).action == taken
    started = {e.step for e in decision.effects if isinstance(e, QueueStep)}
    assert started == {taken} - {"nowhere"}
    rest = {"default", "left", "right"} - started
    assert {player.store.status(name) for name in rest} == {Status.SKIPPED}


@pytest.mark.parametrize(
    "again",
    [StepReleased("a", 1, "w", redelivered=True), StepExpired("a", 1, redelivered=True)],
    ids=["released", "expired"],
)
def test_what_gave_an_attempt_back_and_comes_again_offers_the_next_one_again(
    again: StepReleased | StepExpired,
) -> None:
    """P4: whoever recorded it may have died before the next attempt went out."""
    player = Player(compile_plan(parse("a -> b", {"a": [policy("retry", max_retries=3)]}), RULES), 1_000.0)
    if isinstance(again, StepReleased):
        player.apply(StepClaimed("a", 1, "w"))
    player.apply(replace(again, redelivered=False))
    assert player.store.steps["a"].attempt == 2
    decision = player.apply(again)
    assert (decision.verdict, decision.effects) == (Verdict.STALE, [QueueStep("a", 2, again=True)])
    # And nothing when it is nobody's first time: RabbitMQ says so of what was delivered before.
    assert player.apply(replace(again, redelivered=False)).effects == []


def test_a_run_that_has_ended_and_lost_its_steps_is_not_begun_again() -> None:
    """P3, P8: a large run is purged in several transactions, its header last, and a client may dispatch its id again."""
    player = Player(compile_plan(parse("a")), 1_000.0)
    player.apply(StepReported("a", 1, Status.SUCCEEDED))
    player.store.steps.clear()
    decision = player.store.decide_whole(RunDispatched(), player.now)
    assert (decision.verdict, decision.steps, decision.effects) == (Verdict.DUPLICATE, {}, [])

"""What a failure means for a run: tolerated, or the end of it, and who is to blame then (DESIGN 3, Failure)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fuseline.engine import FinishRun, QueueStep, StopSteps, compile_plan
from fuseline.engine.events import StepReported
from fuseline.model import RunStatus, Status, StepError
from tests.unit.engine.playing import Player
from tests.unit.engine.small import join, parse

FAILED, OK = Status.FAILED, Status.SUCCEEDED


def play(player: Player, reports: str) -> None:
    """`a+ b-`: a succeeded, b failed; `c>x`: c succeeded and took action x."""
    for word in reports.split():
        name, action = word.rstrip("+-").partition(">")[::2]
        status = FAILED if word.endswith("-") else OK
        error = StepError(type="Boom", message=name) if status is FAILED else None
        player.apply(StepReported(name, 1, status, action=action or None, error=error))


@dataclass(frozen=True)
class Case:
    rule: str
    groups: dict[str, list[str]]
    reports: str
    run: RunStatus
    end: Status


GROUP = {"p": ["a", "b"]}


@pytest.mark.parametrize(
    "case",
    [
        # An AND join tolerates no failure; a group does while another of it may come.
        Case("all_success", {}, "a-", RunStatus.FAILED, Status.CANCELLED),
        Case("all_success", GROUP, "a- b+ z+", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("all_success", GROUP, "b+ a- z+", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("all_success", GROUP, "a- b-", RunStatus.FAILED, Status.CANCELLED),
        Case("all_success", GROUP, "a- b>elsewhere", RunStatus.FAILED, Status.CANCELLED),
        Case("all_success", GROUP, "b>elsewhere a-", RunStatus.FAILED, Status.CANCELLED),
        # `one_success` does without all but one.
        Case("one_success", {}, "a- b+ z+", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("one_success", {}, "b+ z+ a-", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("one_success", {}, "a- b-", RunStatus.FAILED, Status.CANCELLED),
        Case("one_success", {}, "a- b>elsewhere", RunStatus.FAILED, Status.CANCELLED),
        # Clean-up starts because of a failure, so it tolerates none; in a group, it may still be met.
        # (Where a fails the run, b, which is queued, is cancelled, and so the join is decided.)
        Case("all_done", {}, "b+ a- z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("all_done", {}, "a- z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("all_done", GROUP, "a- b+ z+", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("all_done", GROUP, "b+ z+ a-", RunStatus.SUCCEEDED, Status.SUCCEEDED),
        Case("all_done", GROUP, "a- b- z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("all_done", GROUP, "a- b>elsewhere z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("all_done", GROUP, "b>elsewhere a- z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("one_failed", {}, "a- z+", RunStatus.FAILED, Status.SUCCEEDED),
        Case("one_failed", {}, "a+ b+", RunStatus.SUCCEEDED, Status.SKIPPED),
        Case("one_failed", GROUP, "a- b+", RunStatus.SUCCEEDED, Status.SKIPPED),
        Case("one_failed", GROUP, "b+ a-", RunStatus.SUCCEEDED, Status.SKIPPED),
        Case("one_failed", GROUP, "a- b- z+", RunStatus.FAILED, Status.SUCCEEDED),
    ],
    ids=lambda case: f"{case.rule}{'-group' if case.groups else ''}: {case.reports}",
)
def test_what_a_join_of_two_makes_of_their_ends(case: Case) -> None:
    player = Player(compile_plan(join("ab", "z", case.rule, case.groups)), 0.0)
    play(player, case.reports)
    assert player.store.run.status is case.run
    assert player.store.status("z") is case.end


def test_the_first_failure_that_nothing_tolerates_stops_what_runs_and_cancels_what_waits() -> None:
    schema = parse("a -> x; b -> y; c -> clean[all_done]; a -> clean")
    player = Player(compile_plan(schema), 0.0)
    decision = player.apply(StepReported("a", 1, FAILED, error=StepError(type="Boom", message="why")))
    assert StopSteps(frozenset({"clean"})) in decision.effects
    assert [e.step for e in decision.effects if isinstance(e, QueueStep)] == ["clean"]
    run = player.store.run
    assert (run.failed_step, run.error and run.error.message) == ("a", "why")
    assert {name: player.store.status(name) for name in "bcxy"} == dict.fromkeys("bcxy", Status.CANCELLED)
    done = player.apply(StepReported("clean", 1, OK))
    assert done.effects == [FinishRun(RunStatus.FAILED)]


def test_a_failure_that_was_tolerated_and_turns_out_fatal_names_the_step_that_has_no_hope() -> None:
    player = Player(compile_plan(join("ab", "z", "all_success", GROUP)), 0.0)
    play(player, "a- b>elsewhere")
    run = player.store.run
    assert run.failed_step == "z"
    assert run.error is not None
    assert run.error.type == "RequirementFailed"
    assert "'z'" in run.error.message


@pytest.mark.parametrize("late", ["b+", "b-"])
def test_a_group_that_is_met_stays_met_while_its_join_waits_for_others(late: str) -> None:
    """P3: what comes after the winner counts neither for the join nor against it."""
    player = Player(compile_plan(join("abc", "z", "all_success", GROUP)), 0.0)
    play(player, f"a+ {late}")
    join_row = player.store.joins["z"]
    assert (join_row.unresolved, join_row.met, join_row.failed, join_row.fired) == (1, 1, 0, False)
    assert join_row.groups["p"].winner == "a"
    play(player, "c+ z+")
    assert player.store.run.status is RunStatus.SUCCEEDED

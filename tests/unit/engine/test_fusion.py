"""Step fusion: a worker goes on with the only successor of what it reports, and is its holder only if that counts."""

from __future__ import annotations

import pytest

from fuseline.engine import QueueStep, Rules, StopHolder, Verdict, compile_plan
from fuseline.engine.events import (
    CancelRequested,
    HolderLost,
    StepClaimed,
    StepDuePassed,
    StepReported,
)
from fuseline.errors import InvalidSchemaError
from fuseline.model import PolicySpec, RunStatus, Status
from tests.unit.engine.playing import Player
from tests.unit.engine.small import parse, policy

RULES = Rules(lease_seconds=60.0, timeout_grace_seconds=5.0)
OK = Status.SUCCEEDED
CHAIN = "a -> b; b -> c"


def chain(text: str = CHAIN, policies: dict[str, list[PolicySpec]] | None = None) -> Player:
    return Player(compile_plan(parse(text, policies), RULES), 1_000.0)


def report(
    step: str,
    after: tuple[str, int] | None = None,
    then: str | None = None,
    *,
    holder: str | None = "w",
    attempt: int = 1,
    redelivered: bool = False,
) -> StepReported:
    return StepReported(
        step,
        attempt,
        OK,
        result=step,
        holder=holder,
        continues_with=then,
        continued_from=after,
        redelivered=redelivered,
    )


def test_the_next_step_is_held_by_whoever_goes_on_with_it_and_is_queued_nowhere() -> None:
    player = chain()
    decision = player.apply(report("a", then="b"))
    assert decision.effects == []
    assert [(one.kind, one.step) for one in decision.notices] == [
        ("step_finished", "a"),
        ("step_started", "b"),
    ]
    row = player.store.steps["b"]
    assert (row.status, row.holder, row.attempt, row.queued_at) == (Status.RUNNING, "w", 1, None)
    assert (row.started_at, row.due_at) == (1_000.0, 1_060.0)


def test_a_chain_ends_as_it_does_without() -> None:
    player = chain()
    player.apply(report("a", then="b"))
    player.apply(report("b", ("a", 1), "c"))
    player.apply(report("c", ("b", 1)))
    assert player.store.run.status is RunStatus.SUCCEEDED


def test_its_time_limit_counts_from_there() -> None:
    player = chain(policies={"b": [policy("timeout", seconds=7.0)]})
    player.apply(report("a", then="b"))
    assert player.store.steps["b"].due_at == 1_012.0


def test_a_holder_that_is_lost_leaves_the_step_to_others() -> None:
    """P1, P5."""
    player = chain()
    player.apply(report("a", then="b"))
    player.now = 1_060.0
    assert player.apply(StepDuePassed("b")).effects == [QueueStep("b", 2)]
    assert player.refused(report("b", ("a", 1))) is Verdict.STALE


def test_a_report_of_the_next_step_that_overtakes_the_one_before_is_early() -> None:
    player = chain()
    player.apply(StepClaimed("a", 1, "w"))
    assert player.refused(report("b", ("a", 1), "c")) is Verdict.EARLY
    # And so is one that overtakes two.
    assert player.refused(report("c", ("b", 1))) is Verdict.EARLY
    player.apply(report("a", then="b"))
    player.apply(report("b", ("a", 1), "c"))
    player.apply(report("c", ("b", 1)))
    assert player.store.run.status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    "never",
    [
        report("x" * 1_000, ("a", 1)),  # no such step
        report("b", ("x", 1)),
        report("c", ("a", 1)),  # not the next one
        report("b", ("a", 1), attempt=10**300),  # what is gone on with is a first attempt
    ],
    ids=["no step", "from no step", "not the next", "no first attempt"],
)
def test_what_can_never_count_is_not_early(never: StepReported) -> None:
    """P1: it would go round for as long as the run lasts; and no message can have such a name."""
    player = chain()
    player.apply(StepClaimed("a", 1, "w"))
    assert player.refused(never) is Verdict.UNKNOWN


def test_what_went_on_from_an_attempt_that_does_not_count_is_refused() -> None:
    """P3: another worker's attempt counts, and so does only what comes of that."""
    player = chain()
    player.apply(StepClaimed("a", 1, "w"))
    player.apply(HolderLost("a", 1))
    decision = player.apply(report("a", then="b"))
    assert (decision.verdict, decision.effects) == (Verdict.STALE, [StopHolder("b", 1, "w", ("a", 1))])
    assert player.apply(report("b", ("a", 1))).verdict is Verdict.UNKNOWN
    player.apply(report("a", attempt=2, holder="v"))
    # b is queued now, at its first attempt. It is nobody's yet.
    assert player.refused(report("b", ("a", 1))) is Verdict.STALE
    assert player.store.steps["b"].status is Status.QUEUED


def test_what_came_from_a_queue_is_not_ended_by_a_report_that_had_gone_on_with_it() -> None:
    """P3: the worker has both; what it had gone on with has seen a result that does not count."""
    player = chain()
    player.apply(StepClaimed("a", 1, "w"))
    player.apply(HolderLost("a", 1))
    player.apply(report("a", attempt=2, holder="v"))
    player.apply(StepClaimed("b", 1, "w"))
    assert player.refused(report("b", ("a", 1), "c")) is Verdict.STALE
    # When what it had gone on from comes again, the worker is told to stop only what it had gone on with.
    decision = player.apply(report("a", then="b", redelivered=True))
    assert decision.effects == [StopHolder("b", 1, "w", ("a", 1))]
    player.apply(report("b"))
    assert player.store.steps["b"].status is Status.SUCCEEDED


def test_what_went_on_from_an_earlier_attempt_of_the_same_worker_is_refused() -> None:
    """P2, P3: it lost the first one, took up the second, and went on from each of them."""
    player = chain()
    player.apply(StepClaimed("a", 1, "w"))
    player.apply(HolderLost("a", 1))
    player.apply(report("a", then="b", attempt=2))
    assert player.store.steps["b"].holder == "w"
    decision = player.apply(report("b", ("a", 1), "c"))
    assert decision.verdict is Verdict.STALE
    assert decision.effects == [StopHolder("c", 1, "w", ("b", 1))]
    player.apply(report("b", ("a", 2)))
    assert player.store.steps["b"].status is Status.SUCCEEDED


def test_of_two_that_executed_the_same_attempt_only_the_one_that_counts_goes_on() -> None:
    player = chain()
    player.apply(report("a", then="b", holder="v"))
    decision = player.apply(report("a", then="b", holder="w"))
    assert (decision.verdict, decision.effects) == (Verdict.STALE, [StopHolder("b", 1, "w", ("a", 1))])
    assert player.refused(report("b", ("a", 1), holder="w")) is Verdict.STALE
    player.apply(report("b", ("a", 1), "c", holder="v"))


def test_the_same_report_again_brings_nothing_about() -> None:
    """P3: its coordinator died after the commit."""
    player = chain()
    player.apply(report("a", then="b"))
    decision = player.apply(report("a", then="b", redelivered=True))
    assert (decision.verdict, decision.effects) == (Verdict.DUPLICATE, [])


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("a -> c; b -> c", "c"),  # a join
        ("a -> b; b -> c", "c"),  # not yet
        ("a -> b; b -> c", "nothing"),
        ("a -x> b; b -> c", "b"),  # another action is taken
    ],
)
def test_what_is_not_next_is_not_the_holders(text: str, then: str) -> None:
    player = chain(text)
    effects = player.apply(report("a", then=then)).effects
    assert StopHolder(then, 1, "w", ("a", 1)) in effects
    row = player.store.steps.get(then)
    assert row is None or row.status is not Status.RUNNING


def test_nobody_goes_on_in_a_run_that_has_ended() -> None:
    player = chain()
    player.apply(CancelRequested())
    decision = player.apply(report("a", then="b"))
    assert (decision.verdict, decision.effects) == (Verdict.STALE, [StopHolder("b", 1, "w", ("a", 1))])
    assert player.refused(report("b", ("a", 1))) is not Verdict.EARLY


def test_who_went_on_further_is_told_by_each_report_that_does_not_count() -> None:
    """P5: he was told about `b`, and is past it. Of what he goes on with there is no row, nor will there be."""
    player = chain("a -> b; b -> c; c -> d")
    player.apply(CancelRequested())
    decision = player.apply(report("b", ("a", 1), "c"))
    assert (decision.verdict, decision.effects) == (Verdict.UNKNOWN, [StopHolder("c", 1, "w", ("b", 1))])
    decision = player.apply(report("c", ("b", 1), "d"))
    assert (decision.verdict, decision.effects) == (Verdict.UNKNOWN, [StopHolder("d", 1, "w", ("c", 1))])


def test_who_overtook_himself_is_not_told_to_stop() -> None:
    """P5: his report may count yet."""
    player = chain()
    decision = player.apply(report("b", ("a", 1), "c"))
    assert (decision.verdict, decision.effects) == (Verdict.EARLY, [])


def test_a_holder_without_a_name_holds_nothing() -> None:
    player = chain()
    assert player.apply(report("a", then="b", holder=None)).effects == [QueueStep("b", 1)]


def test_a_policy_turns_it_off() -> None:
    off = policy("fusion", enabled=False)
    plan = compile_plan(parse(CHAIN, {"b": [off]}), RULES)
    assert [step.fuses for step in plan.steps.values()] == [True, False, True]


def test_a_policy_that_says_neither_is_refused() -> None:
    with pytest.raises(
        InvalidSchemaError, match="step 'b': policy 'fusion' needs enabled true or false, not 'no'"
    ):
        compile_plan(parse(CHAIN, {"b": [policy("fusion", enabled="no")]}), RULES)

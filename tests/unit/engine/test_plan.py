"""What a schema is compiled to: edges, requirements, retries; and what a wrong policy says (P7)."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.engine import RunRow, compile_plan, implied_status
from fuseline.engine.readiness import EdgeState, Fate, fate, group_state
from fuseline.engine.retry import MAX_WAIT_SECONDS, RetryRule, spread
from fuseline.errors import InvalidSchemaError
from fuseline.model import RunStatus, Status, StepError, Trigger
from tests.unit.engine.small import parse, policy, schema_of


def retry(**config: Any) -> RetryRule:
    rule = RetryRule.from_policies([policy("other"), policy("retry", **config)], "step 'a'")
    assert rule is not None
    return rule


# ---- joins


@pytest.mark.parametrize(
    ("trigger", "unresolved", "met", "failed", "expected"),
    [
        (Trigger.ALL_SUCCESS, 0, 1, 0, Fate.READY),
        (Trigger.ALL_SUCCESS, 0, 0, 0, Fate.SKIPPED),
        (Trigger.ALL_SUCCESS, 1, 1, 0, None),
        (Trigger.ALL_SUCCESS, 1, 1, 1, Fate.CANCELLED),
        (Trigger.ALL_DONE, 0, 1, 0, Fate.READY),
        (Trigger.ALL_DONE, 0, 0, 1, Fate.READY),
        (Trigger.ALL_DONE, 0, 0, 0, Fate.SKIPPED),
        (Trigger.ALL_DONE, 1, 1, 1, None),
        (Trigger.ONE_SUCCESS, 1, 1, 1, Fate.READY),
        (Trigger.ONE_SUCCESS, 1, 0, 1, None),
        (Trigger.ONE_SUCCESS, 0, 0, 1, Fate.CANCELLED),
        (Trigger.ONE_SUCCESS, 0, 0, 0, Fate.SKIPPED),
        (Trigger.ONE_FAILED, 1, 1, 1, Fate.READY),
        (Trigger.ONE_FAILED, 1, 1, 0, None),
        (Trigger.ONE_FAILED, 0, 1, 0, Fate.SKIPPED),
        (Trigger.ONE_FAILED, 0, 0, 0, Fate.SKIPPED),
    ],
)
def test_the_triggers(
    trigger: Trigger, unresolved: int, met: int, failed: int, expected: Fate | None
) -> None:
    assert fate(trigger, unresolved, met, failed) is expected


@pytest.mark.parametrize(
    ("edge", "open_edges", "failed_edges", "expected"),
    [
        (EdgeState.LIVE, 3, 1, EdgeState.LIVE),
        (EdgeState.DEAD, 1, 1, None),
        (EdgeState.FAILED, 1, 1, None),
        (EdgeState.DEAD, 0, 1, EdgeState.FAILED),
        (EdgeState.FAILED, 0, 1, EdgeState.FAILED),
        (EdgeState.DEAD, 0, 0, EdgeState.DEAD),
    ],
)
def test_an_or_group_is_met_by_its_first_live_edge(
    edge: EdgeState, open_edges: int, failed_edges: int, expected: EdgeState | None
) -> None:
    assert group_state(edge, open_edges, failed_edges) is expected


def test_two_actions_to_one_step_are_one_edge() -> None:
    plan = compile_plan(parse("a -> b; a -left> b; a -right> c"))
    assert [(edge.target, edge.actions) for edge in plan.steps["a"].out] == [
        ("b", frozenset({"default", "left"})),
        ("c", frozenset({"right"})),
    ]
    assert not plan.steps["b"].needs_counter
    assert plan.starts == ("a",)


def test_a_predecessor_in_groups_is_a_requirement_of_each_and_not_one_of_its_own() -> None:
    edges = [(source, "default", "z") for source in "abc"]
    plan = compile_plan(schema_of(edges, list("abcz"), groups={"z": {"p": ["a", "b"], "q": ["b"]}}))
    assert plan.steps["z"].requirements == 3
    assert {edge.source: (edge.solo, edge.groups) for name in "abc" for edge in plan.steps[name].out} == {
        "a": (False, ("p",)),
        "b": (False, ("p", "q")),
        "c": (True, ()),
    }


def test_a_name_with_an_index_follows_the_plan_of_the_name_without() -> None:
    plan = compile_plan(parse("parse"))
    assert plan.step("parse[17]") is plan.step("parse")
    assert plan.step("other[17]") is None
    assert plan.step("other") is None


@pytest.mark.parametrize(
    ("status", "failing", "trigger", "expected"),
    [
        (RunStatus.RUNNING, False, "all_success", Status.PENDING),
        (RunStatus.RUNNING, True, "all_success", Status.CANCELLED),
        (RunStatus.RUNNING, True, "one_success", Status.CANCELLED),
        (RunStatus.RUNNING, True, "all_done", Status.PENDING),
        (RunStatus.RUNNING, True, "one_failed", Status.PENDING),
        (RunStatus.CANCELLED, False, "all_done", Status.CANCELLED),
    ],
)
def test_the_status_of_a_step_without_a_row_is_implied(
    status: RunStatus, failing: bool, trigger: str, expected: Status
) -> None:
    plan = compile_plan(parse(f"a[{trigger}]"))
    run = RunRow("i", "g", "1", status, 0.0)
    if failing:
        run.error = StepError(type="Boom")
    assert implied_status(run, plan.steps["a"]) is expected


# ---- seconds


@pytest.mark.parametrize("name", ["timeout", "expiry"])
@pytest.mark.parametrize("seconds", [0, -1, True, "5", None, float("inf"), float("nan"), 1e10])
def test_a_step_policy_without_sensible_seconds_is_refused_by_name(name: str, seconds: object) -> None:
    with pytest.raises(
        InvalidSchemaError, match=f"step 'a': policy '{name}' needs seconds > 0, not {seconds!r}"
    ):
        compile_plan(parse("a", {"a": [policy(name, seconds=seconds)]}))


def test_a_run_deadline_without_sensible_seconds_is_refused_by_name() -> None:
    schema = parse("a", run_policies=[policy("other"), policy("workflow_timeout", seconds="soon")])
    with pytest.raises(
        InvalidSchemaError, match="workflow 'g': policy 'workflow_timeout' needs seconds > 0, not 'soon'"
    ):
        compile_plan(schema)


def test_the_last_policy_of_a_kind_counts() -> None:
    plan = compile_plan(parse("a", {"a": [policy("timeout", seconds=1), policy("timeout", seconds=2)]}))
    assert plan.steps["a"].timeout_seconds == 2.0
    assert plan.steps["a"].expiry_seconds is None


# ---- retries


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_retries": 0}, "1 <= max_retries <= 1000000, not 0"),
        ({"max_retries": "3"}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": float("nan")}, "max_retries"),
        ({"wait": -1}, "wait"),
        ({"wait": float("inf")}, "wait"),
        ({"backoff": 0.5}, "backoff"),
        ({"max_wait": -1}, "max_wait"),
        ({"jitter": 1.5}, "jitter"),
        ({"retry_on": "ValueError"}, "retry_on as a list of class names, not 'ValueError'"),
        ({"no_retry_on": [ValueError]}, "no_retry_on as a list of class names"),
    ],
)
def test_a_wrong_retry_policy_names_step_and_field(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSchemaError, match="step 'a': retry policy needs") as raised:
        retry(**config)
    assert message in str(raised.value)


def test_what_a_retry_policy_leaves_out_or_gives_as_null_has_a_default() -> None:
    assert retry() == retry(max_retries=None, wait=None, retry_on=None) == RetryRule(max_attempts=3)
    assert RetryRule.from_policies([policy("timeout", seconds=1)], "step 'a'") is None


def test_max_retries_counts_attempts_in_all() -> None:
    assert [retry(max_retries=3).delay_after(n, ["E"], "id") for n in (1, 2, 3, 4)] == [0.0, 0.0, None, None]


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        ({"wait": 2}, [2, 2, 2, 2]),
        ({"wait": 1, "backoff": 3}, [1, 3, 9, 27]),
        ({"wait": 1, "backoff": 3, "max_wait": 5}, [1, 3, 5, 5]),
        ({"wait": 10, "max_wait": 4}, [4, 4, 4, 4]),
        ({"backoff": 2}, [0, 0, 0, 0]),
        ({"wait": 1, "backoff": 1000}, [1, 1_000, 1_000_000, MAX_WAIT_SECONDS]),
    ],
)
def test_back_off_grows_up_to_a_limit(config: dict[str, Any], waits: list[float]) -> None:
    assert [retry(**config).delay_seconds(n, "id") for n in (1, 2, 3, 4)] == waits


def test_back_off_after_very_many_failures_is_still_a_number() -> None:
    assert retry(wait=1, backoff=1000).delay_seconds(100_000, "id") == MAX_WAIT_SECONDS
    assert retry(backoff=1000).delay_seconds(100_000, "id") == 0.0


def test_jitter_takes_a_share_off_that_depends_on_the_attempt_alone() -> None:
    rule = retry(wait=10, jitter=0.5)
    waits = [rule.delay_seconds(1, f"run/{n}") for n in range(200)]
    assert all(5 < wait <= 10 for wait in waits)
    assert len(set(waits)) > 190
    assert waits == [rule.delay_seconds(1, f"run/{n}") for n in range(200)]
    assert 0 <= spread("x") < 1


@pytest.mark.parametrize(
    ("config", "types", "applies"),
    [
        ({}, [], True),
        ({"retry_on": ["OSError"]}, ["ConnectionError", "OSError", "Exception"], True),
        ({"retry_on": ["OSError"]}, ["ValueError", "Exception"], False),
        ({"no_retry_on": ["OSError"]}, ["ConnectionError", "OSError"], False),
        ({"retry_on": ["Exception"], "no_retry_on": ["OSError"]}, ["OSError", "Exception"], False),
        ({"retry_on": ["Exception"], "no_retry_on": ["OSError"]}, ["KeyError", "Exception"], True),
    ],
)
def test_which_errors_are_retried(config: dict[str, Any], types: list[str], applies: bool) -> None:
    assert retry(**config).applies_to(types) is applies

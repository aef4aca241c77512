"""The checker can see what is wrong with steps that a worker went on with by itself (step fusion)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fuseline.testing.flows import graph
from tests.fault.audit import Change
from tests.fault.checker.facts import Facts
from tests.fault.checker.invariants import judge
from tests.fault.checker.outside import tally
from tests.fault.histories import BEGAN, RUN, clean, execution, run, step


def fused() -> Facts:
    """A chain of `a` and `b`, of which one worker executed both: nothing queued `b`."""
    facts = clean()
    commits: list[list[tuple[str, dict[str, Any]]]] = [
        [("runs", run("RUNNING")), ("steps", step("a", "QUEUED"))],
        [("steps", step("a", "SUCCEEDED")), ("steps", step("b", "RUNNING"))],
        [("steps", step("b", "SUCCEEDED")), ("runs", run("SUCCEEDED"))],
    ]
    facts.fusion_hops = 8
    facts.definitions = {"w": graph("w", {"a": ["b"]}, outputs=["b"])}
    facts.changes = [
        Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body.get("name"), body)
        for tx, commit in enumerate(commits)
        for table, body in commit
    ]
    facts.steps = [row for row in facts.steps if row["name"] != "c"]
    facts.executions = [
        execution("start", "a", BEGAN + 0.5),
        execution("end", "a", BEGAN + 0.6),
        execution("start", "b", BEGAN + 0.7, seen={"a": "n-a"}),
        execution("end", "b", BEGAN + 0.8),
    ]
    del facts.views[RUN]["steps"]["c"]
    return facts


def test_a_step_that_began_before_the_one_before_it_was_recorded_is_clean_and_counted() -> None:
    """P2, as ADR 0007 puts it."""
    facts = fused()
    assert {name: found for name, found in judge(facts).items() if found} == {}
    assert tally(facts)["fused"] == 1


def _failed_at_once(facts: Facts) -> None:
    """`b` failed at first, and its report was recorded with that of `a`."""
    again = {"attempt": 2, "failures": 1}
    bodies = [("steps", step("a", "SUCCEEDED")), ("steps", step("b", "QUEUED", **again))]
    last = [("steps", step("b", "SUCCEEDED", **again)), ("runs", run("SUCCEEDED"))]
    facts.changes = [one for one in facts.changes if one.tx == 0] + [
        Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body.get("name"), body)
        for tx, commit in ((1, bodies), (2, last))
        for table, body in commit
    ]
    facts.steps = [step("b", "SUCCEEDED", **again) if row["name"] == "b" else row for row in facts.steps]
    facts.executions += [
        execution("start", "b", BEGAN + 1.1, attempt=2, nonce="n-b2", seen={"a": "n-a"}),
        execution("end", "b", BEGAN + 1.2, attempt=2, nonce="n-b2"),
    ]


def test_an_attempt_that_failed_before_its_row_was_written_is_clean() -> None:
    facts = fused()
    _failed_at_once(facts)
    assert "begins with attempt 2" in " ".join(
        judge(facts)["one_outcome_per_attempt"]
    )  # nothing says that it failed
    for line in facts.executions:
        if (line["what"], line["step"], line["attempt"]) == ("end", "b", 1):
            line["outcome"] = "failed"
    assert not any("begins" in one for one in judge(facts)["one_outcome_per_attempt"])
    facts.fusion_hops = 0
    assert "begins with attempt 2" in " ".join(judge(facts)["one_outcome_per_attempt"])


def test_what_was_executed_after_a_report_that_does_not_count_is_clean() -> None:
    """P3: the worker had lost `a`; who recorded it saw to `b` as well."""
    facts = fused()
    lost = [
        execution("start", "a", BEGAN + 0.1, nonce="lost-a"),
        execution("end", "a", BEGAN + 0.2, nonce="lost-a"),
        execution("start", "b", BEGAN + 0.3, nonce="lost-b", seen={"a": "lost-a"}),
    ]
    facts.executions[:0] = lost
    assert {name: found for name, found in judge(facts).items() if found} == {}


def turn_fusion_off(facts: Facts) -> None:
    facts.fusion_hops = 0


def start_a_second_attempt(facts: Facts) -> None:
    facts.executions[2]["attempt"] = 2


def start_before_the_one_before_ended(facts: Facts) -> None:
    facts.executions[2]["at"] = BEGAN + 0.55


def see_what_nobody_returned(facts: Facts) -> None:
    facts.executions[2]["seen"] = {"a": "n-of-nobody"}


def see_nothing(facts: Facts) -> None:
    facts.executions[2]["seen"] = {}


def go_on_from_one_that_failed(facts: Facts) -> None:
    facts.executions[1]["outcome"] = "failed"


def record_what_saw_another_result(facts: Facts) -> None:
    facts.executions[:0] = [
        execution("start", "a", BEGAN + 0.1, nonce="lost-a"),
        execution("end", "a", BEGAN + 0.2, nonce="lost-a"),
    ]
    facts.executions[4]["seen"] = {"a": "lost-a"}


def go_on_with_a_join(facts: Facts) -> None:
    facts.definitions = {"w": graph("w", {"a": ["b"], "c": ["b"]}, outputs=["b"])}


DOCTORED: list[Callable[[Facts], None]] = [
    turn_fusion_off,
    start_a_second_attempt,
    start_before_the_one_before_ended,
    see_what_nobody_returned,
    see_nothing,
    go_on_from_one_that_failed,
    record_what_saw_another_result,
    go_on_with_a_join,
]


@pytest.mark.parametrize("doctor", DOCTORED, ids=[doctor.__name__ for doctor in DOCTORED])
def test_a_step_that_had_no_right_to_begin_is_found(doctor: Callable[[Facts], None]) -> None:
    """P2: each doctored history is found."""
    facts = copy.deepcopy(fused())
    doctor(facts)
    assert judge(facts)["steps_start_in_order"]

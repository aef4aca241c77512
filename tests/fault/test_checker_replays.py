"""The checker can see what is wrong with replays of dead letters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fuseline.testing.flows import graph
from tests.fault.audit import Change
from tests.fault.checker.facts import Facts
from tests.fault.checker.invariants import judge
from tests.fault.histories import BEGAN, RUN, again, clean, execution, join, letter, run, step


def replayed() -> Facts:
    """The same run, in which `b` failed; an operator replayed it, and then it succeeded."""
    facts = clean()
    first_end = facts.changes.index(next(one for one in facts.changes if one.tx == 4))
    commits: list[list[tuple[str, dict[str, Any]]]] = [
        [
            ("steps", step("b", "FAILED")),
            ("runs", run("FAILED", replays=0)),
            ("dead_letters", letter("open")),
        ],
        [
            ("runs", run("RUNNING", replays=1)),
            ("steps", step("b", "QUEUED", attempt=2)),
            ("joins", join(0, fired=True)),
            ("dead_letters", letter("replayed")),
        ],
        [("steps", step("b", "SUCCEEDED", attempt=2)), ("runs", run("SUCCEEDED", replays=1))],
    ]
    del facts.changes[first_end:]
    facts.changes += [
        Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body.get("name"), body)
        for tx, commit in enumerate(commits, 4)
        for table, body in commit
    ]
    facts.runs = [run("SUCCEEDED", replays=1)]
    facts.steps = [row for row in facts.steps if row["name"] != "b"] + [step("b", "SUCCEEDED", attempt=2)]
    facts.letters = [letter("replayed")]
    facts.asked[RUN].replays = 1
    facts.views[RUN]["steps"]["b"]["attempt"] = 2
    facts.executions[-2:] = [
        execution("start", "b", BEGAN + 3.5, nonce="n-1", seen={"a": "n-a", "c": "n-c"}),
        execution("end", "b", BEGAN + 3.6, nonce="n-1", outcome="failed"),
        execution("start", "b", BEGAN + 5.5, seen={"a": "n-a", "c": "n-c"}, attempt=2),
        execution("end", "b", BEGAN + 5.6, attempt=2),
    ]
    facts.events.insert(
        0, {"instance_id": RUN, "kind": "workflow_finished", "state": "FAILED", "step_name": None}
    )
    return facts


def test_a_replay_that_an_operator_asked_for_is_clean() -> None:
    """P3: an end is final unless somebody replays it."""
    assert {name: found for name, found in judge(replayed()).items() if found} == {}


def decided_anew() -> Facts:
    """As replayed, but the replay put a clean-up step `d` back, which had failed too, and it was not reached again."""
    facts = replayed()
    reset = step("d", "CANCELLED", finished_at=None)
    rows = [("steps", step("d", "FAILED")), ("dead_letters", letter("open", name="d"))]
    back = [("steps", reset), ("dead_letters", letter("replayed", name="d"))]
    end = [("steps", step("d", "SKIPPED", holder=None))]
    for tx, bodies in ((4, rows), (5, back), (6, end)):
        at = next(index for index, one in enumerate(facts.changes) if one.tx == tx)
        facts.changes[at:at] = [
            Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body["name"], body) for table, body in bodies
        ]
    facts.definitions = {"w": graph("w", {"a": ["b"], "c": ["b"], "b": {"no": ["d"]}}, outputs=["b"])}
    facts.steps.append(step("d", "SKIPPED", holder=None))
    facts.letters.append(letter("replayed", name="d"))
    facts.views[RUN]["steps"]["d"] = {"state": "SKIPPED", "attempt": 1, "result": None, "action": None}
    return facts


def test_what_a_replay_had_decided_anew_may_be_skipped_then() -> None:
    """P3, P4: it keeps its attempt, and its letter is settled."""
    assert {name: found for name, found in judge(decided_anew()).items() if found} == {}


def cancelled_at_once() -> Facts:
    """As replayed, but somebody cancelled the run before the replay was carried out: one transaction has both."""
    facts = replayed()
    facts.changes = [one for one in facts.changes if one.tx < 5]
    ends = [run("CANCELLED", replays=1), step("b", "CANCELLED", attempt=2, holder=None), letter("replayed")]
    facts.changes += [
        Change(0, BEGAN + 5, 5, table, "UPDATE", RUN, body.get("name"), body)
        for table, body in zip(("runs", "steps", "dead_letters"), ends, strict=True)
    ]
    facts.runs = [ends[0]]
    facts.steps = [row for row in facts.steps if row["name"] != "b"] + [ends[1]]
    facts.asked[RUN].cancels = 1
    facts.views[RUN]["state"] = "CANCELLED"
    facts.views[RUN]["steps"]["b"] = {"state": "CANCELLED", "attempt": 2, "result": None, "action": None}
    del facts.executions[-2:]
    facts.events[1]["state"] = "CANCELLED"
    return facts


def test_a_run_that_is_replayed_may_be_cancelled_in_the_same_transaction() -> None:
    """P3: it was set going again all the same, though no row says so."""
    assert {name: found for name, found in judge(cancelled_at_once()).items() if found} == {}


def cancel_unasked(facts: Facts) -> None:
    facts.asked[RUN].cancels = 0


def _last_headers(facts: Facts) -> list[dict[str, Any]]:
    return [*facts.runs, *(one.body for one in facts.changes if (one.tx, one.table) == (5, "runs"))]


def end_otherwise(facts: Facts) -> None:
    for row in _last_headers(facts):
        row["status"] = "SUCCEEDED"


def cancel_without_a_replay(facts: Facts) -> None:
    for row in _last_headers(facts):
        row["replays"] = 0


@pytest.mark.parametrize(
    ("name", "doctor"),
    [
        ("endings_are_the_graphs", cancel_unasked),
        ("terminal_states_stay", end_otherwise),
        ("terminal_states_stay", cancel_without_a_replay),
    ],
)
def test_another_end_in_the_transaction_of_a_replay_is_found(
    name: str, doctor: Callable[[Facts], None]
) -> None:
    facts = copy.deepcopy(cancelled_at_once())
    doctor(facts)
    assert judge(facts)[name]


def replay_unasked(facts: Facts) -> None:
    facts.asked[RUN].replays = 0


def replay_without_counting(facts: Facts) -> None:
    for change in facts.changes:
        change.body.pop("replays", None)


def replay_a_run_that_goes_on(facts: Facts) -> None:
    facts.changes = [one for one in facts.changes if one.body != run("FAILED", replays=0)]


def change_after_the_replayed_end(facts: Facts) -> None:
    again(facts, "steps", step("b", "FAILED", attempt=2))


def fire_again_after_the_replay(facts: Facts) -> None:
    again(facts, "joins", join(0, fired=True))


def keep_no_letter(facts: Facts) -> None:
    facts.letters = []
    facts.steps = [row for row in facts.steps if row["name"] != "b"] + [step("b", "FAILED")]


def replay_without_an_attempt(facts: Facts) -> None:
    facts.letters[0]["next_attempt"] = 3


def settle_twice(facts: Facts) -> None:
    again(facts, "dead_letters", letter("discarded"))


DOCTORED_REPLAYS: list[tuple[str, Callable[[Facts], None]]] = [
    ("terminal_states_stay", replay_unasked),
    ("terminal_states_stay", replay_without_counting),
    ("terminal_states_stay", replay_a_run_that_goes_on),
    ("terminal_states_stay", change_after_the_replayed_end),
    ("joins_fire_once", fire_again_after_the_replay),
    ("failures_are_kept", keep_no_letter),
    ("failures_are_kept", replay_without_an_attempt),
    ("failures_are_kept", settle_twice),
]


@pytest.mark.parametrize(
    ("name", "doctor"), DOCTORED_REPLAYS, ids=[doctor.__name__ for _, doctor in DOCTORED_REPLAYS]
)
def test_a_broken_promise_about_replays_is_found(name: str, doctor: Callable[[Facts], None]) -> None:
    facts = copy.deepcopy(replayed())
    doctor(facts)
    assert judge(facts)[name]

"""The checker can see: a clean history passes, and for each invariant a history that breaks it is found, and named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from fuseline.testing.flows import graph
from tests.fault.audit import Change
from tests.fault.checker.facts import Asked, Facts, Letter
from tests.fault.checker.invariants import INVARIANTS, judge
from tests.fault.checker.outside import tally

RUN = "r1"
BEGAN, ENDED = 100.0, 110.0


def step(name: str, status: str, **more: Any) -> dict[str, Any]:
    """A row of a step as the table has it."""
    is_open = status in ("PENDING", "QUEUED", "RUNNING")
    done = status == "SUCCEEDED"
    row = {
        "instance_id": RUN,
        "name": name,
        "status": status,
        "attempt": 1,
        "failures": 0,
        "losses": 0,
        "holder": "worker" if status != "QUEUED" else None,
        "queued_at": BEGAN,
        "started_at": BEGAN,
        "finished_at": None if is_open else ENDED,
        "due_at": ENDED if is_open else None,
        "action": "default" if done else None,
        "result": json.dumps({"nonce": f"n-{name}", "skips": []}) if done else None,
        "error": None,
    }
    return row | more


def run(status: str, **more: Any) -> dict[str, Any]:
    """A row of the run."""
    is_open = status == "RUNNING"
    row = {
        "instance_id": RUN,
        "workflow_id": "w",
        "version": "1",
        "status": status,
        "created_at": BEGAN,
        "open_steps": 2 if is_open else 0,
        "failed_step": None,
        "error": None,
        "due_at": None,
        "finished_at": None if is_open else ENDED,
    }
    return row | more


def join(unresolved: int, *, fired: bool) -> dict[str, Any]:
    """A row of the join of `b`."""
    return {"instance_id": RUN, "name": "b", "unresolved": unresolved, "met": 2 - unresolved, "fired": fired}


def execution(what: str, name: str, at: float, **more: Any) -> dict[str, Any]:
    """A line of an execution log."""
    line: dict[str, Any] = {
        "what": what,
        "run": RUN,
        "step": name,
        "attempt": 1,
        "nonce": f"n-{name}",
        "at": at,
        "pid": 1,
    }
    line[{"start": "seen", "end": "outcome"}[what]] = {} if what == "start" else "succeeded"
    return line | more


def clean() -> Facts:
    """One run of `a` and `c`, which join in `b`, as it should be."""
    commits: list[list[tuple[str, dict[str, Any]]]] = [
        [("runs", run("RUNNING")), ("steps", step("a", "QUEUED")), ("steps", step("c", "QUEUED"))],
        [("steps", step("a", "RUNNING"))],
        [("steps", step("a", "SUCCEEDED")), ("joins", join(1, fired=False))],
        [
            ("steps", step("c", "SUCCEEDED")),
            ("joins", join(0, fired=True)),
            ("steps", step("b", "QUEUED")),
        ],
        [("steps", step("b", "SUCCEEDED")), ("runs", run("SUCCEEDED"))],
    ]
    changes = [
        Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body.get("name"), body)
        for tx, commit in enumerate(commits)
        for table, body in commit
    ]
    final = {body["name"]: body for commit in commits for table, body in commit if table == "steps"}
    return Facts(
        definitions={"w": graph("w", {"a": ["b"], "c": ["b"]}, outputs=["b"])},
        asked={RUN: Asked("w", {"scripts": {}}, "acknowledged")},
        changes=changes,
        runs=[run("SUCCEEDED")],
        steps=list(final.values()),
        executions=[
            execution("start", "a", BEGAN + 0.5),
            execution("end", "a", BEGAN + 0.6),
            execution("start", "c", BEGAN + 0.5),
            execution("end", "c", BEGAN + 0.6),
            execution("start", "b", BEGAN + 3.5, seen={"a": "n-a", "c": "n-c"}),
            execution("end", "b", BEGAN + 3.6),
        ],
        last_fault_at=BEGAN,
        within_seconds=60.0,
        queues={"fault.reports": 0, "fault.parked": 1},
        parked=[Letter("adversary-1", "not JSON", b"{")],
        injected={"adversary-1"},
        leases={"worker": []},
        views={
            RUN: {
                "state": "SUCCEEDED",
                "steps": {
                    name: {
                        "state": "SUCCEEDED",
                        "attempt": 1,
                        "result": json.loads(row["result"]),
                        "action": "default",
                    }
                    for name, row in final.items()
                },
            }
        },
        events=[{"instance_id": RUN, "kind": "workflow_finished", "state": "SUCCEEDED", "step_name": None}],
    )


def letter(state: str, **more: Any) -> dict[str, Any]:
    """A row of the dead letter of `b`."""
    next_attempt = 2 if state == "replayed" else None
    return {
        "instance_id": RUN,
        "name": "b",
        "attempt": 1,
        "state": state,
        "next_attempt": next_attempt,
    } | more


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


def test_a_clean_history_is_clean() -> None:
    assert {name: found for name, found in judge(clean()).items() if found} == {}
    assert tally(clean())["acknowledged"] == 1
    assert tally(clean())["lost"] == 0


def again(facts: Facts, table: str, body: dict[str, Any], op: str = "UPDATE") -> None:
    """One more change, after all others."""
    facts.changes.append(Change(0, ENDED, 99, table, op, RUN, body.get("name"), body))


def lose_the_run(facts: Facts) -> None:
    facts.runs, facts.steps, facts.views, facts.events = [], [], {}, []


def keep_what_was_refused(facts: Facts) -> None:
    facts.asked[RUN].outcome = "refused"


def invent_a_run(facts: Facts) -> None:
    facts.asked.clear()


def change_an_ended_step(facts: Facts) -> None:
    again(facts, "steps", step("a", "FAILED"))


def change_an_ended_run(facts: Facts) -> None:
    again(facts, "runs", run("FAILED"))


def delete_a_row(facts: Facts) -> None:
    again(facts, "steps", step("a", "SUCCEEDED"), "DELETE")


def record_a_result_of_nobody(facts: Facts) -> None:
    facts.steps[0]["result"] = json.dumps("forged")


def record_the_result_of_an_earlier_attempt(facts: Facts) -> None:
    facts.executions[1]["attempt"] = 0


def leave_out_an_attempt(facts: Facts) -> None:
    facts.changes.insert(3, Change(0, BEGAN, 1, "steps", "UPDATE", RUN, "a", step("a", "QUEUED", attempt=3)))


def queue_an_attempt_twice(facts: Facts) -> None:
    facts.changes.insert(4, Change(0, BEGAN, 1, "steps", "UPDATE", RUN, "a", step("a", "QUEUED")))


def take_over_an_attempt(facts: Facts) -> None:
    facts.changes.insert(
        4, Change(0, BEGAN, 1, "steps", "UPDATE", RUN, "a", step("a", "RUNNING", holder="x"))
    )


def fire_twice(facts: Facts) -> None:
    again(facts, "joins", join(0, fired=True))


def start_too_early(facts: Facts) -> None:
    facts.executions[4]["at"] = BEGAN + 2.5


def start_before_it_is_queued(facts: Facts) -> None:
    facts.executions[0]["at"] = BEGAN - 1


def see_another_result(facts: Facts) -> None:
    facts.executions[4]["seen"] = {"a": "n-of-a-lost-attempt", "c": "n-c"}


def miss_a_result(facts: Facts) -> None:
    facts.executions[4]["seen"] = {"c": "n-c"}


def forget_the_successor(facts: Facts) -> None:
    facts.changes = [
        one
        for one in facts.changes
        if one.name != "b" or one.table != "steps" or one.body["status"] != "QUEUED"
    ]
    facts.changes = [one for one in facts.changes if one.tx < 4]


def forget_a_timer(facts: Facts) -> None:
    facts.changes[1].body["due_at"] = None


def hold_on(facts: Facts) -> None:
    facts.leases["worker"] = [[RUN, "a", 1]]


def run_without_a_lease(facts: Facts) -> None:
    facts.changes[3].body["holder"] = None


def own_something_after_the_end(facts: Facts) -> None:
    facts.runs[0]["due_at"] = 200.0


def leave_a_step_open(facts: Facts) -> None:
    facts.steps[0] |= {"status": "QUEUED", "finished_at": None, "due_at": 200.0}


def succeed_without_a_step(facts: Facts) -> None:
    facts.steps = [row for row in facts.steps if row["name"] != "b"]


def succeed_against_the_script(facts: Facts) -> None:
    facts.asked[RUN].inputs = {"scripts": {"a": {"state": "FAILED"}}}


def hang(facts: Facts) -> None:
    facts.runs[0] |= {"status": "RUNNING", "finished_at": None}


def be_late(facts: Facts) -> None:
    facts.last_fault_at = ENDED - 61


def say_something_else(facts: Facts) -> None:
    facts.views[RUN]["state"] = "RUNNING"


def say_another_result(facts: Facts) -> None:
    facts.views[RUN]["steps"]["a"]["result"] = None


def announce_something_else(facts: Facts) -> None:
    facts.events[0]["state"] = "FAILED"


def leave_a_message(facts: Facts) -> None:
    facts.queues["fault.steps.w.1"] = 1


def lose_a_queue(facts: Facts) -> None:
    facts.queues["fault.steps.w.1"] = None


def park_a_real_message(facts: Facts) -> None:
    facts.parked.append(Letter("ours", "not JSON", b"{}"))


def reject_a_real_message(facts: Facts) -> None:
    facts.dead.append(Letter("ours", "rejected", b"{}"))


def leave_a_connection(facts: Facts) -> None:
    facts.leaks.append("13 connections, and there were 12")


def end_by_itself(facts: Facts) -> None:
    facts.complaints.append("worker-1 ended by itself with 1")


DOCTORED: list[tuple[str, Callable[[Facts], None]]] = [
    ("acknowledged_runs_exist", lose_the_run),
    ("acknowledged_runs_exist", keep_what_was_refused),
    ("acknowledged_runs_exist", invent_a_run),
    ("terminal_states_stay", change_an_ended_step),
    ("terminal_states_stay", change_an_ended_run),
    ("terminal_states_stay", delete_a_row),
    ("one_outcome_per_attempt", record_a_result_of_nobody),
    ("one_outcome_per_attempt", record_the_result_of_an_earlier_attempt),
    ("one_outcome_per_attempt", leave_out_an_attempt),
    ("one_outcome_per_attempt", queue_an_attempt_twice),
    ("one_outcome_per_attempt", take_over_an_attempt),
    ("joins_fire_once", fire_twice),
    ("steps_start_in_order", start_too_early),
    ("steps_start_in_order", start_before_it_is_queued),
    ("steps_start_in_order", see_another_result),
    ("steps_start_in_order", miss_a_result),
    ("ready_steps_are_held", forget_the_successor),
    ("ready_steps_are_held", forget_a_timer),
    ("leases_end", hold_on),
    ("leases_end", run_without_a_lease),
    ("terminal_runs_own_nothing", own_something_after_the_end),
    ("terminal_runs_own_nothing", leave_a_step_open),
    ("endings_are_the_graphs", succeed_without_a_step),
    ("endings_are_the_graphs", succeed_against_the_script),
    ("runs_end_in_time", hang),
    ("runs_end_in_time", be_late),
    ("broker_and_storage_agree", say_something_else),
    ("broker_and_storage_agree", say_another_result),
    ("events_fit_the_rows", announce_something_else),
    ("queues_are_empty", leave_a_message),
    ("queues_are_empty", lose_a_queue),
    ("dead_letters_are_explained", park_a_real_message),
    ("dead_letters_are_explained", reject_a_real_message),
    ("nothing_leaks", leave_a_connection),
    ("nobody_complains", end_by_itself),
]


@pytest.mark.parametrize(("name", "doctor"), DOCTORED, ids=[doctor.__name__ for _, doctor in DOCTORED])
def test_a_broken_promise_is_found(name: str, doctor: Callable[[Facts], None]) -> None:
    """Each doctored history is found by the invariant that it breaks."""
    facts = copy.deepcopy(clean())
    doctor(facts)
    assert judge(facts)[name]


def test_every_invariant_has_a_history_that_breaks_it() -> None:
    assert {name for name, _ in DOCTORED + DOCTORED_REPLAYS} == set(INVARIANTS)

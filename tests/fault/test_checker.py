"""The checker can see: a clean history passes, and for each invariant a history that breaks it is found, and named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from tests.fault.audit import Change
from tests.fault.checker.facts import Facts, Letter
from tests.fault.checker.invariants import INVARIANTS, judge
from tests.fault.checker.outside import tally
from tests.fault.histories import BEGAN, ENDED, RUN, again, clean, join, run, step


def test_a_clean_history_is_clean() -> None:
    assert {name: found for name, found in judge(clean()).items() if found} == {}
    assert tally(clean())["acknowledged"] == 1
    assert tally(clean())["lost"] == 0


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
    names = {name for name, _ in DOCTORED}
    assert names | {"failures_are_kept"} == set(INVARIANTS), "that one is in test_checker_replays.py"

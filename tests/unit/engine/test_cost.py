"""P6: what an event costs depends on the edges it touches, never on the size of the run. Counted, not timed."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

import pytest

from fuseline.engine import Decision, Plan, QueueStep, compile_plan
from fuseline.engine.events import Event, RunDispatched, StepClaimed, StepDuePassed, StepReported
from fuseline.model import Status, StepSchema, WorkflowSchema
from tests.unit.engine.playing import Store
from tests.unit.engine.small import policy

SMALL, LARGE = 10, 5_000


@dataclass(frozen=True)
class Cost:
    """Of one event: rows read, rows written, times `decide` was called, calls and lines of Python executed in it."""

    loaded: int
    changed: int
    tries: int
    calls: int
    lines: int


class Counting:
    """Counts what runs between `with` and its end, in this thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.lines = 0

    def _trace(self, frame: FrameType, kind: str, _arg: object) -> Callable[..., Any]:
        self.calls += kind == "call"
        self.lines += kind == "line"
        return self._trace

    def __enter__(self) -> Self:
        gc.disable()  # what it calls back is no part of the cost
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.settrace(self._before)
        gc.enable()


def apply(store: Store, event: Event) -> tuple[Decision, Cost]:
    with Counting() as counting:
        decision = store.decide_lazily(event, 1.0)
    store.save(decision)
    changed = len(decision.steps) + len(decision.joins) + (decision.run is not None)
    return decision, Cost(store.loaded, changed, store.tries, counting.calls, counting.lines)


def run(plan: Plan) -> Store:
    store = Store(plan, 0.0)
    store.save(store.decide_whole(RunDispatched(), 0.0))
    return store


@functools.cache
def chain(length: int) -> Plan:
    steps = {
        f"s{n}": StepSchema(
            name=f"s{n}",
            successors={"default": [f"s{n + 1}"]} if n + 1 < length else {},
            predecessors=[f"s{n - 1}"] if n else [],
        )
        for n in range(length)
    }
    return compile_plan(WorkflowSchema(workflow_id="g", steps=steps))


@functools.cache
def fan(width: int, rule: str = "all_success", grouped: bool = False, tails: int = 3) -> Plan:
    """1 -> width -> 1; so many members of the middle (`tails`) have a step of their own behind them as well."""
    middle = [f"m{n}" for n in range(width)]
    last = StepSchema(
        name="last",
        predecessors=middle,
        policies=[policy("trigger", rule=rule)],
        or_groups={"p": middle} if grouped else {},
    )
    steps = {"first": StepSchema(name="first", successors={"default": middle}), "last": last}
    for n, name in enumerate(middle):
        targets = ["last", f"after-{name}"] if n < tails else ["last"]
        steps[name] = StepSchema(name=name, successors={"default": targets}, predecessors=["first"])
        if n < tails:
            steps[f"after-{name}"] = StepSchema(name=f"after-{name}", predecessors=[name])
    return compile_plan(WorkflowSchema(workflow_id="g", steps=steps))


def ok(step: str) -> StepReported:
    return StepReported(step, 1, Status.SUCCEEDED)


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """What Python works out once for each class (how to copy it) is no part of an event's cost."""
    for grouped in (False, True):
        store = run(fan(SMALL, grouped=grouped))
        for step in ("first", "m0", "m1"):
            apply(store, ok(step))


def test_a_report_in_a_chain_costs_the_same_at_any_length() -> None:
    costs = []
    for length in (SMALL, LARGE):
        store = run(chain(length))
        apply(store, ok("s0"))
        costs.append(apply(store, ok("s1"))[1])
    assert costs[0] == costs[1]
    assert (costs[0].loaded, costs[0].changed, costs[0].tries) == (2, 2, 1)  # one step ended, one was opened


@pytest.mark.parametrize(
    ("rule", "grouped", "changed"),
    [("all_success", False, 3), ("all_done", False, 3), ("all_success", True, 2)],
)
def test_a_report_in_the_middle_of_a_fan_costs_the_same_at_any_width(
    rule: str, grouped: bool, changed: int
) -> None:
    costs = []
    for width in (SMALL, LARGE):
        store = run(fan(width, rule, grouped))
        apply(store, ok("first"))
        apply(store, ok("m0"))
        costs.append(apply(store, ok("m1"))[1])
    assert costs[0] == costs[1]
    # Read: the header, the step, the join's counter; the group was met by m0, and its counter stays as it is.
    assert (costs[0].loaded, costs[0].changed, costs[0].tries) == (3, changed, 1)


@pytest.mark.parametrize("event", [StepClaimed("m5", 1, "w"), StepDuePassed("m5")], ids=["claim", "timer"])
def test_a_claim_or_a_timer_costs_the_same_at_any_width(event: Event) -> None:
    costs = []
    for width in (SMALL, LARGE):
        store = run(fan(width))
        apply(store, ok("first"))
        costs.append(apply(store, event)[1])
    assert costs[0] == costs[1]
    assert (costs[0].loaded, costs[0].tries) == (2, 1)


def costs_of_parents(store: Store, status: Status, picked: list[int], last: int) -> dict[int, Cost]:
    """All parents up to `last` report; the cost of the picked ones."""
    costs = {}
    for n in range(last + 1):
        event = StepReported(f"m{n}", 1, status)
        if n in picked:
            costs[n] = apply(store, event)[1]
        else:
            store.save(store.decide_lazily(event, 1.0))
    return costs


def test_the_five_thousandth_parent_of_a_join_costs_what_the_second_did() -> None:
    store = run(fan(LARGE, tails=0))
    apply(store, ok("first"))
    last = LARGE - 1
    costs = costs_of_parents(store, Status.SUCCEEDED, [1, 2, LARGE // 2, last - 1, last], last)
    assert costs[1] == costs[2] == costs[LARGE // 2] == costs[last - 1]
    # The last one has the join's own step to queue, too.
    assert (costs[last].loaded, costs[last].changed, costs[last].tries) == (3, 3, 1)
    assert costs[last].lines < 2 * costs[1].lines


def test_the_last_failure_that_an_or_group_tolerates_costs_what_the_third_did() -> None:
    store = run(fan(LARGE, grouped=True, tails=0))
    apply(store, ok("first"))
    costs = costs_of_parents(store, Status.FAILED, [2, 3, LARGE // 2, LARGE - 2], LARGE - 2)
    assert store.run.is_failing is False
    assert len(set(costs.values())) == 1


def test_a_report_costs_in_proportion_to_the_steps_that_it_starts() -> None:
    costs = {}
    for width in (100, 200, 400):
        decision, costs[width] = apply(run(fan(width)), ok("first"))
        assert len([e for e in decision.effects if isinstance(e, QueueStep)]) == width
    assert costs[400].lines - costs[200].lines == 2 * (costs[200].lines - costs[100].lines)


def test_a_duplicate_costs_less_than_what_it_repeats() -> None:
    store = run(fan(LARGE))
    apply(store, ok("first"))
    _, first = apply(store, ok("m1"))
    _, again = apply(store, ok("m1"))
    assert again.changed == 0
    assert again.lines < first.lines


@functools.cache
def untaken(width: int, depth: int) -> Plan:
    """`a` leads to `z`, or to a branch of so many joins next to each other, so many times over."""
    steps = {
        "a": StepSchema(name="a", successors={"default": ["z"], "branch": ["l0", "r0"]}),
        "z": StepSchema(name="z", predecessors=["a"]),
    }
    for level in range(depth):
        before = [f"j{level - 1}-{n}" for n in range(width)] if level else ["a"]
        joins = [f"j{level}-{n}" for n in range(width)]
        after = [f"l{level + 1}", f"r{level + 1}"] if level + 1 < depth else []
        for side in "lr":
            steps[f"{side}{level}"] = StepSchema(
                name=f"{side}{level}", successors={"default": joins}, predecessors=before
            )
        for name in joins:
            steps[name] = StepSchema(
                name=name, successors={"default": after}, predecessors=[f"l{level}", f"r{level}"]
            )
    return compile_plan(WorkflowSchema(workflow_id="g", steps=steps))


@pytest.mark.parametrize(("width", "depth"), [(1, 100), (100, 1), (10, 10)])
def test_an_untaken_branch_costs_in_proportion_to_its_edges_and_is_loaded_in_few_rounds(
    width: int, depth: int
) -> None:
    costs = []
    for factor in (1, 4):
        many = (width * factor, depth) if width > depth else (width, depth * factor)
        store = run(untaken(*many))
        _, cost = apply(store, ok("a"))
        assert store.status(f"j{many[1] - 1}-0") is Status.SKIPPED
        assert cost.tries <= 16
        assert cost.loaded <= 3 * cost.changed
        costs.append(cost)
        _, again = apply(store, StepReported("a", 1, Status.SUCCEEDED, redelivered=True))
        assert again.tries <= 16
        assert again.lines < cost.lines
    assert (
        costs[1].lines < 8 * costs[0].lines
    )  # four times the edges; in one round each, it is sixteen times the work

"""All invariants by name, and the judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.fault.checker import outside, storage
from tests.fault.checker.facts import Facts

Invariant = Callable[[Facts], Iterator[str]]

INVARIANTS: Final[dict[str, Invariant]] = {
    one.__name__: one
    for one in (
        storage.acknowledged_runs_exist,
        storage.terminal_states_stay,
        storage.failures_are_kept,
        storage.one_outcome_per_attempt,
        storage.joins_fire_once,
        outside.steps_start_in_order,
        storage.ready_steps_are_held,
        storage.leases_end,
        storage.terminal_runs_own_nothing,
        storage.endings_are_the_graphs,
        storage.runs_end_in_time,
        outside.broker_and_storage_agree,
        outside.events_fit_the_rows,
        outside.queues_are_empty,
        outside.dead_letters_are_explained,
        outside.nothing_leaks,
        outside.nobody_complains,
    )
}

LOSSES: Final = ("acknowledged_runs_exist",)
DOUBLES: Final = ("terminal_states_stay", "one_outcome_per_attempt", "joins_fire_once")
HANGS: Final = ("runs_end_in_time", "ready_steps_are_held", "leases_end")


def judge(facts: Facts) -> dict[str, list[str]]:
    """What each invariant found; nothing is what it should find."""
    return {name: list(find(facts)) for name, find in INVARIANTS.items()}

"""What a step of a run in this process costs: calls of Python functions, counted and not timed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from fuseline import Depends, Step, Workflow, step

CALLS_A_COROUTINE = 118
CALLS_A_FUNCTION = 94


def chain(length: int, is_async: bool) -> Workflow:
    last: Step | None = None
    for number in range(length):
        last = hop(number, last, is_async)
    assert last is not None
    return Workflow(outputs=[last], workflow_id="chain")


def hop(number: int, before: Step | None, is_async: bool) -> Step:
    source: Any = 1 if before is None else Depends(before)

    @step(name=f"s{number}")
    def plain(n: int = source) -> int:
        return n + 1

    @step(name=f"s{number}")
    async def waiting(n: int = source) -> int:
        return n + 1

    return waiting if is_async else plain


def calls_of(work: Callable[[], object]) -> int:
    count = 0

    def trace(_frame: FrameType, kind: str, _arg: object) -> None:
        nonlocal count
        count += kind == "call"

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def calls_a_step(is_async: bool) -> float:
    """What a step more costs, once everything is warm."""
    found = []
    for length in (10, 30):
        workflow = chain(length, is_async)
        workflow.run()
        found.append(calls_of(workflow.run))
    return (found[1] - found[0]) / 20


def test_a_coroutine_costs_so_many_calls_and_no_thread() -> None:
    before = threading.active_count()
    assert calls_a_step(is_async=True) <= CALLS_A_COROUTINE
    assert threading.active_count() == before


def test_a_function_costs_so_many_calls() -> None:
    assert calls_a_step(is_async=False) <= CALLS_A_FUNCTION

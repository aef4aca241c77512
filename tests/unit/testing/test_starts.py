"""The simulation's judge of starts (P2): with and without step fusion."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.status import RunStatus, Status
from fuseline.testing.flows import graph
from fuseline.testing.simulation.semantics import Graph
from fuseline.testing.simulation.starts import Fused, goes_on_from, wrong_with

CHAIN = Graph(graph("w", {"a": ["b"]}))
JOIN = Graph(graph("w", {"a": ["b"], "c": ["b"]}))
RUN = RunRow("r", "w", "1", RunStatus.RUNNING, 0.0, 1)
SAID = {
    "r/a/1/report": {"w0"},
    "r/a/1/fused": set(),
    "r/a/2/report": {"w1"},
    "r/a/2/fused": set(),
}


def row(name: str, status: Status, attempt: int = 1, holder: str | None = None) -> StepRow:
    """One row; the result of a body is the step's name and the attempt."""
    result = [name, attempt] if status is Status.SUCCEEDED else None
    action = "default" if result else None
    return StepRow(name, status, attempt, 0, 0, holder, 0.0, None, None, None, action, result)


def rows(*found: StepRow) -> dict[str, StepRow]:
    return {one.name: one for one in found}


def test_a_step_starts_with_what_is_recorded() -> None:
    standing = rows(row("a", Status.SUCCEEDED), row("b", Status.QUEUED))
    assert not list(wrong_with(CHAIN, RUN, standing, "b", 1, {"a": ["a", 1]}))


@pytest.mark.parametrize(
    ("standing", "attempt", "results"),
    [
        (rows(row("a", Status.SUCCEEDED)), 1, {"a": ["a", 1]}),
        (rows(row("a", Status.SUCCEEDED), row("b", Status.QUEUED)), 2, {"a": ["a", 1]}),
        (rows(row("a", Status.SUCCEEDED, 2), row("b", Status.QUEUED)), 1, {"a": ["a", 1]}),
        (rows(row("a", Status.RUNNING), row("b", Status.QUEUED)), 1, {"a": ["a", 1]}),
        (rows(row("a", Status.SUCCEEDED), row("b", Status.QUEUED)), 1, {}),
    ],
    ids=["never queued", "an attempt to come", "another result", "no result yet", "a result too few"],
)
def test_a_start_that_does_not_fit_what_is_recorded_is_found(
    standing: dict[str, StepRow], attempt: int, results: dict[str, Any]
) -> None:
    assert list(wrong_with(CHAIN, RUN, standing, "b", attempt, results))


@pytest.mark.parametrize("results", [{}, {"a": ["a", 1]}])
def test_an_attempt_from_before_a_replay_may_come_once_more_with_what_was_recorded_then(
    results: dict[str, Any],
) -> None:
    """A coordinator that slept meanwhile sends it again, and what it reports does not count."""
    standing = rows(row("a", Status.SUCCEEDED, 2), row("b", Status.QUEUED, 2))
    replayed = dataclasses.replace(RUN, replays=1)
    assert not list(wrong_with(CHAIN, replayed, standing, "b", 1, results))
    assert list(wrong_with(CHAIN, replayed, standing, "b", 2, results))
    assert list(wrong_with(CHAIN, RUN, standing, "b", 1, results))


def test_a_worker_goes_on_from_its_own_confirmed_report() -> None:
    assert goes_on_from(CHAIN, "w0", ("r", "b", 1), {"a": ["a", 1]}, SAID) == ("a", ["a", 1])


@pytest.mark.parametrize(
    ("meaning", "worker", "attempt", "results"),
    [
        (CHAIN, "w1", 1, {"a": ["a", 1]}),
        (CHAIN, "w0", 1, {"a": ["a", 2]}),
        (CHAIN, "w0", 2, {"a": ["a", 1]}),
        (CHAIN, "w0", 1, {}),
        (JOIN, "w0", 1, {"a": ["a", 1]}),
    ],
    ids=["somebody else's", "of another attempt", "no first attempt", "without the result", "half a join"],
)
def test_nothing_else_lets_it_go_on(
    meaning: Graph, worker: str, attempt: int, results: dict[str, Any]
) -> None:
    assert goes_on_from(meaning, worker, ("r", "b", attempt), results, SAID) is None


def test_what_went_on_from_a_report_that_does_not_count_may_not_be_recorded() -> None:
    """It may be executed: its worker could not know."""
    fused = Fused()
    fused.begins("w0", ("r", "b", 1), "a", ["a", 1])
    done = row("b", Status.SUCCEEDED, holder="w0")
    assert fused.wrong_with("r", done, rows(row("a", Status.SUCCEEDED, 2), done)) is not None
    assert fused.wrong_with("r", done, rows(row("a", Status.SUCCEEDED, 1), done)) is None
    assert (
        fused.wrong_with("r", row("b", Status.FAILED, holder="w0"), rows(row("a", Status.SUCCEEDED, 2)))
        is None
    )
    others = row("b", Status.SUCCEEDED, holder="w1")
    assert fused.wrong_with("r", others, rows(row("a", Status.SUCCEEDED, 2), others)) is None
    fused.ends("w0", ("r", "b", 1))
    assert fused.wrong_with("r", done, rows(row("a", Status.SUCCEEDED, 2), done)) is None


def test_a_report_of_whoever_went_on_twice_may_be_of_the_execution_that_does_not_count() -> None:
    fused = Fused()
    key = ("r", "b", 1)
    fused.begins("w0", key, "a", ["a", 2])
    assert not fused.may_be_vain("w0", key, row("a", Status.SUCCEEDED, 2))
    fused.begins("w0", key, "a", ["a", 1])
    assert fused.may_be_vain("w0", key, row("a", Status.SUCCEEDED, 2))
    assert not fused.may_be_vain("w1", key, row("a", Status.SUCCEEDED, 2))

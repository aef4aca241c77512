"""What a storage remembers of the runs that it wrote last, and what can be written on the strength of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fuseline.engine.state import JoinRow, StepRow
from fuseline.model.messages import StepError
from fuseline.model.status import RunStatus, Status
from fuseline.storage import recollection
from fuseline.storage.base import Changes, Loaded, NotRemembered, Wanted
from fuseline.storage.recollection import RecalledTransaction, Recollection
from fuseline.testing.storage_cases import run_row, step_row

ALL = Wanted({"i"}, steps={("i", "a"), ("i", "b")}, inputs={"i"})


def remembering(*steps: StepRow, inputs: Any = None, **header: Any) -> Recollection:
    """One that has seen a run begin with these steps."""
    made = Recollection()
    rows = [("i", step) for step in steps]
    made.wrote(Changes([run_row("i", **header)], rows, inputs={"i": {"x": inputs}}), Loaded())
    return made


def test_what_was_written_is_found_and_is_new_no_more() -> None:
    found = remembering(step_row("a")).find(ALL)
    assert found == Loaded(
        {"i": run_row("i")}, {("i", "a"): step_row("a")}, inputs={"i": {"x": None}}, is_partial=True
    )
    assert not found.runs["i"].is_new
    assert not found.steps["i", "a"].is_new


@pytest.mark.parametrize(
    "header",
    [{"status": RunStatus.SUCCEEDED}, {"error": StepError(type="E", message="")}, {"failed_step": "a"}],
    ids=["ended", "failing", "failed"],
)
def test_a_run_that_does_not_simply_go_on_is_not_remembered(header: Any) -> None:
    with pytest.raises(NotRemembered):
        remembering(step_row("a"), **header).find(ALL)


def test_a_step_that_has_failed_before_is_not_remembered() -> None:
    """Its error is a column that no swap compares."""
    memory = remembering(step_row("a"), step_row("b", error=StepError(type="E", message="")))
    assert memory.find(ALL).steps.keys() == {("i", "a")}


def test_of_steps_that_ended_the_last_ones_are_remembered() -> None:
    memory = remembering(step_row("a", Status.SUCCEEDED, result=1), step_row("b"))
    assert memory.find(ALL).steps.keys() == {("i", "a"), ("i", "b")}
    memory.wrote(Changes(steps=[("i", step_row("b", Status.SUCCEEDED))]), Loaded({"i": run_row("i")}))
    assert memory.find(ALL).steps.keys() == {("i", "b")}


@pytest.mark.parametrize(
    "long",
    [
        "x" * 5000,
        ["x"] * 3000,
        {str(n): n for n in range(2000)},
        {"x" * 5000: 1},
        [["x" * 100] * 100],
        10**5000,
    ],
    ids=["text", "list", "object", "key", "nested", "number"],
)
def test_inputs_and_results_that_are_long_are_not_remembered(long: Any) -> None:
    """P6."""
    found = remembering(step_row("a"), inputs=long).find(ALL)
    assert found.steps.keys() == {("i", "a")}
    assert not found.inputs
    found = remembering(step_row("a", Status.SUCCEEDED, result=long), step_row("b")).find(ALL)
    assert found.steps.keys() == {("i", "b")}


@pytest.mark.parametrize(
    "said",
    [{"action": "x" * 5000}, {"holder": "x" * 5000}, {"error": StepError(type="E", message="x" * 5000)}],
    ids=["action", "holder", "error"],
)
def test_whatever_else_a_report_says_at_length_is_not_remembered(said: Any) -> None:
    """P6: such as why a step failed whose policy has it skipped."""
    found = remembering(step_row("a", Status.SKIPPED, **said), step_row("b")).find(ALL)
    assert found.steps.keys() == {("i", "b")}


def test_a_step_with_a_long_holder_is_not_remembered() -> None:
    """P6."""
    found = remembering(step_row("a", holder="x" * 5000), step_row("b")).find(ALL)
    assert found.steps.keys() == {("i", "b")}


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6."""
    monkeypatch.setattr(recollection, "MAX_RUNS", 2)
    memory = Recollection()
    for i in ("i", "j", "k"):
        memory.wrote(Changes([run_row(i)]), Loaded())
    assert memory.find(Wanted({"k"})).runs
    assert memory.find(Wanted({"j"})).runs
    with pytest.raises(NotRemembered):
        memory.find(Wanted({"i"}))


def test_a_wide_run_is_forgotten() -> None:
    """P6."""
    memory = remembering(step_row("a"))
    many = [("i", step_row(f"s{n}")) for n in range(recollection.MAX_STEPS)]
    memory.wrote(Changes([run_row("i")], many), Loaded())
    with pytest.raises(NotRemembered):
        memory.find(ALL)


def test_runs_of_a_large_batch_are_forgotten() -> None:
    memory = remembering(step_row("a"))
    ids = ["i", *(f"i{n}" for n in range(recollection.MAX_TOGETHER))]
    memory.wrote(Changes([run_row(i) for i in ids]), Loaded())
    with pytest.raises(NotRemembered):
        memory.find(ALL)


def test_counters_are_not_remembered() -> None:
    with pytest.raises(NotRemembered):
        remembering(step_row("a")).find(Wanted({"i"}, joins={("i", "b")}))


def test_after_a_miss_others_have_the_run_for_a_while() -> None:
    memory = remembering(step_row("a"))
    assert not memory.is_paused()
    memory.missed("i")
    with pytest.raises(NotRemembered):
        memory.find(ALL)
    assert [memory.is_paused() for _ in range(recollection.PAUSE + 1)] == [True] * recollection.PAUSE + [
        False
    ]


def reported(memory: Recollection, result: Any = None, **header: Any) -> Recollection:
    """The same, once the report of step a is committed that makes step b ready."""
    unit = RecalledTransaction(memory)
    unit.load(ALL)
    changed = [run_row("i", is_new=False, **header)] if header else []
    unit.save(Changes(changed, [("i", StepRow("a", Status.SUCCEEDED, result=result)), ("i", step_row("b"))]))
    memory.swapped(unit.swap(), len(json.dumps(result)))
    return memory


def test_what_a_swap_has_written_is_remembered() -> None:
    found = reported(remembering(step_row("a"), inputs="x"), result=1).find(ALL)
    assert found.steps["i", "a"].result == 1
    assert found.steps["i", "b"] == step_row("b")
    assert found.inputs == {"i": {"x": "x"}}
    assert not found.steps["i", "b"].is_new


def test_a_header_that_a_swap_has_written_is_remembered() -> None:
    assert reported(remembering(step_row("a")), open_steps=7).find(ALL).runs["i"].open_steps == 7


def test_a_run_that_a_swap_has_ended_is_forgotten() -> None:
    memory = reported(remembering(step_row("a")), status=RunStatus.SUCCEEDED)
    with pytest.raises(NotRemembered):
        memory.find(ALL)


@pytest.mark.parametrize("result", ["x" * 3000, ["x"] * 2000], ids=["text", "list"])
def test_inputs_and_results_share_the_room_of_a_run(result: Any) -> None:
    """P6: the size of inputs is taken once."""
    memory = reported(remembering(step_row("a"), inputs="x" * 2000), result)
    found = memory.find(ALL)
    assert found.steps.keys() == {("i", "b")}
    assert not found.inputs


def test_what_was_put_off_is_seen_to_when_nobody_waits() -> None:
    memory = reported(remembering(step_row("a")))
    run = memory._runs["i"]
    assert "b" not in run.steps
    memory.catch_up()
    assert "b" in memory._runs["i"].steps


@pytest.mark.parametrize(
    "use",
    [
        lambda memory: memory.forget("i"),
        lambda memory: memory.missed("i"),
        lambda memory: memory.wrote(Changes([run_row("i", RunStatus.CANCELLED, is_new=False)]), Loaded()),
        lambda memory: memory.wrote(
            Changes([run_row(f"i{n}") for n in range(99)] + [run_row("i")]), Loaded()
        ),
    ],
    ids=["forget", "missed", "another transaction", "a large batch"],
)
def test_what_was_put_off_never_comes_after_what_came_later(use: Any) -> None:
    memory = reported(remembering(step_row("a")))
    use(memory)
    memory.catch_up()
    with pytest.raises(NotRemembered):
        memory.find(ALL)


def test_a_swap_of_a_run_that_was_forgotten_meanwhile_is_not_remembered() -> None:
    memory = remembering(step_row("a"))
    unit = RecalledTransaction(memory)
    unit.load(ALL)
    unit.save(Changes(steps=[("i", StepRow("a", Status.SUCCEEDED)), ("i", step_row("b"))]))
    swap = unit.swap()
    memory.forget("i")
    memory.swapped(swap, 0)
    with pytest.raises(NotRemembered):
        memory.find(ALL)


# ---- what can be proved


def ended(name: str = "a") -> StepRow:
    return StepRow(name, Status.SUCCEEDED)


@pytest.mark.parametrize(
    "changes",
    [
        None,
        Changes(),
        Changes(steps=[("i", step_row("c"))]),
        Changes(steps=[("i", ended("c"))]),
        Changes(steps=[("i", ended()), ("i", ended("b"))]),
        Changes(steps=[("i", ended())], joins=[("i", JoinRow("b", 1))]),
        Changes(steps=[("j", ended())], runs=[run_row("j", is_new=False)]),
        Changes(steps=[("i", ended())], runs=[run_row("i")]),
    ],
    ids=["nothing", "no rows", "new alone", "unseen", "two steps", "a join", "another run", "a new run"],
)
def test_what_no_swap_can_prove_is_not_written(changes: Changes | None) -> None:
    unit = RecalledTransaction(remembering(step_row("a")))
    unit.load(ALL)
    if changes is not None:
        unit.save(changes)
    with pytest.raises(NotRemembered):
        unit.swap()


def test_a_step_that_was_looked_at_and_is_not_changed_is_no_proof() -> None:
    """Whether it still is as it was is compared for the one that changes alone."""
    unit = RecalledTransaction(remembering(step_row("a"), step_row("b")))
    unit.load(ALL)
    unit.save(Changes(steps=[("i", ended())]))
    with pytest.raises(NotRemembered):
        unit.swap()


def test_what_is_asked_for_a_second_time_is_not_remembered() -> None:
    unit = RecalledTransaction(remembering(step_row("a")))
    assert unit.load(ALL).is_partial
    with pytest.raises(NotRemembered):
        unit.load(ALL)


def test_the_header_is_written_when_it_changes() -> None:
    unit = RecalledTransaction(remembering(step_row("a")))
    unit.load(ALL)
    header = run_row("i", RunStatus.SUCCEEDED, is_new=False)
    unit.save(Changes([header], [("i", ended()), ("i", step_row("b"))]))
    swap = unit.swap()
    assert (swap.seen_run, swap.seen_step) == (run_row("i"), step_row("a"))
    assert (swap.run, swap.step, swap.new) == (header, ended(), [step_row("b")])

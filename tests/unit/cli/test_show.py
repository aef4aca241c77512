"""A run as people see it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from fuseline.cli.show import show_run, steps_table
from fuseline.model import Cause, RunStatus, RunView, Status, StepError, StepSchema, StepView, WorkflowSchema

NOW = 1000.0
CHAIN = WorkflowSchema(
    workflow_id="w",
    steps={
        "a": StepSchema(name="a", successors={"default": ["b"]}),
        "b": StepSchema(name="b", predecessors=["a"]),
    },
)


def view(*steps: StepView, **more: Any) -> RunView:
    given: dict[str, Any] = {
        "workflow_id": "w",
        "workflow_version": "1",
        "instance_id": "0197",
        "state": RunStatus.RUNNING,
        "created_at": NOW - 5,
        "steps": {step.name: step for step in steps},
    }
    return RunView(**{**given, **more})


def text(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_failed_run_says_which_step_and_why() -> None:
    error = StepError(type="ValueError", message="no such page", traceback="Traceback ...\nValueError: no")
    run = view(
        StepView(name="a", state=Status.SUCCEEDED, attempt=1, started_at=996, finished_at=998.5),
        StepView(name="b", state=Status.FAILED, attempt=3, started_at=998, finished_at=999, error=error),
        state=RunStatus.FAILED,
        finished_at=999.0,
        failed_step="b",
        error=error,
    )
    shown = text(show_run(run, CHAIN, NOW))
    assert "✓ SUCCEEDED" in shown
    assert "2.50 s" in shown
    assert "└─ b" in shown
    assert "attempt 3; ValueError: no such page" in shown
    assert "FAILED in step b: ValueError: no such page" in shown
    assert "Traceback ..." in shown
    assert "2 steps: 1 succeeded, 1 failed" in shown
    assert "4.00 s" in shown  # of the run, which has ended


def test_the_cause_of_a_failure_is_told_when_it_is_not_the_step_itself() -> None:
    error = StepError(type="Timeout", message="over 5 s", cause=Cause.TIMEOUT)
    run = view(StepView(name="a", state=Status.FAILED, attempt=1, error=error))
    assert "timeout: Timeout: over 5 s" in text(show_run(run, None, NOW))
    ended = view(state=RunStatus.FAILED, finished_at=NOW, error=error)
    assert "FAILED (timeout): Timeout: over 5 s" in text(show_run(ended, None, NOW))


def test_what_waits_for_its_next_attempt_says_until_when() -> None:
    run = view(StepView(name="a", state=Status.PENDING, attempt=2, due_at=NOW + 30))
    assert "attempt 2; next attempt in 30.0 s" in text(show_run(run, None, NOW))


def test_when_somebody_will_look_after_a_queued_step_is_not_shown() -> None:
    run = view(StepView(name="a", state=Status.QUEUED, attempt=1, due_at=NOW + 30))
    assert "30" not in text(show_run(run, None, NOW))


def test_a_running_step_shows_how_long_and_where() -> None:
    run = view(StepView(name="a", state=Status.RUNNING, attempt=1, started_at=NOW - 3, worker_id="w-123456"))
    assert "3.00 s" in text(show_run(run, None, NOW))
    assert "123456" in text(show_run(run, None, NOW))
    assert "worker-1 (pid 7)" in text(show_run(run, None, NOW, {"w-123456": "worker-1 (pid 7)"}))


def test_inputs_and_outputs_are_shown_and_markup_in_them_means_nothing() -> None:
    run = view(StepView(name="a", state=Status.SUCCEEDED), inputs={"url": "[bold]x"}, outputs={"a": [1]})
    shown = text(show_run(run, None, NOW))
    assert '{"url": "[bold]x"}' in shown
    assert '{"a": [1]}' in shown


def test_on_a_small_screen_what_runs_or_failed_comes_first() -> None:
    steps = [
        StepView(name=f"s{i:03}", state=Status.SUCCEEDED, started_at=1, finished_at=float(i))
        for i in range(90)
    ]
    steps += [StepView(name=f"p{i}", state=Status.PENDING) for i in range(5)]
    run = view(*steps, StepView(name="now", state=Status.RUNNING, started_at=NOW))
    shown = text(steps_table(run, None, NOW, {}, limit=4))
    assert [name for name in ("now", "s089", "s088", "s087", "s086", "p0") if name in shown] == [
        "now",
        "s089",
        "s088",
        "s087",
    ]
    assert "… and 92 more" in shown

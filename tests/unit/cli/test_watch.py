"""Watching ends with the run, shows each change once, and outlives a broker that is away for a moment."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pytest
from rich.console import Console

from fuseline.broker.base import Broker
from fuseline.cli.watch import watch_run
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, UnknownRunError
from fuseline.model import RunStatus, RunView, Status, StepAssignment, StepReport, StepView, WorkflowSchema


class Scripted(Broker):
    """Answers `get_run` with what it was given, in turn; an exception is raised; the last answer stays."""

    def __init__(self, *answers: RunView | Exception) -> None:
        self.answers = list(answers)

    def get_run(self, instance_id: str) -> RunView:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        raise NotImplementedError

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        raise NotImplementedError

    def get_step(self, worker_id: str) -> StepAssignment | None:
        raise NotImplementedError

    def report_step(self, worker_id: str, report: StepReport) -> None:
        raise NotImplementedError

    def keep_alive(self, worker_id: str) -> None:
        raise NotImplementedError


def run(state: RunStatus, **steps: Status) -> RunView:
    return RunView(
        workflow_id="w",
        workflow_version="1",
        instance_id="r1",
        state=state,
        created_at=1.0,
        finished_at=3.0 if state.is_terminal else None,
        steps={
            name: StepView(name=name, state=status, attempt=1, started_at=1.0, finished_at=2.0)
            for name, status in steps.items()
        },
    )


BEGUN = run(RunStatus.RUNNING, a=Status.RUNNING, b=Status.PENDING)
HALF = run(RunStatus.RUNNING, a=Status.SUCCEEDED, b=Status.RUNNING)
DONE = run(RunStatus.SUCCEEDED, a=Status.SUCCEEDED, b=Status.SUCCEEDED)


def pipe() -> Console:
    return Console(file=io.StringIO(), width=120)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=120, height=40, force_terminal=True)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_pipe_each_change_is_one_line() -> None:
    console = pipe()
    assert watch_run(Scripted(BEGUN, BEGUN, HALF, HALF, DONE), "r1", console) is DONE
    lines = [line.split("  ", 1)[1].rstrip() for line in written(console).splitlines()]
    assert [line for line in lines if line.startswith("RUNNING")] == ["RUNNING    a", "RUNNING    b"]
    assert sum(line.startswith("SUCCEEDED") for line in lines) == 2
    assert lines[-1] == "run r1 ✓ SUCCEEDED in 2.00 s"
    assert "\x1b[" not in written(console)


def test_on_a_terminal_the_last_picture_stays() -> None:
    console = terminal()
    assert watch_run(Scripted(BEGUN, HALF, DONE), "r1", console) is DONE
    assert "2 succeeded" in written(console)


def test_a_broker_that_is_away_for_a_moment_is_waited_for() -> None:
    away = BrokerUnavailableError("gone for a moment")
    assert watch_run(Scripted(BEGUN, away, away, DONE), "r1", pipe()) is DONE


def test_what_happens_between_is_told() -> None:
    seen: list[RunView] = []
    watch_run(Scripted(BEGUN, HALF, DONE), "r1", pipe(), between=seen.append)
    assert seen == [BEGUN, HALF, DONE]


def test_it_gives_up_at_the_deadline_and_says_how_to_go_on() -> None:
    with pytest.raises(DeadlineExceededError, match="it goes on: fuseline runs watch r1"):
        watch_run(Scripted(BEGUN), "r1", pipe(), timeout_seconds=0.05)


def test_a_broker_that_stays_away_ends_at_the_deadline_too() -> None:
    with pytest.raises(DeadlineExceededError):
        watch_run(Scripted(BEGUN, BrokerUnavailableError("gone")), "r1", pipe(), timeout_seconds=0.05)


def test_an_unknown_run_is_an_error_at_once() -> None:
    with pytest.raises(UnknownRunError):
        watch_run(Scripted(UnknownRunError("no run 'r1' is known")), "r1", pipe())


def test_why_it_failed_is_the_last_thing_said() -> None:
    console = pipe()
    failed = run(RunStatus.FAILED, a=Status.FAILED).model_copy(update={"failed_step": "a"})
    watch_run(Scripted(failed), "r1", console)
    assert written(console).rstrip().endswith("FAILED in step a")

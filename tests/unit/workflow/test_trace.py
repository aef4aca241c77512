"""`trace=`: JSON lines, one for each event, in the form of the events exchange."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from fuseline import Branch, Depends, RetryPolicy, RunFailed, Workflow, step


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@step
def fetch(url: str) -> str:
    return url


@step
async def parse(page: str = Depends(fetch)) -> str:
    return page


def test_a_run_is_told_from_its_start_to_its_finish(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Workflow(outputs=[parse], workflow_id="traced", version="7").run({"url": "a"}, trace=path)
    events = lines(path)
    assert [(event["kind"], event["step_name"]) for event in events] == [
        ("workflow_started", None),
        ("step_enqueued", "fetch"),
        ("step_started", "fetch"),
        ("step_finished", "fetch"),
        ("step_enqueued", "parse"),
        ("step_started", "parse"),
        ("step_finished", "parse"),
        ("workflow_finished", None),
    ]
    assert {(event["workflow_id"], event["workflow_version"]) for event in events} == {("traced", "7")}
    assert len({event["instance_id"] for event in events}) == 1
    times = [event["at"] for event in events]
    assert times == sorted(times)
    assert events[2]["attempt"] == 1
    assert events[-1]["state"] == "SUCCEEDED"


def test_failures_skips_cancellations_and_conditions_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    attempts: list[int] = []

    @step(policies=[RetryPolicy(2)])
    def flaky() -> Branch:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("away")
        return Branch("left", 3)

    @step
    def left(n: int = Depends(flaky)) -> int:
        return n

    @step
    def right(n: int = Depends(flaky)) -> int:
        return n

    (flaky - "left") >> left
    (flaky - "right") >> right

    @step
    def checked(n: int = Depends(left, condition=lambda n: n > 5)) -> int:
        return n

    @step
    def broken(n: int | None = Depends(checked)) -> int:
        raise ValueError("of no use")

    @step
    def last(n: int = Depends(broken)) -> int:
        return n

    with pytest.raises(RunFailed):
        Workflow(outputs=[last, right]).run(trace=str(path))
    events = lines(path)
    kinds = {(event["kind"], event["step_name"]): event for event in events}
    failed = [event for event in events if event["kind"] == "step_failed"]
    assert [(event["step_name"], event["will_retry"], event["error"]) for event in failed] == [
        ("flaky", True, "away"),
        ("broken", False, "of no use"),
    ]
    check = kinds["condition_check", "checked"]
    assert (check["parameter"], check["source"], check["holds"], check["attempt"]) == ("n", "left", False, 1)
    assert kinds["step_skipped", "right"]["by"] == "untaken branch"
    assert kinds["step_skipped", "checked"]["by"] == "its own condition"
    assert events[-1]["kind"] == "workflow_finished"
    assert events[-1]["state"] == "FAILED"


def test_what_is_cancelled_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    @step
    def broken() -> None:
        raise ValueError("of no use")

    @step
    def waits() -> None:
        """Queued, when the other one fails."""

    with pytest.raises(RunFailed):
        Workflow(outputs=[broken, waits]).run(trace=path, max_workers=1)
    told = [event["step_name"] for event in lines(path) if event["kind"] == "step_cancelled"]
    assert told == ["waits"]


def test_an_open_file_is_written_to_and_left_open() -> None:
    file = io.StringIO()
    Workflow(outputs=[fetch]).run({"url": "a"}, trace=file)
    assert file.getvalue().count("\n") == 5
    assert not file.closed


def test_a_path_that_cannot_be_written_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    calls: list[int] = []
    with pytest.raises(FileNotFoundError):
        Workflow(outputs=[lambda: calls.append(1)]).run(trace=tmp_path / "missing" / "run.jsonl")
    assert calls == []

"""`StepContext`: what a step may ask about its own execution."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from fuseline import RetryPolicy, Step, StepContext, TimeoutPolicy, Workflow, step
from fuseline.clock import ManualClock
from fuseline.model import StepAssignment


def assignment(**more: Any) -> StepAssignment:
    values: dict[str, Any] = {
        "workflow_id": "w",
        "instance_id": "i1",
        "step_name": "s",
        "attempt": 2,
        "assigned_at": 1.0,
        "expires_at": 61.0,
    }
    return StepAssignment(**values | more)


def test_a_step_may_ask_for_its_context() -> None:
    seen: list[StepContext] = []

    @step(policies=[TimeoutPolicy(30)])
    def plain(ctx: StepContext, n: int = 1) -> str:
        seen.append(ctx)
        return ctx.step_name

    class Kind(Step):
        async def run_step(self, context: StepContext | None = None) -> str:
            assert context is not None
            seen.append(context)
            return context.step_name

    workflow = Workflow(outputs=[plain, Kind], workflow_id="asking")
    assert workflow.run() == ["plain", "kind"]
    assert workflow.to_schema().inputs_schema == {
        "type": "object",
        "properties": {"n": {"type": "integer", "default": 1}},
        "additionalProperties": False,
    }
    first, second = sorted(seen, key=lambda ctx: ctx.step_name, reverse=True)
    assert (first.workflow_id, first.attempt) == ("asking", 1)
    assert first.instance_id == second.instance_id
    assert first.deadline is not None
    assert second.deadline is None


def test_the_deadline_is_when_the_execution_timeout_ends_it() -> None:
    clock = ManualClock(now=100.0)
    assert StepContext.of(assignment(timeout_seconds=5.0), clock).deadline == 105.0
    assert StepContext.of(assignment(), clock).deadline is None


def test_cancelled_says_that_nobody_waits_any_more() -> None:
    context = StepContext.of(assignment())
    assert context.cancelled is False
    assert context.wait_cancelled(0) is False
    context.cancel()
    assert context.wait_cancelled() is True
    told: bool = context.cancelled
    assert told


def test_heartbeat_says_in_the_log_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """At most once a second, however often a body calls it; that it is done is said in any case."""
    clock = ManualClock()
    context = StepContext(assignment(), clock=clock)
    with caplog.at_level(logging.INFO):
        context.heartbeat(progress=0.4, message="asking the bank")
        context.heartbeat(progress=0.5)
        clock.advance(1.0)
        context.heartbeat(message="still asking")
        context.heartbeat(progress=1)
        clock.advance(1.0)
        context.heartbeat()
    assert [record.getMessage() for record in caplog.records] == [
        "40% asking the bank",
        "still asking",
        "100%",
        "alive",
    ]
    told = vars(caplog.records[0])
    assert (told["step_name"], told["progress"]) == ("s", 0.4)
    with pytest.raises(ValueError, match="progress goes from 0 to 1, and 40 does not"):
        context.heartbeat(40)


def test_the_logger_carries_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    context = StepContext.of(assignment())
    with caplog.at_level(logging.INFO):
        context.logger.info("counted %d", 3, extra={"files": 3})
    record = caplog.records[0]
    assert record.getMessage() == "counted 3"
    told = vars(record)
    assert (told["workflow_id"], told["instance_id"], told["step_name"], told["attempt"]) == (
        "w",
        "i1",
        "s",
        2,
    )
    assert told["files"] == 3


def test_the_idempotency_key_is_stable_over_attempts_and_differs_between_steps_and_runs() -> None:
    keys: list[str] = []

    @step(policies=[RetryPolicy(2)])
    def charge(ctx: StepContext) -> int:
        keys.append(ctx.idempotency_key)
        if ctx.attempt == 1:
            raise ConnectionError("away")
        return ctx.attempt

    assert Workflow(outputs=[charge]).run() == 2
    assert keys[0] == keys[1]
    others = [
        StepContext.of(assignment(**more)).idempotency_key
        for more in ({}, {"step_name": "t"}, {"instance_id": "j"})
    ]
    assert len({*others, keys[0]}) == 4
    assert all(len(key) == 32 and key.isascii() for key in others)


def test_a_body_hears_from_another_thread_that_it_is_cancelled() -> None:
    context = StepContext.of(assignment())
    threading.Timer(0, context.cancel).start()
    assert context.wait_cancelled(20) is True

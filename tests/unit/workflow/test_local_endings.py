"""How runs in this process end when time is up, or something goes wrong (P1, P7)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from fuseline import (
    Depends,
    ExpiryPolicy,
    RetryPolicy,
    RunStatus,
    Status,
    StepContext,
    TimeoutPolicy,
    TriggerPolicy,
    Workflow,
    WorkflowTimeoutPolicy,
    step,
)
from fuseline.clock import SystemClock
from fuseline.errors import StorageUnavailableError
from fuseline.model import Cause
from fuseline.storage import MemoryRuntimeStorage
from fuseline.workflow import local, scheduler
from tests.unit.workflow.local_runs import SECONDS, error_of, failure, one, view_of

# ---- time


def test_a_retry_waits_for_its_time() -> None:
    times: list[float] = []

    @step(policies=[RetryPolicy(3, wait=0.05, backoff=2.0)])
    def flaky() -> str:
        times.append(time.monotonic())
        if len(times) < 3:
            raise ConnectionError("not yet")
        return "at last"

    assert Workflow(outputs=[flaky]).run() == "at last"
    assert times[1] - times[0] >= 0.049
    assert times[2] - times[1] >= 0.099


def test_other_steps_run_while_a_retry_waits() -> None:
    event = threading.Event()
    attempts: list[int] = []

    @step(policies=[RetryPolicy(2, wait=0.01)])
    def flaky() -> bool:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("not yet")
        return event.wait(SECONDS)

    @step
    def other(_n: int = Depends(one)) -> None:
        event.set()

    assert Workflow(outputs=[flaky, other]).run() == [True, None]


def test_a_timeout_stops_waiting_on_time_even_for_a_function_that_does_not_end() -> None:
    release = threading.Event()
    contexts: list[StepContext] = []

    @step(policies=[TimeoutPolicy(0.05)])
    def stuck(ctx: StepContext) -> None:
        contexts.append(ctx)
        release.wait(SECONDS)

    started = time.monotonic()
    failed = failure(Workflow(outputs=[stuck]))
    assert time.monotonic() - started < SECONDS / 2
    assert error_of(failed).cause is Cause.TIMEOUT
    assert error_of(failed).message == "attempt 1 ran longer than 0.05 s"
    assert contexts[0].cancelled
    release.set()


def test_a_timeout_cancels_a_coroutine() -> None:
    cancelled = threading.Event()

    @step(policies=[TimeoutPolicy(0.05)])
    async def stuck() -> None:
        try:
            await asyncio.sleep(SECONDS)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    assert error_of(failure(Workflow(outputs=[stuck]))).cause is Cause.TIMEOUT
    assert cancelled.wait(SECONDS)


def test_a_timeout_is_tried_again_and_the_late_result_of_the_first_attempt_changes_nothing() -> None:
    release = threading.Event()

    @step(policies=[TimeoutPolicy(0.05), RetryPolicy(2, retry_on=[TimeoutError])])
    def slow_at_first(ctx: StepContext) -> int:
        if ctx.attempt == 1:
            release.wait(SECONDS)
        return ctx.attempt

    @step
    def after(n: int = Depends(slow_at_first)) -> int:
        release.set()
        return n

    assert Workflow(outputs=[after]).run() == 2


def test_an_attempt_that_waits_too_long_for_a_place_expires() -> None:
    @step
    def holds_the_place(ctx: StepContext) -> bool:
        return ctx.wait_cancelled(SECONDS)

    @step(policies=[ExpiryPolicy(0.05)])
    def waits() -> None:
        raise AssertionError("it never starts")

    failed = failure(Workflow(outputs=[holds_the_place, waits]), max_workers=1)
    assert failed.step == "waits"
    assert error_of(failed).cause is Cause.EXPIRED


def test_an_attempt_that_has_started_does_not_expire() -> None:
    @step(policies=[ExpiryPolicy(0.01)])
    def slow() -> str:
        time.sleep(0.03)
        return "done"

    assert Workflow(outputs=[slow]).run() == "done"


def test_a_run_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "STOP_GRACE_SECONDS", 0.05)
    release = threading.Event()

    @step
    def stuck() -> None:
        release.wait(SECONDS)

    workflow = Workflow(outputs=[stuck], policies=[WorkflowTimeoutPolicy(0.05)])
    started = time.monotonic()
    failed = failure(workflow)
    assert time.monotonic() - started < SECONDS / 2
    assert failed.step is None
    assert error_of(failed).cause is Cause.RUN_TIMEOUT
    assert view_of(failed).steps["stuck"].state is Status.CANCELLED
    release.set()


class SetBackOnce(SystemClock):
    """A wall clock that somebody sets back by a little while a run waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return super().now() - self.seconds


def test_a_wall_clock_that_is_set_back_delays_timers_and_loses_none() -> None:
    clock = SetBackOnce()
    attempts: list[int] = []

    @step(policies=[RetryPolicy(2, wait=0.02)])
    def flaky() -> None:
        attempts.append(1)
        clock.seconds = 0.1
        if len(attempts) == 1:
            raise ConnectionError("away")

    @step
    def stuck(ctx: StepContext, _start: None = Depends(flaky)) -> bool:
        clock.seconds = 0.2
        return ctx.wait_cancelled(SECONDS)

    workflow = Workflow(outputs=[stuck], policies=[WorkflowTimeoutPolicy(0.3)])
    prepared = local.Prepared(workflow, {}, None, None, None, clock)
    finished = local.run(prepared)
    assert finished.stored.run.status is RunStatus.FAILED
    assert finished.stored.run.error is not None
    assert finished.stored.run.error.cause is Cause.RUN_TIMEOUT
    assert len(attempts) == 2


# ---- failure


def test_what_runs_is_told_to_stop_when_the_run_fails_and_the_run_waits_for_it() -> None:
    ended: list[str] = []
    started = threading.Barrier(3, timeout=SECONDS)

    @step
    def plain(ctx: StepContext) -> None:
        started.wait()
        assert ctx.wait_cancelled(SECONDS)
        ended.append("plain")

    @step
    async def waiting() -> None:
        try:
            await asyncio.to_thread(started.wait)
            await asyncio.sleep(SECONDS)
        finally:
            ended.append("waiting")

    @step
    def fails() -> None:
        started.wait()
        raise ValueError("of no use")

    failed = failure(Workflow(outputs=[plain, waiting, fails]))
    assert failed.step == "fails"
    assert sorted(ended) == ["plain", "waiting"]
    assert view_of(failed).steps["waiting"].state is Status.CANCELLED


def test_what_does_not_stop_is_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "STOP_GRACE_SECONDS", 0.05)
    release, started = threading.Event(), threading.Event()

    @step
    def stuck() -> None:
        started.set()
        release.wait(SECONDS)

    @step
    def fails() -> None:
        started.wait(SECONDS)
        raise ValueError("of no use")

    failed = failure(Workflow(outputs=[stuck, fails]))
    assert failed.step == "fails"
    assert view_of(failed).steps["stuck"].state is Status.CANCELLED
    release.set()


def test_clean_up_goes_on_in_a_failing_run() -> None:
    calls: list[str] = []

    @step
    def fails() -> None:
        raise ValueError("of no use")

    @step(policies=[TriggerPolicy("one_failed")])
    async def clean_up(_n: None = Depends(fails)) -> None:
        calls.append("clean up")

    @step
    def waiting(_n: None = Depends(fails)) -> None:
        calls.append("waiting")

    failed = failure(Workflow(outputs=[clean_up, waiting]))
    assert failed.step == "fails"
    assert calls == ["clean up"]
    assert view_of(failed).steps["clean_up"].state is Status.SUCCEEDED


class Ends(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("kind", [SystemExit, Ends, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("where", ["here", "thread", "loop"])
def test_a_body_cannot_end_more_than_its_own_step(kind: type[BaseException], where: str) -> None:
    @step
    def plain() -> None:
        raise kind("3")

    @step
    async def waiting() -> None:
        raise kind("3")

    storage = (
        MemoryRuntimeStorage() if where == "thread" else None
    )  # a watched run uses no thread of the caller's
    failed = failure(Workflow(outputs=[waiting if where == "loop" else plain]), storage=storage)
    assert error_of(failed).type == kind.__name__


def test_control_c_comes_through_and_cancels_the_run() -> None:
    @step
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workflow(outputs=[interrupted]).run()

    class Interrupting(MemoryRuntimeStorage):
        """Where Ctrl-C finds the scheduler."""

        def read_run_row(self, instance_id: str) -> Any:
            raise KeyboardInterrupt

    interrupting = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        Workflow(outputs=[one]).run(storage=interrupting)
    (run,) = interrupting.list_runs()
    assert run.status is RunStatus.CANCELLED


def test_a_storage_that_is_away_is_an_error_and_bodies_are_told_to_stop() -> None:
    contexts: list[StepContext] = []

    @step
    def closes(ctx: StepContext) -> None:
        contexts.append(ctx)
        storage.close()

    storage = MemoryRuntimeStorage()
    with pytest.raises(StorageUnavailableError, match="closed"):
        Workflow(outputs=[closes]).run(storage=storage)

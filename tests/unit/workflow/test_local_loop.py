"""Where the async bodies of a run in this process execute: on the caller's thread, unless something else has to go on."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fuseline import Depends, RetryPolicy, Step, TimeoutPolicy, Workflow, WorkflowTimeoutPolicy, step
from fuseline.model import Cause
from fuseline.storage import MemoryRuntimeStorage
from fuseline.workflow import local
from tests.unit.workflow.local_runs import SECONDS, error_of, failure


def here() -> str:
    return threading.current_thread().name


@step
async def first() -> list[str]:
    return [here()]


def test_a_chain_of_coroutines_stays_on_the_callers_thread_and_on_one_loop() -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    @step
    async def waits(names: list[str] = Depends(first)) -> list[str]:
        seen.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return [*names, here()]

    @step
    async def last(names: list[str] = Depends(waits)) -> list[str]:
        seen.append(asyncio.get_running_loop())
        return [*names, here()]

    before = threading.active_count()
    assert Workflow(outputs=[last]).run() == [here()] * 3
    assert len(set(map(id, seen))) == 1
    assert threading.active_count() <= before + 1  # what ends the loop, where a body waited


def test_a_chain_of_both_kinds_stays_there_while_nothing_is_left_in_the_loop() -> None:
    @step
    def plain(names: list[str] = Depends(first)) -> list[str]:
        return [*names, here()]

    @step
    async def last(names: list[str] = Depends(plain)) -> list[str]:
        return [*names, here()]

    assert Workflow(outputs=[last]).run() == [here()] * 3


def test_what_a_coroutine_left_behind_goes_on_while_a_function_runs() -> None:
    came = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        await asyncio.sleep(0.001)
        came.set()

    @step
    async def leaves() -> None:
        tasks.append(asyncio.create_task(background()))

    @step
    def plain(_n: None = Depends(leaves)) -> bool:
        return came.wait(SECONDS)

    assert Workflow(outputs=[plain]).run() is True


def test_what_is_left_behind_is_cancelled_and_holds_up_nothing() -> None:
    ended = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.set()
            await asyncio.sleep(SECONDS)

    @step
    async def leaves() -> int:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        return 1

    began = time.monotonic()
    assert Workflow(outputs=[leaves]).run() == 1
    assert ended.wait(SECONDS)
    assert time.monotonic() - began < SECONDS / 2


def test_generators_that_were_left_open_are_closed() -> None:
    closed = threading.Event()
    kept: list[AsyncIterator[int]] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    @step
    async def reads() -> int:
        kept.append(numbers())
        return await anext(kept[0])

    assert Workflow(outputs=[reads]).run() == 1
    assert closed.wait(SECONDS)


def test_a_coroutine_is_a_task_from_its_first_line() -> None:
    @step
    async def limited() -> bool:
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            one = group.create_task(asyncio.sleep(0, 1))
        task = asyncio.current_task()
        return one.result() == 1 and task is not None

    @step
    async def too_slow(_n: bool = Depends(limited)) -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(SECONDS)
        except TimeoutError:
            return "in time"
        return "late"

    assert Workflow(outputs=[too_slow]).run() == "in time"


def test_coroutines_and_functions_next_to_each_other_do_not_wait_for_each_other() -> None:
    """Even for a coroutine that blocks its loop."""
    came = threading.Event()

    @step
    async def blocks() -> bool:
        await asyncio.sleep(0)
        return came.wait(SECONDS)

    @step
    def plain() -> int:
        return 1

    @step
    def after(_n: int = Depends(plain)) -> None:
        came.set()

    assert Workflow(outputs=[blocks, after]).run() == [True, None]


@pytest.mark.parametrize("limit", ["step", "run", "retry"])
def test_a_coroutine_that_blocks_its_loop_holds_up_no_timer(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuseline.workflow.scheduler.STOP_GRACE_SECONDS", 0.05)
    release = threading.Event()

    @step(policies=[TimeoutPolicy(0.05)] if limit == "step" else [])
    async def blocks() -> bool:
        return release.wait(SECONDS)

    @step(policies=[RetryPolicy(2, wait=0.05)])
    def flaky() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("away")
        release.set()

    attempts: list[int] = []
    began = time.monotonic()
    if limit == "retry":
        Workflow(outputs=[blocks, flaky]).run()
    else:
        policies = [WorkflowTimeoutPolicy(0.05)] if limit == "run" else []
        failed = failure(Workflow(outputs=[blocks], policies=policies))
        assert error_of(failed).cause is (Cause.TIMEOUT if limit == "step" else Cause.RUN_TIMEOUT)
    assert time.monotonic() - began < SECONDS / 2
    release.set()


@pytest.mark.parametrize("waits", [False, True])
def test_control_c_in_a_coroutine_comes_through_and_leaves_no_noise(
    waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @step
    async def interrupted() -> None:
        if waits:
            await asyncio.sleep(0)
        raise KeyboardInterrupt

    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        Workflow(outputs=[interrupted]).run()
    gc.collect()
    assert caplog.records == []


def test_control_c_while_coroutines_wait_cancels_them() -> None:
    ended = threading.Event()

    @step
    async def waits() -> None:
        def strike() -> None:
            raise KeyboardInterrupt

        asyncio.get_running_loop().call_later(0.001, strike)
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        Workflow(outputs=[waits]).run()
    assert ended.wait(SECONDS)


def test_what_a_body_began_ends_no_more_than_itself() -> None:
    async def leaves_the_program() -> None:
        raise SystemExit(3)

    @step
    async def begins() -> str:
        task = asyncio.create_task(leaves_the_program())
        await asyncio.wait([task])
        return type(task.exception()).__name__

    assert Workflow(outputs=[begins]).run() == "SystemExit"


def test_cancelling_from_another_thread_wakes_the_one_that_drives() -> None:
    started, ended = threading.Event(), threading.Event()

    @step
    async def waits() -> None:
        started.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.set()

    prepared = local.prepare(Workflow(outputs=[waits]), {}, None, None, None)
    inner = local._Run(prepared)
    found: list[Any] = []
    runner = threading.Thread(target=lambda: found.append(inner.execute()))
    runner.start()
    assert started.wait(SECONDS)
    inner.cancel()
    runner.join(SECONDS)
    assert ended.is_set()
    assert found[0].stored.run.status == "CANCELLED"


def test_hooks_that_await_find_the_loop_of_the_bodies() -> None:
    seen: list[Any] = []

    class Hooked(Step):
        async def before_all(self, shared: dict[str, Any]) -> None:
            seen.append(asyncio.get_running_loop())

        async def run_step(self) -> None:
            seen.append(asyncio.get_running_loop())

        async def after_all(self, shared: dict[str, Any]) -> None:
            seen.append(asyncio.get_running_loop())

    Workflow(outputs=[Hooked()]).run()
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1


@pytest.mark.parametrize("watched", [False, True])
def test_a_run_that_somebody_watches_keeps_bodies_and_storage_apart(watched: bool) -> None:
    storage = MemoryRuntimeStorage() if watched else None
    names = Workflow(outputs=[first]).run(storage=storage)
    assert (names == [here()]) is not watched

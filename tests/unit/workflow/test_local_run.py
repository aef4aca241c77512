"""`Workflow.run` and `run_async`: the one scheduler, in this process, with real parallelism."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from fuseline import (
    Depends,
    RunFailed,
    RunStatus,
    SchemaConflictError,
    Status,
    Step,
    StepContext,
    Workflow,
    step,
)
from fuseline.errors import CallerError
from fuseline.model import Cause
from fuseline.storage import MemoryRuntimeStorage
from tests.unit.workflow.local_runs import SECONDS, error_of, failure, one, view_of

# ---- what comes back


@step
def never(n: int = Depends(one, condition=lambda _n: False)) -> int:
    return n


def test_it_returns_the_output_or_a_list_for_several_and_none_for_one_that_was_not_reached() -> None:
    assert Workflow(outputs=[one]).run() == 1
    assert Workflow(outputs=[never]).run() is None
    assert Workflow(outputs=[one, never, one]).run() == [1, None]


def test_it_raises_run_failed_with_the_step_its_error_and_the_runs_view() -> None:
    @step
    def broken(n: int = Depends(one)) -> int:
        raise ValueError("of no use")

    failed = failure(Workflow(outputs=[broken], workflow_id="w"))
    assert failed.step == "broken"
    error, view = error_of(failed), view_of(failed)
    assert (error.type, error.message, error.cause) == ("ValueError", "of no use", Cause.ERROR)
    assert error.types[:2] == ["ValueError", "builtins.ValueError"]
    assert error.traceback is not None
    assert 'raise ValueError("of no use")' in error.traceback
    assert "fuseline/workflow" not in error.traceback.replace("tests/unit", "")
    assert view.state is RunStatus.FAILED
    assert {name: one.state for name, one in view.steps.items()} == {
        "one": Status.SUCCEEDED,
        "broken": Status.FAILED,
    }
    assert (
        str(failed) == f"run {view.instance_id} of workflow 'w' FAILED: step 'broken': ValueError: of no use"
    )


def test_it_does_not_raise_when_told_so() -> None:
    @step
    def broken(n: int = Depends(one)) -> int:
        raise ValueError

    workflow = Workflow(outputs=[one, broken])
    assert workflow.run(raise_on_failure=False) == [1, None]
    assert asyncio.run(workflow.run_async(raise_on_failure=False)) == [1, None]
    assert str(failure(workflow)).endswith("FAILED: step 'broken': ValueError")


# ---- parallelism


def test_independent_functions_run_at_the_same_time_on_threads() -> None:
    barrier = threading.Barrier(3, timeout=SECONDS)

    def meet(name: str) -> Step:
        @step(name=name)
        def body() -> str:
            barrier.wait()
            return threading.current_thread().name

        return body

    names = Workflow(outputs=[meet("a"), meet("b"), meet("c")]).run()
    assert len(set(names)) == 3


def test_independent_coroutines_run_at_the_same_time_on_one_loop() -> None:
    barrier = asyncio.Barrier(3)

    def meet(name: str) -> Step:
        @step(name=name)
        async def body() -> str:
            async with asyncio.timeout(SECONDS):
                await barrier.wait()
            return threading.current_thread().name

        return body

    assert len(set(Workflow(outputs=[meet("a"), meet("b"), meet("c")]).run())) == 1


def test_functions_and_coroutines_run_at_the_same_time() -> None:
    event = threading.Event()

    @step
    def waits() -> bool:
        return event.wait(SECONDS)

    @step
    async def sets() -> None:
        event.set()

    assert Workflow(outputs=[waits, sets]).run() == [True, None]


@pytest.mark.parametrize("is_async", [False, True])
def test_max_workers_bounds_how_many_run_at_the_same_time(is_async: bool) -> None:
    lock = threading.Lock()
    counts = {"now": 0, "most": 0}

    def change(by: int) -> None:
        with lock:
            counts["now"] += by
            counts["most"] = max(counts["most"], counts["now"])

    def body_of(name: str) -> Step:
        @step(name=name)
        def plain() -> None:
            change(1)
            time.sleep(0.002)
            change(-1)

        @step(name=name)
        async def waiting() -> None:
            change(1)
            await asyncio.sleep(0.002)
            change(-1)

        return waiting if is_async else plain

    workflow = Workflow(outputs=[body_of(f"s{index}") for index in range(20)])
    workflow.run(max_workers=2)
    assert counts["most"] == 2


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_max_workers_is_a_number_from_1(wrong: Any) -> None:
    with pytest.raises(CallerError, match="max_workers is a number from 1"):
        Workflow(outputs=[one]).run(max_workers=wrong)


def test_a_chain_of_functions_stays_on_the_callers_thread() -> None:
    @step
    def first() -> str:
        return threading.current_thread().name

    @step
    def second(name: str = Depends(first)) -> list[str]:
        return [name, threading.current_thread().name]

    assert Workflow(outputs=[second]).run() == [threading.current_thread().name] * 2


def test_a_wide_run_finishes() -> None:
    def make(index: int) -> Step:
        @step(name=f"s{index}")
        def body(n: int = Depends(one)) -> int:
            return n + index

        return body

    middle = [make(index) for index in range(2000)]

    @step
    def last() -> str:
        return "done"

    for each in middle:
        each >> last
    assert Workflow(outputs=[last, middle[1999]]).run() == ["done", 2000]


def test_context_variables_reach_every_body() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @step
    def here() -> str:
        return variable.get()

    @step
    def thread(_start: str = Depends(here)) -> str:
        return variable.get()

    @step
    async def loop(_start: str = Depends(here)) -> str:
        return variable.get()

    workflow = Workflow(outputs=[here, thread, loop])
    variable.set("set")
    assert workflow.run() == ["set"] * 3

    async def inside() -> Any:
        return workflow.run(), await workflow.run_async()

    assert asyncio.run(inside()) == (["set"] * 3, ["set"] * 3)


@pytest.mark.parametrize("storage", [None, MemoryRuntimeStorage()], ids=["here", "on threads"])
def test_what_a_body_sets_in_its_context_stays_there(storage: MemoryRuntimeStorage | None) -> None:
    """Wherever it is executed: not in the next body, not with the caller and not in his next run."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @step
    def first() -> str:
        before = variable.get()
        variable.set("set")
        return before

    @step
    def second(_start: str = Depends(first)) -> str:
        return variable.get()

    workflow = Workflow(outputs=[first, second])
    for _ in range(2):
        assert workflow.run(storage=storage) == ["unset", "unset"]
    assert variable.get() == "unset"


def test_no_thread_stays_behind() -> None:
    @step
    async def waiting(_n: int = Depends(one)) -> int:
        return 1

    @step
    def plain(_n: int = Depends(one)) -> int:
        return 1

    before = set(threading.enumerate())
    Workflow(outputs=[waiting, plain]).run()
    for thread in set(threading.enumerate()) - before:
        thread.join(SECONDS)
        assert not thread.is_alive()


# ---- storage


def test_the_run_is_recorded_in_the_storage() -> None:
    storage = MemoryRuntimeStorage()
    workflow = Workflow(outputs=[one], workflow_id="recorded")
    assert workflow.run(storage=storage) == 1
    assert workflow.run(storage=storage) == 1
    runs = storage.list_runs(workflow_id="recorded")
    assert [run.status for run in runs] == [RunStatus.SUCCEEDED] * 2
    stored = storage.read_run(runs[0].instance_id)
    assert stored is not None
    assert stored.steps["one"].result == 1
    assert stored.steps["one"].holder == runs[0].instance_id


def test_a_watched_run_says_what_runs() -> None:
    storage = MemoryRuntimeStorage()
    states: list[Status] = []

    @step
    def look(ctx: StepContext) -> None:
        stored = storage.read_run(ctx.instance_id)
        assert stored is not None
        states.append(stored.steps["look"].status)

    Workflow(outputs=[look]).run(storage=storage)
    assert states == [Status.RUNNING]


def test_a_storage_that_knows_another_graph_of_this_version_is_an_error() -> None:
    storage = MemoryRuntimeStorage()
    Workflow(outputs=[one], workflow_id="w").run(storage=storage)
    with pytest.raises(SchemaConflictError, match="'w' version '1' is registered with another graph"):
        Workflow(outputs=[never], workflow_id="w").run(storage=storage)


# ---- loops


def test_run_works_inside_a_running_loop() -> None:
    @step
    def own_loop() -> int:
        return asyncio.run(asyncio.sleep(0, 1))

    @step
    async def waiting(n: int = Depends(own_loop)) -> int:
        return n + 1

    workflow = Workflow(outputs=[waiting])

    async def main() -> Any:
        return workflow.run()

    assert asyncio.run(main()) == 2
    assert workflow.run() == 2


def test_run_async_runs_coroutines_on_this_loop_and_functions_on_threads() -> None:
    @step
    async def waiting() -> bool:
        return loops == [asyncio.get_running_loop()]

    @step
    def plain(here: bool = Depends(waiting)) -> list[bool]:
        return [here, threading.current_thread() is main_thread]

    main_thread = threading.current_thread()
    workflow = Workflow(outputs=[plain])

    async def main() -> Any:
        loops.append(asyncio.get_running_loop())
        return await workflow.run_async()

    loops: list[asyncio.AbstractEventLoop] = []
    assert asyncio.run(main()) == [True, False]


def test_run_async_raises_what_run_raises() -> None:
    @step
    async def broken() -> None:
        raise ValueError("of no use")

    with pytest.raises(RunFailed, match="of no use"):
        asyncio.run(Workflow(outputs=[broken]).run_async())


def test_several_runs_at_once_on_one_loop() -> None:
    @step
    async def waiting(n: int) -> int:
        await asyncio.sleep(0)
        return n

    workflow = Workflow(outputs=[waiting])

    async def main() -> list[int]:
        return list(await asyncio.gather(*(workflow.run_async({"n": n}) for n in range(10))))

    assert asyncio.run(main()) == list(range(10))


def test_cancelling_run_async_cancels_the_run() -> None:
    storage = MemoryRuntimeStorage()
    ended: list[str] = []

    @step
    def plain(ctx: StepContext) -> None:
        ctx.wait_cancelled(SECONDS)
        ended.append("plain")

    async def main() -> None:
        started = asyncio.Event()

        @step
        async def waiting() -> None:
            started.set()
            try:
                await asyncio.sleep(SECONDS)
            finally:
                ended.append("waiting")

        workflow = Workflow(outputs=[waiting, plain])
        task = asyncio.create_task(workflow.run_async(storage=storage))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (run,) = storage.list_runs()
    assert run.status is RunStatus.CANCELLED
    assert "waiting" in ended

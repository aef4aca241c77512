"""A run leaves its loop to the next one, if nobody could tell: what it left in a loop goes with that loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from fuseline import Workflow, step
from fuseline.workflow import loops

SEEN: list[asyncio.AbstractEventLoop] = []
Leave = Callable[[asyncio.AbstractEventLoop], object]


@step
async def looks() -> None:
    SEEN.append(asyncio.get_running_loop())


FLOW = Workflow(outputs=[looks])


@pytest.fixture(autouse=True)
def no_loops() -> Iterator[None]:
    loops._close_kept()
    SEEN.clear()
    yield
    loops._close_kept()


def loop_of_a_run() -> asyncio.AbstractEventLoop:
    FLOW.run()
    return SEEN[-1]


def test_the_next_run_has_the_same_loop() -> None:
    first = loop_of_a_run()
    assert loop_of_a_run() is first
    assert not first.is_closed()


def test_runs_at_the_same_time_have_a_loop_each_and_few_are_kept() -> None:
    together = threading.Barrier(loops.MAX_KEPT + 4)

    @step
    async def meets() -> None:
        SEEN.append(asyncio.get_running_loop())
        together.wait(10)

    flow = Workflow(outputs=[meets])
    threads = [threading.Thread(target=flow.run) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(map(id, SEEN))) == together.parties
    assert sum(not one.is_closed() for one in SEEN) == loops.MAX_KEPT


def _open_generator(_loop: asyncio.AbstractEventLoop) -> object:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    one = numbers()
    with pytest.raises(StopIteration):
        one.__anext__().__await__().__next__()
    return one


LEFT: dict[str, Leave | None] = {
    "a reader": None,
    "a callback": lambda loop: loop.call_soon(print),
    "a timer": lambda loop: loop.call_later(60, print),
    "an executor": lambda loop: loop.run_in_executor(None, int),
    "an exception handler": lambda loop: loop.set_exception_handler(lambda *_: None),
    "a task factory": lambda loop: loop.set_task_factory(None),
    "debugging": lambda loop: loop.set_debug(True),
    "an attribute": lambda loop: setattr(loop, "of_mine", 1),
    "a task": lambda loop: loop.create_task(asyncio.sleep(0)),
    "a generator": _open_generator,
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_body_leaves_in_its_loop_goes_with_it(what: str) -> None:
    kept: list[Any] = []
    read, write = os.pipe()

    @step
    async def leaves() -> None:
        loop = asyncio.get_running_loop()
        SEEN.append(loop)
        if (leave := LEFT[what]) is None:
            loop.add_reader(read, print)
        else:
            kept.append(leave(loop))

    Workflow(outputs=[leaves]).run()
    assert loop_of_a_run() is not SEEN[0]
    os.close(read)
    os.close(write)


def test_another_policy_is_gone_by_from_the_next_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = loop_of_a_run()
    monkeypatch.setattr(loops, "_policy", object)
    assert loop_of_a_run() is not first
    assert first.is_closed()


def test_a_forked_process_leaves_the_loops_to_its_parent() -> None:
    first = loop_of_a_run()
    child = os.fork()
    if not child:
        try:
            os._exit(0 if loop_of_a_run() is not first and not first.is_closed() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert loop_of_a_run() is first

    @step
    async def waits() -> int:  # which takes the loop's own pipe
        return await asyncio.to_thread(int, "7")

    assert Workflow(outputs=[waits]).run() == 7


def test_a_run_leaves_nothing_for_the_collector() -> None:
    FLOW.run()
    gc.collect()
    gc.disable()
    try:
        FLOW.run()
        assert gc.collect() == 0
    finally:
        gc.enable()

"""The executors: every kind of body ends in at most one outcome, and none holds up the others (P6, P7)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from fuseline.errors import LoadError
from fuseline.model import Cause, Status
from fuseline.worker import executors
from fuseline.worker.executors import Executor, LoopExecutor, ProcessExecutor, ThreadExecutor
from fuseline.worker.reports import Sealed
from fuseline.worker.slots import Slots
from tests.unit.worker.bodies import (
    assignment,
    async_job,
    child_main,
    child_main_that_cannot_load,
    child_main_that_dies,
    sealer,
    sync_job,
)

SECONDS = 20.0


@pytest.fixture
def threads() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor()
    yield executor
    executor.close()


@pytest.fixture
def loops() -> Iterator[LoopExecutor]:
    executor = LoopExecutor()
    yield executor
    executor.close()


@pytest.fixture
def processes() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(child_main, [], sealer())
    yield executor
    executor.close()


class Outcomes:
    """Where an executor hands its outcomes."""

    def __init__(self) -> None:
        self._queue: Queue[Sealed] = Queue()

    def __call__(self, sealed: Sealed) -> None:
        self._queue.put(sealed)

    def next(self) -> Sealed:
        return self._queue.get(timeout=SECONDS)

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


def freed(executor: Executor) -> threading.Event:
    event = threading.Event()
    executor.on_freed = event.set
    return event


# ---- threads


def test_a_sync_body_runs_off_the_callers_thread_and_its_outcome_comes_back(threads: ThreadExecutor) -> None:
    outcomes = Outcomes()
    threads.start(sync_job(assignment("a"), threading.get_ident), outcomes)
    sealed = outcomes.next()
    assert sealed.report.state is Status.SUCCEEDED
    assert sealed.report.result != threading.get_ident()
    assert sealed.report.worker_id == "w1"


def test_a_thread_is_used_again(threads: ThreadExecutor) -> None:
    outcomes = Outcomes()
    for _ in range(20):
        threads.start(sync_job(assignment("a"), lambda: 1), outcomes)
        outcomes.next()
    # The next job may come before the last thread is back, but they do not pile up.
    assert threads.threads <= 2


def test_an_abandoned_body_is_counted_until_it_ends_and_its_late_outcome_dropped(
    threads: ThreadExecutor,
) -> None:
    outcomes, begun, release, told = Outcomes(), threading.Event(), threading.Event(), threading.Event()
    gone = freed(threads)

    def body() -> int:
        begun.set()
        release.wait(SECONDS)
        return 1

    running = threads.start(sync_job(assignment("a"), body, told.set), outcomes)
    assert begun.wait(SECONDS)
    assert running.stop()
    assert running.stop()  # twice is once
    assert told.is_set()  # ctx.cancelled
    assert threads.abandoned == 1
    threads.start(sync_job(assignment("b"), lambda: 2), outcomes)
    assert outcomes.next().report.step_name == "b"
    release.set()
    assert gone.wait(SECONDS)
    assert threads.abandoned == 0
    assert outcomes.is_empty


def test_stopping_a_body_that_is_over_is_too_late(threads: ThreadExecutor) -> None:
    outcomes = Outcomes()
    running = threads.start(sync_job(assignment("a"), lambda: 1), outcomes)
    outcomes.next()
    assert not running.stop()
    assert threads.abandoned == 0


def test_a_body_that_raises_system_exit_is_a_report(threads: ThreadExecutor) -> None:
    def body() -> None:
        raise SystemExit(3)

    outcomes = Outcomes()
    threads.start(sync_job(assignment("a"), body), outcomes)
    error = outcomes.next().report.error
    assert error is not None
    assert error.type == "SystemExit"
    threads.start(sync_job(assignment("a"), lambda: "still there"), outcomes)
    assert outcomes.next().report.result == "still there"


def test_a_closed_executor_ends_its_idle_threads() -> None:
    executor, outcomes = ThreadExecutor("ending"), Outcomes()
    executor.start(sync_job(assignment("a"), lambda: 1), outcomes)
    outcomes.next()
    executor.close()
    for thread in [one for one in threading.enumerate() if one.name.startswith("ending")]:
        thread.join(SECONDS)
        assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        executor.start(sync_job(assignment("a"), lambda: 1), outcomes)


# ---- the loop


def test_coroutines_run_together_on_a_loop_of_their_own(loops: LoopExecutor) -> None:
    outcomes = Outcomes()
    meeting: dict[str, asyncio.Event] = {}

    async def waits() -> int:
        meeting["event"] = asyncio.Event()
        async with asyncio.timeout(SECONDS):
            await meeting["event"].wait()
        return threading.get_ident()

    async def wakes() -> int:
        meeting["event"].set()
        return threading.get_ident()

    loops.start(async_job(assignment("a"), waits), outcomes)
    loops.start(async_job(assignment("b"), wakes), outcomes)
    idents = {outcomes.next().report.result, outcomes.next().report.result}
    assert len(idents) == 1
    assert threading.get_ident() not in idents


def test_a_stopped_coroutine_is_cancelled(loops: LoopExecutor) -> None:
    outcomes, begun, cleaned, gone = Outcomes(), threading.Event(), threading.Event(), freed(loops)

    async def body() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            cleaned.set()

    running = loops.start(async_job(assignment("a"), body), outcomes)
    assert begun.wait(SECONDS)
    assert running.stop()
    assert cleaned.wait(SECONDS)
    assert gone.wait(SECONDS)
    assert loops.abandoned == 0
    assert outcomes.is_empty


def test_a_coroutine_that_swallows_its_cancellation_is_abandoned(loops: LoopExecutor) -> None:
    outcomes, begun, swallowed, gone = Outcomes(), threading.Event(), threading.Event(), freed(loops)
    release: list[asyncio.Event] = []

    async def body() -> None:
        release.append(asyncio.Event())
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            swallowed.set()
        await release[0].wait()

    running = loops.start(async_job(assignment("a"), body), outcomes)
    assert begun.wait(SECONDS)
    assert running.stop()
    assert swallowed.wait(SECONDS)
    assert loops.abandoned == 1
    loops.post(release[0].set)
    assert gone.wait(SECONDS)
    assert loops.abandoned == 0
    assert outcomes.is_empty


def held_up(loops: LoopExecutor) -> threading.Event:
    """The loop does nothing until this is set."""
    blocked, release = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        release.wait(SECONDS)

    loops.post(block)
    assert blocked.wait(SECONDS)
    return release


def test_a_coroutine_stopped_before_its_first_step_is_not_counted_for_ever(loops: LoopExecutor) -> None:
    """Begun and cancelled in one turn of the loop, a task never runs, not even its `finally`."""
    outcomes, gone = Outcomes(), freed(loops)
    ran = threading.Event()

    async def body() -> None:
        ran.set()

    release = held_up(loops)
    running = loops.start(async_job(assignment("a"), body), outcomes)
    assert running.stop()
    release.set()
    assert gone.wait(SECONDS)
    assert loops.abandoned == 0
    assert not ran.is_set()


def test_a_loop_whose_tasks_begin_at_once_keeps_nothing_of_them(loops: LoopExecutor) -> None:
    """P6: a body may say so of its loop (`eager_task_factory`, since Python 3.12)."""

    def begin(coroutine: Any) -> asyncio.Future[None]:
        over: asyncio.Future[None] = asyncio.Future()
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
        over.set_result(None)
        return over

    def make_eager() -> None:
        asyncio.get_running_loop().create_task = begin  # type: ignore[method-assign,assignment]

    async def body() -> int:
        return 1

    outcomes, gone = Outcomes(), freed(loops)
    loops._loop = asyncio.new_event_loop()
    threading.Thread(target=loops._run, args=(loops._loop,), daemon=True).start()
    loops.post(make_eager)
    running = loops.start(async_job(assignment("a"), body), outcomes)
    assert outcomes.next().report.state is Status.SUCCEEDED
    assert not running.stop()

    release = held_up(loops)
    running = loops.start(async_job(assignment("b"), body), outcomes)
    assert running.stop()
    release.set()
    assert gone.wait(SECONDS)
    assert (loops.abandoned, loops._tasks) == (0, set())


def test_a_coroutine_that_blocks_its_loop_does_not_block_stop(loops: LoopExecutor) -> None:
    outcomes, begun, release = Outcomes(), threading.Event(), threading.Event()

    async def body() -> None:
        begun.set()
        release.wait(SECONDS)

    running = loops.start(async_job(assignment("a"), body), outcomes)
    assert begun.wait(SECONDS)
    assert running.stop()
    assert loops.abandoned == 1
    release.set()


# ---- processes


def test_a_process_is_kept_for_the_next_body(processes: ProcessExecutor) -> None:
    outcomes = Outcomes()
    processes.prepare()
    pids = set()
    for _ in range(3):
        processes.start(sync_job(assignment("pid"), _never), outcomes)
        pids.add(outcomes.next().report.result)
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize(("code", "said"), [(0, "exited with code 0"), (9, "exited with code 9")])
def test_a_body_that_ends_its_process_is_a_failed_report(
    processes: ProcessExecutor, code: int, said: str
) -> None:
    outcomes = Outcomes()
    processes.start(sync_job(assignment("exit", value=code, attempt=2), _never), outcomes)
    report = outcomes.next().report
    assert report.state is Status.FAILED
    assert report.attempt == 2
    assert report.error is not None
    assert report.error.type == "WorkerProcessDied"
    assert report.error.cause is Cause.ERROR  # so that a RetryPolicy applies
    assert said in report.error.message
    processes.start(sync_job(assignment("pid"), _never), outcomes)
    assert outcomes.next().report.state is Status.SUCCEEDED


def test_a_body_killed_from_outside_is_a_failed_report(processes: ProcessExecutor, tmp_path: Path) -> None:
    outcomes = Outcomes()
    processes.start(sync_job(assignment("sleep", value=str(tmp_path / "pid")), _never), outcomes)
    os.kill(_pid_in(tmp_path / "pid"), 9)
    error = outcomes.next().report.error
    assert error is not None
    assert "killed by signal 9" in error.message


def test_a_process_that_cannot_be_started_is_a_failed_report(
    processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: it ended the thread that waited, and the attempt was held for ever."""

    def no_process(*_args: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    outcomes = Outcomes()
    with monkeypatch.context() as patched:
        patched.setattr(executors.processes, "_Child", no_process)
        processes.start(sync_job(assignment("pid"), _never), outcomes)
        error = outcomes.next().report.error
        assert error is not None
        assert "temporarily unavailable" in error.message
    processes.prepare()
    monkeypatch.setattr(executors.processes, "_Child", no_process)
    # One that dies now cannot be replaced, and that changes nothing of its own report.
    processes.start(sync_job(assignment("exit", value=9), _never), outcomes)
    error = outcomes.next().report.error
    assert error is not None
    assert error.type == "WorkerProcessDied"


def test_stopping_kills_the_process_and_the_next_body_gets_another(
    processes: ProcessExecutor, tmp_path: Path
) -> None:
    outcomes, gone = Outcomes(), freed(processes)
    running = processes.start(sync_job(assignment("sleep", value=str(tmp_path / "pid")), _never), outcomes)
    pid = _pid_in(tmp_path / "pid")
    assert running.stop()
    assert gone.wait(SECONDS)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert outcomes.is_empty
    processes.start(sync_job(assignment("pid"), _never), outcomes)
    assert outcomes.next().report.result != pid


def test_system_exit_and_a_huge_result_in_a_process_are_reports(processes: ProcessExecutor) -> None:
    outcomes = Outcomes()
    processes.start(sync_job(assignment("system_exit", value=1), _never), outcomes)
    error = outcomes.next().report.error
    assert error is not None
    assert error.type == "SystemExit"
    processes.start(sync_job(assignment("huge", value=200_000), _never), outcomes)
    error = outcomes.next().report.error
    assert error is not None
    assert error.type == "MessageTooLargeError"
    assert error.cause is Cause.INVALID


def test_closing_kills_what_runs(tmp_path: Path) -> None:
    executor, outcomes = ProcessExecutor(child_main, [], sealer()), Outcomes()
    gone = freed(executor)
    executor.start(sync_job(assignment("sleep", value=str(tmp_path / "pid")), _never), outcomes)
    pid = _pid_in(tmp_path / "pid")
    executor.close()
    assert gone.wait(SECONDS)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_load_the_workflows_is_an_error_before_anything_runs() -> None:
    with pytest.raises(LoadError, match="nothing to load"):
        ProcessExecutor(child_main_that_cannot_load, [], sealer()).prepare()
    with pytest.raises(LoadError, match="exited with code 7"):
        ProcessExecutor(child_main_that_dies, [], sealer()).prepare()


# ---- places


def test_an_abandoned_body_keeps_its_place_until_it_ends(
    threads: ThreadExecutor, loops: LoopExecutor
) -> None:
    """P6: with 2 places no more than 2 bodies run, told to stop or not."""
    slots, release = Slots(2, threads, loops), threading.Event()
    begun: Queue[int] = Queue()

    def body() -> None:
        begun.put(1)
        release.wait(SECONDS)

    free = []
    for _ in range(2):
        running = slots.start(sync_job(assignment("a"), body), Outcomes())
        begun.get(timeout=SECONDS)
        assert running.stop()
        slots.end()
        free.append(slots.free)
    assert free == [1, 0]
    assert slots.is_exhausted
    ended = threading.Semaphore(0)
    slots.on_freed(ended.release)
    release.set()
    for _ in range(2):
        assert ended.acquire(timeout=SECONDS)
    assert slots.free == 2
    assert slots.freed == 2
    assert not slots.is_exhausted


def _never() -> Any:
    raise AssertionError("a process executor does not run the body here")


def _pid_in(path: Path) -> int:
    _wait_for(path.exists)
    return int(path.read_text())


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

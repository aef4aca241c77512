"""Sync bodies in processes of their own, one per running step: they can be killed, and their crash is only a report."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.errors import LoadError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.worker import child
from fuseline.worker.executors.base import Done, Executor, Job, Running
from fuseline.worker.executors.threads import ThreadExecutor
from fuseline.worker.reports import Sealed, Sealer, crashed, died

log = logging.getLogger(__name__)

# Not fork: threads of ours hold locks that a copy of the process would keep for ever. Not forkserver: it is a third
# process, and a SIGTERM for the whole group ends it under the running steps.
_CONTEXT: Final = multiprocessing.get_context("spawn")

END_SECONDS: Final = 10.0
"""How long a process may take to leave: `after_all` hooks run then."""

ChildMain = Callable[..., None]


class _Child:
    """A process that executes one assignment after the other. Used by one thread at a time; `kill` is for any."""

    def __init__(self, main: ChildMain, args: Sequence[Any]) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process: BaseProcess = _CONTEXT.Process(target=main, args=(theirs, *args), name="fuseline step")
        self._process.start()
        theirs.close()
        self.is_ready = False

    def wait_ready(self) -> None:
        """Wait until it has loaded the workflows. Raises `LoadError` when it cannot, `EOFError` when it is gone."""
        hello = self._pipe.recv_bytes().decode()
        if hello != child.READY:
            raise LoadError(hello)
        self.is_ready = True

    def execute(self, assignment: StepAssignment) -> bytes:
        """The report's body. Raises `EOFError` when the process is gone."""
        self._pipe.send_bytes(assignment.model_dump_json().encode())
        return self._pipe.recv_bytes()

    @property
    def is_alive(self) -> bool:
        """Whether it may be given work."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it at once, with the processes that its step has started."""
        pid = self._process.pid
        if pid is None or not self._process.is_alive():
            return
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its own group yet, and no step runs in it
            self._process.kill()

    def end(self) -> int | None:
        """Let it go (it leaves when its pipe closes) or reap it; its exit code."""
        self._pipe.close()
        self._process.join(END_SECONDS)
        self.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        return code


class _Call:
    """One assignment on its way through a child."""

    def __init__(self, executor: ProcessExecutor, assignment: StepAssignment) -> None:
        self._executor = executor
        self._assignment = assignment
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._is_killed = False
        self.running: Running | None = None

    def run(self) -> Sealed:
        """On a thread of the executor. A killed call's outcome is dropped."""
        sealer, assignment = self._executor.sealer, self._assignment
        started_at = sealer.clock.now()
        try:
            one = self._executor.take_child()
        except (
            OSError
        ) as error:  # no process or file descriptor is left: an attempt that failed, and no dead thread
            return sealer.seal(crashed(assignment, error), started_at)
        with self._lock:
            self._child = one
            if self._is_killed:
                one.kill()
        try:
            if not one.is_ready:
                one.wait_ready()
            body = one.execute(assignment)
        except (EOFError, OSError):  # its end of the pipe closed: reading finds the end, writing fails
            with self._lock:
                self._child = None
            code = one.end()
            self._executor.replace()
            return sealer.seal(died(assignment, code), started_at)
        except LoadError as error:
            with self._lock:
                self._child = None
            one.end()
            return sealer.seal(crashed(assignment, error), started_at)
        with self._lock:
            self._child = None
            killed = self._is_killed
        if killed:
            one.end()
            self._executor.replace()
        else:
            self._executor.give_back(one)
        return Sealed(StepReport(**codec.decode(body)), body)

    def stop(self) -> bool:
        """Drop the outcome, kill the process."""
        assert self.running is not None
        stopped = self.running.stop()
        if stopped:
            self._executor.forget(self)
            with self._lock:
                self._is_killed = True
                if self._child is not None:
                    self._child.kill()
        return stopped


class ProcessExecutor(Executor):
    """A process a running job, kept for the next one.

    `main(pipe, *args)` is what runs in it: a function of a module, that calls `child.serve`. `args` can be pickled.
    `prepare` starts `processes` of them, and one that was killed or crashed is replaced at once: an execution timeout
    runs while a process starts, too.
    """

    def __init__(self, main: ChildMain, args: Sequence[Any], sealer: Sealer, processes: int = 1) -> None:
        self.sealer = sealer
        self._processes = processes
        self._main = main
        self._args = args
        self._threads = ThreadExecutor("fuseline process keeper")
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._calls: set[_Call] = set()
        self._is_closed = False

    @property
    def abandoned(self) -> int:
        """Killed processes that are not reaped yet."""
        return self._threads.abandoned

    def prepare(self) -> None:
        """Start the processes. Raises `LoadError` when they cannot import the workflows."""
        self._threads.on_freed = self.on_freed
        started = [_Child(self._main, self._args) for _ in range(self._processes)]
        while started:
            one = started.pop()
            try:
                one.wait_ready()
            except (EOFError, LoadError) as error:
                for other in started:
                    other.kill()
                    other.end()
                code = one.end()
                if isinstance(error, LoadError):
                    raise
                text = f"a process of its own exited with code {code} before it was ready"
                raise LoadError(text) from None
            self.give_back(one)

    def start(self, job: Job, done: Done) -> Running:
        """Hand `job.assignment` to an idle process, or to a new one."""
        self._threads.on_freed = self.on_freed
        call = _Call(self, job.assignment)

        def finished(sealed: Sealed) -> None:
            self._calls.discard(call)
            done(sealed)

        self._calls.add(call)
        call.running = self._threads.start(Job(job.assignment, sync=call.run), finished)
        return call

    def forget(self, call: _Call) -> None:
        """It was stopped; nothing comes of it."""
        self._calls.discard(call)

    def close(self) -> None:
        """Kill what runs, end what is idle."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for call in list(self._calls):
            call.stop()
        self._threads.close()
        for one in idle:
            one.end()

    def take_child(self) -> _Child:
        """An idle process that lives, or a new one."""
        while True:
            with self._lock:
                one = self._idle.pop() if self._idle else None
            if one is None:
                break
            if one.is_alive:
                return one
            one.end()
        return _Child(self._main, self._args)

    def replace(self) -> None:
        """A process is gone: have another one ready by the time that it is wanted."""
        if self._is_closed:
            return
        try:
            one = _Child(self._main, self._args)
        except OSError as error:
            log.warning("a process of its own cannot be started, the next step will try again: %s", error)
        else:
            self.give_back(one)

    def give_back(self, one: _Child) -> None:
        """It may be used again."""
        with self._lock:
            if not self._is_closed:
                self._idle.append(one)
                return
        one.end()

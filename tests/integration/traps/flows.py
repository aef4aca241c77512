"""What steps do to their workers. Importable by workers in processes of their own."""

from __future__ import annotations

import os
import signal
import time

from fuseline.workflow import Depends, RetryPolicy, StepContext, Workflow, step


def write_line(path: str, line: str) -> None:
    """Append in one go, whoever else does."""
    with open(path, "a") as file:
        file.write(f"{line}\n")


@step
def kill_worker(path: str) -> None:
    """Takes down the process that it runs in, before anything could be said about it."""
    write_line(path, str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


@step
def fill_memory(path: str) -> None:
    """Says which process it runs in, and waits for the kernel to do its worst."""
    write_line(path, str(os.getpid()))
    time.sleep(600)


@step(policies=[RetryPolicy(30)])
def kill_process(path: str) -> None:
    """As `kill_worker`, with retries galore."""
    write_line(path, str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


@step(policies=[RetryPolicy(30)])
def fill_process(path: str) -> None:
    """As `fill_memory`, with retries galore."""
    write_line(path, str(os.getpid()))
    time.sleep(600)


@step
def note_first(path: str, ctx: StepContext) -> str:
    """Takes a moment, and writes down that it ran to its end."""
    time.sleep(0.02)
    write_line(path, f"{ctx.instance_id}/{ctx.step_name}/{ctx.attempt} {os.getpid()}")
    return ctx.instance_id


@step
def note_second(path: str, ctx: StepContext, one: str = Depends(note_first)) -> str:
    """The same again, after it."""
    time.sleep(0.02)
    write_line(path, f"{ctx.instance_id}/{ctx.step_name}/{ctx.attempt} {os.getpid()}")
    return one


killing = Workflow(outputs=[kill_worker], workflow_id="killing")
filling = Workflow(outputs=[fill_memory], workflow_id="filling")
killing_process = Workflow(outputs=[kill_process], workflow_id="killing process")
filling_process = Workflow(outputs=[fill_process], workflow_id="filling process")
noting = Workflow(outputs=[note_second], workflow_id="noting")

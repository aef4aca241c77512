"""The workflows that the workers under fire load: `tests.fault.workload.bodies:workflows`.

What a step does is in its run's inputs, so that one body serves all. Each execution leaves lines in a log that only this
process appends to, one `write` a line: a killed process can lose its last line, and spoil no other.

Environment: `FAULT_SEED` draws the graphs, `FAULT_BODIES` is `async` or `plain`, `FAULT_LOGS` the folder of the logs.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fuseline.model.schema import WorkflowSchema
from fuseline.workflow import Depends, FunctionStep, StepContext, Workflow
from fuseline.workflow.step import Branch
from tests.fault.workload.graphs import conditioned, draw_workflows


class Scripted(Exception):
    """A failure that the run's inputs asked for."""


class Stopped(Exception):
    """The step was told that nobody waits for it any more."""


class ExecutionLog:
    """The log of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._file = -1

    def write(self, **line: Any) -> None:
        """Append one line."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self._folder / f"executions-{self._pid}-{time.time_ns()}.jsonl"
            self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(self._file, json.dumps({**line, "at": time.time(), "pid": self._pid}).encode() + b"\n")


_log = ExecutionLog(Path(os.environ.get("FAULT_LOGS", ".")))


class Execution:
    """One execution of one attempt, as its body goes through it."""

    def __init__(
        self, ctx: StepContext, scripts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
    ) -> None:
        self._ctx = ctx
        self._script = scripts.get(ctx.step_name, {})
        self._nonce = secrets.token_hex(6)
        seen = {name: value["nonce"] for name, value in given.items() if isinstance(value, dict)}
        self._say("start", seen=seen, names=sorted(given))
        if ctx.attempt <= self._script.get("kills", 0):
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return float(self._script.get("seconds", 0.0))

    def stopped(self) -> None:
        """It was told to stop."""
        self._say("end", outcome="stopped")

    def end(self) -> Any:
        """Its result. Raises `Scripted` if it is to fail."""
        if self._script.get("state") == "FAILED" or self._ctx.attempt <= self._script.get("failures", 0):
            self._say("end", outcome="failed")
            raise Scripted(self._ctx.step_name)
        self._say("end", outcome="succeeded")
        value = {"nonce": self._nonce, "skips": self._script.get("skips", [])}
        action = self._script.get("action")
        return value if action is None else Branch(action, value)

    def _say(self, what: str, **more: Any) -> None:
        ctx = self._ctx
        _log.write(
            what=what, run=ctx.instance_id, step=ctx.step_name, attempt=ctx.attempt, nonce=self._nonce, **more
        )


def _plain(ctx: StepContext, scripts: dict[str, Any], **given: Any) -> Any:
    execution = Execution(ctx, scripts, given)
    if execution.seconds and ctx.wait_cancelled(execution.seconds):
        execution.stopped()
        raise Stopped
    return execution.end()


async def _async(ctx: StepContext, scripts: dict[str, Any], **given: Any) -> Any:
    execution = Execution(ctx, scripts, given)
    try:
        await asyncio.sleep(execution.seconds)
    except asyncio.CancelledError:
        execution.stopped()
        raise
    return execution.end()


def make_workflow(schema: WorkflowSchema, *, is_async: bool = False) -> Workflow:
    """The workflow of a schema, with bodies."""
    made: dict[str, FunctionStep[..., Any]] = {}
    conditions = conditioned(schema)
    for name in schema.steps:  # sources come first
        condition = partial(_is_not_skipped, name) if name in conditions else None
        made[name] = FunctionStep(_body(schema, name, made, condition, is_async), name=name)
    return schema.to_workflow(made)


def _is_not_skipped(name: str, value: Any) -> bool:
    return value is None or name not in value["skips"]


def _body(
    schema: WorkflowSchema,
    name: str,
    made: Mapping[str, FunctionStep[..., Any]],
    condition: Callable[[Any], bool] | None,
    is_async: bool,
) -> Callable[..., Any]:
    """A function whose signature asks for the results of the step's sources, by their names."""
    step = schema.steps[name]
    grouped = {member for members in step.or_groups.values() for member in members}
    sources = {group: [made[member] for member in members] for group, members in step.or_groups.items()}
    sources |= {source: [made[source]] for source in step.predecessors if source not in grouped}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=StepContext),
        inspect.Parameter("scripts", keyword, annotation=dict[str, Any]),
        *(
            inspect.Parameter(one, keyword, annotation=Any, default=Depends(likes, condition=condition))
            for one, likes in sources.items()
        ),
    ]
    body: Callable[..., Any]
    if is_async:

        async def body_async(**arguments: Any) -> Any:
            return await _async(**arguments)

        body = body_async
    else:

        def body_plain(**arguments: Any) -> Any:
            return _plain(**arguments)

        body = body_plain
    vars(body)["__signature__"] = inspect.Signature(parameters)
    body.__annotations__ = {one.name: one.annotation for one in parameters}
    return body


workflows = [
    make_workflow(schema, is_async=os.environ.get("FAULT_BODIES") == "async")
    for schema in draw_workflows(int(os.environ.get("FAULT_SEED", "0")))
]

"""Steps that run out of time, with policies that have something to say about it, and one that never comes to its word."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from fuseline import FailureDecision, Step, StepContext, StepPolicy, TimeoutPolicy, Workflow, step

let_go = threading.Event()


class SkipsLate(StepPolicy):
    name = "tests_worker_skips_late"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> FailureDecision | None:
        return FailureDecision.SKIP if isinstance(exc, TimeoutError) else None


class HangsOn(StepPolicy):
    name = "tests_worker_hangs_on"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> Any:
        let_go.wait()  # without a limit: no stall of the machine makes it come to its word
        return FailureDecision.SKIP


@step(policies=[TimeoutPolicy(0.1), SkipsLate()])
def plain(ctx: StepContext) -> None:
    ctx.wait_cancelled(30)


@step(policies=[TimeoutPolicy(0.1), SkipsLate()])
async def waiting() -> None:
    await asyncio.sleep(30)


@step(policies=[TimeoutPolicy(0.1), HangsOn()])
async def stuck() -> None:
    await asyncio.sleep(30)


flow = Workflow(outputs=[plain, waiting, stuck], workflow_id="late", version="1")

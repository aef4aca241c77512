"""Retries, a timeout, and a step that cleans up when all was in vain.

python examples/retries.py
"""

from __future__ import annotations

import time

from fuseline import (
    Depends,
    RetryPolicy,
    RunFailed,
    StepContext,
    TimeoutPolicy,
    TriggerPolicy,
    Workflow,
    step,
)


class Unreachable(Exception):
    """The other side does not answer."""


@step(policies=[RetryPolicy(max_retries=4, wait=0.05, backoff=2.0, retry_on=[Unreachable])])
def fetch(works_at_attempt: int, ctx: StepContext) -> str:
    """Fails until its attempt has the given number. A retry is scheduled by the broker, and outlives the worker."""
    if ctx.attempt < works_at_attempt:
        raise Unreachable(f"attempt {ctx.attempt}")
    return f"fetched at attempt {ctx.attempt}"


@step(policies=[TimeoutPolicy(0.5)])
def digest(page: str = Depends(fetch), seconds: float = 0.0) -> str:
    """Is given up after half a second, although it only sleeps."""
    time.sleep(seconds)
    return f"digested: {page}"


@step(policies=[TriggerPolicy("one_failed")])
def tidy_up() -> str:
    """Runs only if the step before it failed."""
    return "tidied up"


digest >> tidy_up

fetching = Workflow(outputs=[digest, tidy_up], workflow_id="fetching", version="1")

if __name__ == "__main__":
    print(fetching.run({"works_at_attempt": 3}))
    try:
        fetching.run({"works_at_attempt": 1, "seconds": 2})
    except RunFailed as failure:
        print(f"{failure.step}: {failure.error.cause}; tidy_up: {failure.run.steps['tidy_up'].state}")

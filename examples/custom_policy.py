"""A policy of one's own: wait as long as the other side asks for, and go without what does not exist.

python examples/custom_policy.py
"""

from __future__ import annotations

from fuseline import Depends, FailureDecision, StepContext, StepPolicy, Workflow, step


class Busy(Exception):
    """Try again in so many seconds."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"busy for {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class Gone(Exception):
    """There is no such thing, and there will be none."""


class AsAsked(StepPolicy):
    """Decides about each failed attempt; the decision travels in the report, and the broker carries it out."""

    name = "as_asked"

    def on_failure(self, step, exc, attempt):
        if isinstance(exc, Busy) and attempt < 5:
            return FailureDecision.RETRY, exc.retry_after_seconds
        if isinstance(exc, Gone):
            return FailureDecision.SKIP, 0.0
        return None  # the next policy decides, or the step fails


@step(policies=[AsAsked()])
def look_up(name: str, ctx: StepContext) -> str:
    if name == "nobody":
        raise Gone(name)
    if ctx.attempt == 1:
        raise Busy(retry_after_seconds=0.1)
    return f"{name}, found at attempt {ctx.attempt}"


@step
def tell(found: str | None = Depends(look_up)) -> str:
    return found or "there is no such person"


directory = Workflow(outputs=[tell], workflow_id="directory", version="1")

if __name__ == "__main__":
    print(directory.run({"name": "Ada"}))
    print(directory.run({"name": "nobody"}))

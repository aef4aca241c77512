"""One scheduler: a workflow ends alike in this process and on a broker with a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fuseline import (
    Branch,
    Depends,
    FailureDecision,
    RetryPolicy,
    RunFailed,
    Step,
    StepPolicy,
    TriggerPolicy,
    Workflow,
    step,
)
from fuseline.broker import MemoryBroker
from fuseline.engine import compile_plan
from fuseline.model import RunView
from fuseline.storage import MemoryRuntimeStorage
from fuseline.storage.views import run_view
from fuseline.worker import Worker


class Page(BaseModel):
    url: str
    words: int


class SkipsMissing(StepPolicy):
    name = "test_same_everywhere_skips_missing"

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> FailureDecision | None:
        return FailureDecision.SKIP if isinstance(exc, FileNotFoundError) else None


@step(policies=[RetryPolicy(2)])
def fetch(url: str, marks: Path) -> Page:
    mark = marks / "fetched"
    if not mark.exists():
        mark.touch()
        raise ConnectionError("away")
    return Page(url=url, words=len(url))


@step
async def judge(page: Page = Depends(fetch)) -> Branch:
    return Branch("long" if page.words > 5 else "short", page)


@step
def shorten(page: Page = Depends(judge)) -> str:
    return page.url[:5]


@step
def keep(page: Page = Depends(judge)) -> str:
    return page.url


(judge - "long") >> shorten
(judge - "short") >> keep


@step
def either(text: str = Depends(shorten, keep)) -> str:
    return text.upper()


@step
def both(short: str | None = Depends(shorten), kept: str | None = Depends(keep)) -> list[str | None]:
    return [short, kept]


@step
def only_long(text: str = Depends(either, condition=lambda text: len(text) > 4)) -> str:
    return text


@step(policies=[SkipsMissing()])
def read(text: str = Depends(either)) -> str:
    return Path("no such file").read_text()


class Store(Step):
    def setup(self, shared: dict[str, Any]) -> str:
        shared.setdefault("opened", 1)
        return "opened"

    def run_step(
        self, text: str | None = Depends(read), long: str | None = Depends(only_long)
    ) -> list[str | None]:
        return [text, long]


@step
def breaks(fail: bool, stored: Any = Depends(Store)) -> Any:
    if fail:
        raise ValueError("told to")
    return stored


@step(policies=[TriggerPolicy("one_failed")])
def mend(_n: Any = Depends(breaks)) -> str:
    return "mended"


flow = Workflow(outputs=[both, breaks, mend], workflow_id="everywhere")


def here(inputs: dict[str, Any]) -> RunView:
    storage = MemoryRuntimeStorage()
    flow.run(inputs, storage=storage, raise_on_failure=False)
    (run,) = storage.list_runs()
    stored = storage.read_run(run.instance_id)
    assert stored is not None
    return run_view(stored, compile_plan(flow.to_schema()))


def on_a_broker(inputs: dict[str, Any]) -> RunView:
    with MemoryBroker() as broker:
        instance_id = flow.dispatch(broker, inputs)
        Worker(broker, flow).run_until_idle(0.05)
        return broker.wait(instance_id, 20)


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("url", ["abc", "abcdefgh"])
def test_a_run_ends_alike_in_this_process_and_on_a_broker(url: str, fail: bool, tmp_path: Path) -> None:
    views = []
    for place, execute in (("here", here), ("there", on_a_broker)):
        marks = tmp_path / place
        marks.mkdir()
        views.append(execute({"url": url, "fail": fail, "marks": marks}))
    mine, other = views
    assert mine.state == other.state == ("FAILED" if fail else "SUCCEEDED")
    assert mine.outputs == other.outputs
    told = [
        {name: (one.state, one.attempt, one.action, one.result) for name, one in view.steps.items()}
        for view in views
    ]
    assert told[0] == told[1]
    assert told[0]["fetch"][1] == 2
    if fail:
        with pytest.raises(RunFailed, match="step 'breaks': ValueError: told to"):
            flow.run({"url": url, "fail": True, "marks": tmp_path / "here"})

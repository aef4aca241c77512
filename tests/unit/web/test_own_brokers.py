"""What people write themselves: a service around MemoryBroker, and a broker behind our service."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import Response

from fuseline.broker import Broker, MemoryBroker, StepAssignment, StepReport
from fuseline.clock import SystemClock
from fuseline.errors import UnknownWorkerError, UnsupportedError
from fuseline.testing.flows import graph
from fuseline.web.background import serving, serving_app
from fuseline.worker import Worker
from fuseline.workflow import Workflow, WorkflowSchema, step

SINGLE = graph("single", {"a": []}, outputs=["a"])


def five_line_service(broker: MemoryBroker) -> FastAPI:
    """As somebody writes it in a minute: dictionaries in, dictionaries out."""
    app = FastAPI()

    @app.post("/worker/register")
    def register(workflows: list[dict[str, Any]]) -> dict[str, str]:
        return {"worker_id": broker.register_worker([WorkflowSchema(**wf) for wf in workflows])}

    @app.post("/workflow/dispatch")
    def dispatch(body: dict[str, Any]) -> dict[str, str]:
        return {
            "instance_id": broker.dispatch_workflow(WorkflowSchema(**body["workflow"]), body.get("inputs"))
        }

    @app.get("/workflow/step", response_model=None)
    def step(worker_id: str) -> Response | dict[str, Any]:
        assignment = broker.get_step(worker_id)
        return assignment.model_dump() if assignment else Response(status_code=204)

    @app.post("/workflow/step")
    def report(worker_id: str, report: dict[str, Any]) -> dict[str, bool]:
        broker.report_step(worker_id, StepReport(**report))
        return {"ok": True}

    return app


def test_a_service_in_five_lines() -> None:
    with (
        MemoryBroker() as broker,
        serving_app(five_line_service(broker)) as url,
        httpx.Client(base_url=url) as client,
    ):
        worker_id = client.post("/worker/register", json=[SINGLE.model_dump()]).json()["worker_id"]
        asked = {"worker_id": worker_id}
        assert client.get("/workflow/step", params=asked).status_code == 204
        body = {"workflow": SINGLE.model_dump(), "inputs": {"n": 1}}
        run = client.post("/workflow/dispatch", json=body).json()["instance_id"]
        step = client.get("/workflow/step", params=asked).json()
        assert step["payload"] == {"workflow_inputs": {"n": 1}, "results": {}}
        report = {key: step[key] for key in ("workflow_id", "instance_id", "step_name")}
        report |= {"state": "SUCCEEDED", "result": 2}
        assert client.post("/workflow/step", params=asked, json=report).json() == {"ok": True}
        assert broker.get_run(run).outputs == {"a": 2}


class OwnBroker(Broker):
    """Five methods, and single-step workflows only."""

    def __init__(self) -> None:
        self.workers: set[str] = set()
        self.waiting: deque[StepAssignment] = deque()
        self.reports: list[StepReport] = []

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        self.workers.add(name := f"worker-{len(self.workers)}")
        return name

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        now = SystemClock().now()
        run = f"run-{len(self.waiting)}"
        self.waiting.append(
            StepAssignment(
                workflow_id=workflow.workflow_id,
                instance_id=run,
                step_name=workflow.starting_steps()[0],
                payload={"workflow_inputs": inputs or {}, "results": {}},
                assigned_at=now,
                expires_at=now + 60,
            )
        )
        return run

    def get_step(self, worker_id: str) -> StepAssignment | None:
        self.keep_alive(worker_id)
        return self.waiting.popleft() if self.waiting else None

    def report_step(self, worker_id: str, report: StepReport) -> None:
        self.keep_alive(worker_id)
        self.reports.append(report)

    def keep_alive(self, worker_id: str) -> None:
        if worker_id not in self.workers:
            raise UnknownWorkerError(f"no worker {worker_id!r}")


@pytest.fixture
def own() -> OwnBroker:
    return OwnBroker()


@pytest.fixture
def client(own: OwnBroker) -> Iterator[httpx.Client]:
    with serving(own) as url, httpx.Client(base_url=url) as client:
        yield client


def test_five_methods_are_enough_for_the_service(own: OwnBroker, client: httpx.Client) -> None:
    worker_id = client.post("/worker/register", json={"workflows": [SINGLE.model_dump()]}).json()["worker_id"]
    body = {"workflow": SINGLE.model_dump(), "inputs": {"n": 1}, "instance_id": "not understood"}
    assert client.post("/workflow/dispatch", json=body).json() == {"instance_id": "run-0"}
    asked = {"worker_id": worker_id}
    beat = asked | {"holds": [["run-0", "a", 1]]}
    assert client.post("/worker/keep-alive", json=beat).status_code == 200
    step = client.get("/workflow/step", params=asked).json()
    assert (step["instance_id"], step["step_name"]) == ("run-0", "a")
    report = {key: step[key] for key in ("workflow_id", "instance_id", "step_name")} | {"state": "SUCCEEDED"}
    assert client.post("/workflow/step", params=asked, json=report).status_code == 200
    assert [one.state for one in own.reports] == ["SUCCEEDED"]
    assert client.get("/workflow/step", params=asked).status_code == 204
    answer = client.get("/workflow/step", params={"worker_id": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_worker")


def test_what_it_does_not_offer_is_501(own: OwnBroker, client: httpx.Client) -> None:
    for path in ("/status", "/workers", "/workflows", "/runs", "/runs/x", "/runs/x/wait", "/workflows/w/1"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (501, "not_supported"), path
        assert "OwnBroker does not support" in answer.json()["detail"]
    assert client.post("/runs/x/cancel").status_code == 501
    with pytest.raises(UnsupportedError):
        own.get_run("x")


def test_it_is_ready_without_a_status(client: httpx.Client) -> None:
    assert client.get("/readyz").status_code == 200


def test_a_worker_executes_over_the_service_what_it_hands_out(own: OwnBroker) -> None:
    @step
    def double(n: int) -> int:
        return 2 * n

    flow = Workflow(outputs=[double], workflow_id="single", version="1")
    own.dispatch_workflow(flow.to_schema(), {"n": 21})
    own.dispatch_workflow(flow.to_schema(), {"n": "no number"})
    with serving(own) as url:
        assert Worker(url, flow, concurrency=1).run_until_idle() == 2
    good, bad = own.reports
    assert (good.state, good.result) == ("SUCCEEDED", 42)
    assert bad.state == "FAILED"
    assert bad.error is not None
    assert "'n'" in bad.error.message

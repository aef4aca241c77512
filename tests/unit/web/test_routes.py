"""The routes as HTTP has them: statuses, bodies, and errors as RFC 9457 problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fuseline.broker import MemoryBroker
from fuseline.clock import ManualClock
from fuseline.errors import FatalError, StorageUnavailableError
from fuseline.model.schema import WorkflowSchema
from fuseline.testing.flows import graph
from fuseline.web.background import serving

CHAIN = graph("chain", {"a": ["b"]}, outputs=["b"])
COUNTED = graph(
    "counted",
    {"a": []},
    inputs_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
)


def as_json(schema: WorkflowSchema) -> dict[str, Any]:
    return schema.model_dump(mode="json")


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with MemoryBroker(clock=ManualClock()) as broker:
        yield broker


@pytest.fixture
def client(broker: MemoryBroker) -> Iterator[httpx.Client]:
    with serving(broker, max_body_bytes=100_000) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def worker_id(client: httpx.Client) -> str:
    answer = client.post("/worker/register", json={"workflows": [as_json(CHAIN)]})
    assert answer.status_code == 200
    return str(answer.json()["worker_id"])


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in an answer, which must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    return body


def test_a_whole_run(client: httpx.Client, worker_id: str) -> None:
    assert client.get("/workflow/step", params={"worker_id": worker_id}).status_code == 204
    dispatched = client.post("/workflow/dispatch", json={"workflow": as_json(CHAIN), "inputs": {"n": 1}})
    assert dispatched.status_code == 200
    run = dispatched.json()["instance_id"]
    for name in ("a", "b"):
        answer = client.get("/workflow/step", params={"worker_id": worker_id})
        assert answer.status_code == 200
        step = answer.json()
        assert (step["step_name"], step["instance_id"], step["attempt"]) == (name, run, 1)
        assert step["payload"]["workflow_inputs"] == {"n": 1}
        assert client.post("/worker/keep-alive", json={"worker_id": worker_id}).status_code == 200
        report = {k: step[k] for k in ("workflow_id", "instance_id", "step_name", "attempt")}
        report |= {"state": "SUCCEEDED", "result": name.upper()}
        assert client.post("/workflow/step", params={"worker_id": worker_id}, json=report).json() == {
            "ok": True
        }
    view = client.get(f"/runs/{run}").json()
    assert (view["state"], view["outputs"]) == ("SUCCEEDED", {"b": "B"})
    assert [one["instance_id"] for one in client.get("/runs", params={"state": "SUCCEEDED"}).json()] == [run]
    assert client.get("/runs", params={"state": "RUNNING"}).json() == []
    assert [one["worker_id"] for one in client.get("/workers").json()] == [worker_id]
    assert [one["workflow_id"] for one in client.get("/workflows").json()] == ["chain"]
    assert client.get("/workflows/chain/1").json() == as_json(CHAIN)
    status = client.get("/status").json()
    assert (status["broker"], status["runs"]["SUCCEEDED"], status["workers"]) == ("memory", 1, 1)


def test_no_content_has_no_body(client: httpx.Client, worker_id: str) -> None:
    answer = client.get("/workflow/step", params={"worker_id": worker_id})
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


def test_a_run_of_a_registered_workflow_by_its_id(client: httpx.Client, worker_id: str) -> None:
    for body in ({"workflow_id": "chain"}, {"workflow_id": "chain", "version": "1", "inputs": {}}):
        assert client.post("/workflow/dispatch", json=body).status_code == 200
    answer = client.post("/workflow/dispatch", json={"workflow_id": "chain", "version": "2"})
    assert "'2'" in problem(answer, 404, "unknown_workflow")["detail"]


def test_a_dispatch_with_an_id_can_be_repeated(client: httpx.Client) -> None:
    body = {"workflow": as_json(CHAIN), "instance_id": "mine"}
    assert client.post("/workflow/dispatch", json=body).json() == {"instance_id": "mine"}
    assert client.post("/workflow/dispatch", json=body).json() == {"instance_id": "mine"}
    assert len(client.get("/runs").json()) == 1


def test_cancelling(client: httpx.Client, worker_id: str) -> None:
    run = client.post("/workflow/dispatch", json={"workflow": as_json(CHAIN)}).json()["instance_id"]
    assert client.post(f"/runs/{run}/cancel").json() == {"ok": True}
    assert client.post(f"/runs/{run}/cancel").status_code == 200
    assert client.get(f"/runs/{run}/wait").json()["state"] == "CANCELLED"


def test_waiting_answers_without_a_body_when_the_run_goes_on(client: httpx.Client, worker_id: str) -> None:
    run = client.post("/workflow/dispatch", json={"workflow": as_json(CHAIN)}).json()["instance_id"]
    answer = client.get(f"/runs/{run}/wait", params={"timeout_seconds": 0.05})
    assert (answer.status_code, answer.content) == (204, b"")
    answer = client.get(f"/runs/{run}/wait", params={"timeout_seconds": 3600})
    assert "query.timeout_seconds" in problem(answer, 422, "invalid_message")["detail"]


# ---- problems


def test_what_nobody_knows_is_404(client: httpx.Client, worker_id: str) -> None:
    nobody = {"worker_id": "nobody"}
    detail = problem(client.get("/workflow/step", params=nobody), 404, "unknown_worker")["detail"]
    assert "'nobody'" in detail
    problem(client.post("/worker/keep-alive", json=nobody), 404, "unknown_worker")
    report = {"workflow_id": "chain", "instance_id": "x", "step_name": "a", "state": "SUCCEEDED"}
    problem(client.post("/workflow/step", params=nobody, json=report), 404, "unknown_worker")
    known = {"worker_id": worker_id}
    problem(client.post("/workflow/step", params=known, json=report), 404, "unknown_run")
    problem(client.get("/runs/none"), 404, "unknown_run")
    problem(client.get("/runs/none/wait"), 404, "unknown_run")
    problem(client.post("/runs/none/cancel"), 404, "unknown_run")
    problem(client.get("/workflows/none/1"), 404, "unknown_workflow")
    problem(client.get("/workflow/definition", params={"workflow_id": "none"}), 404, "unknown_workflow")


def test_what_contradicts_the_record_is_409(client: httpx.Client, worker_id: str) -> None:
    other = graph("chain", {"a": ["b", "c"]})
    answer = client.post("/worker/register", json={"workflows": [as_json(other)]})
    assert "'c'" in problem(answer, 409, "schema_conflict")["detail"]
    answer = client.post("/workflow/dispatch", json={"workflow": as_json(other)})
    problem(answer, 409, "schema_conflict")
    run = client.post("/workflow/dispatch", json={"workflow": as_json(CHAIN)}).json()["instance_id"]
    client.get("/workflow/step", params={"worker_id": worker_id})
    client.post(f"/runs/{run}/cancel")
    report = {"workflow_id": "chain", "instance_id": run, "step_name": "a", "state": "SUCCEEDED"}
    answer = client.post("/workflow/step", params={"worker_id": worker_id}, json=report)
    problem(answer, 409, "stale_report")


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "code"),
    [
        ("POST", "/worker/register", {}, "body.workflows", "invalid_message"),
        ("POST", "/worker/register", {"workflows": [{"workflow_id": "w"}]}, "body.workflows.0.steps", None),
        ("POST", "/worker/register", {"workflows": [], "surplus": 1}, "body.surplus", None),
        ("POST", "/worker/keep-alive", {}, "body.worker_id", None),
        ("POST", "/worker/keep-alive", {"worker_id": "w", "holds": [["a"]]}, "body.holds.0.1", None),
        ("POST", "/workflow/dispatch", {}, "body", None),
        ("POST", "/workflow/dispatch", {"workflow_id": "w", "inputs": []}, "body.inputs", None),
        ("POST", "/workflow/step?worker_id=w", {"workflow_id": "w"}, "body.instance_id", None),
        (
            "POST",
            "/workflow/step?worker_id=w",
            {"workflow_id": "w", "instance_id": "i", "step_name": "s", "state": "RUNNING"},
            "body.state",
            None,
        ),
        ("GET", "/workflow/step", None, "query.worker_id", None),
        ("GET", "/runs?state=LOST", None, "query.state", None),
        ("GET", "/runs?limit=0", None, "query.limit", None),
    ],
)
def test_what_does_not_fit_is_422_and_names_the_field(
    client: httpx.Client, method: str, path: str, body: Any, field: str, code: str | None
) -> None:
    """P7."""
    found = problem(client.request(method, path, json=body), 422, code or "invalid_message")
    assert field in [one["field"] for one in found["errors"]]
    assert found["detail"].startswith(found["errors"][0]["field"] + ": ")


def test_a_graph_that_contradicts_itself_is_422_and_names_the_edge(client: httpx.Client) -> None:
    broken = as_json(CHAIN)
    broken["steps"]["b"]["predecessors"] = []
    found = problem(client.post("/worker/register", json={"workflows": [broken]}), 422, "invalid_schema")
    assert found["errors"][0]["field"] == "body.workflows.0"
    assert "edge 'a' -> 'b'" in found["detail"]


def test_inputs_that_do_not_fit_are_422_and_named(client: httpx.Client) -> None:
    answer = client.post("/workflow/dispatch", json={"workflow": as_json(COUNTED), "inputs": {"n": "x"}})
    assert "'n'" in problem(answer, 422, "invalid_inputs")["detail"]


@pytest.mark.parametrize("body", [b"{", b"", b"[" * 50_000, b"\xff"])
def test_what_is_not_json_is_no_failure_of_the_service(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/worker/register", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_nan_is_refused(client: httpx.Client) -> None:
    """JSON has no such number; Python's reader knows it all the same."""
    body = json.dumps({"workflow": as_json(CHAIN), "inputs": {"n": [float("nan")]}}).encode()
    answer = client.post("/workflow/dispatch", content=body, headers={"content-type": "application/json"})
    assert "n[0]" in problem(answer, 422, "invalid_inputs")["detail"]


def test_a_body_over_the_limit_is_413(client: httpx.Client) -> None:
    """P6: announced, or only noticed while it comes."""
    large = json.dumps({"workflow": as_json(CHAIN), "inputs": {"text": "x" * 100_000}}).encode()
    kind = {"content-type": "application/json"}
    answer = client.post("/workflow/dispatch", content=large, headers=kind)
    assert "100000 bytes" in problem(answer, 413, "message_too_large")["detail"]
    pieces = (large[start : start + 10_000] for start in range(0, len(large), 10_000))
    answer = client.post("/workflow/dispatch", content=pieces, headers=kind)
    problem(answer, 413, "message_too_large")
    assert client.get("/runs").json() == []


def test_what_the_router_refuses_is_a_problem_too(client: httpx.Client) -> None:
    problem(client.get("/nowhere"), 404, "not_found")
    answer = client.delete("/runs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


# ---- what is behind the service


class Broken(MemoryBroker):
    """Raises `error` in everything that is asked here."""

    error: Exception = StorageUnavailableError("the database is away")

    def status(self) -> dict[str, Any]:
        raise self.error

    def get_step(self, worker_id: str) -> None:
        raise self.error


@pytest.fixture
def broken() -> Iterator[tuple[Broken, httpx.Client]]:
    with Broken() as broker, serving(broker) as url, httpx.Client(base_url=url) as client:
        yield broker, client


def test_what_passes_is_503_with_a_time_to_try_again(broken: tuple[Broken, httpx.Client]) -> None:
    _, client = broken
    for path in ("/status", "/workflow/step?worker_id=w", "/readyz"):
        answer = client.get(path)
        assert problem(answer, 503, "storage_unavailable")["detail"] == "the database is away"
        assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/livez").json() == {"ready": True}


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("secret 1/0"), FatalError("ACCESS_REFUSED for user secret")]
)
def test_a_failure_of_the_service_tells_nothing_of_its_inside(
    broken: tuple[Broken, httpx.Client], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    broker, client = broken
    broker.error = error
    answer = client.get("/workflow/step", params={"worker_id": "w"})
    problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "secret" in caplog.text  # where the operator looks
    assert client.get("/livez").status_code == 200


def test_ready_when_the_broker_answers(client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {"ready": True}


# ---- the document


def test_the_document_states_every_route_and_its_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    routes = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert routes == {
        ("POST", "/worker/register"),
        ("POST", "/worker/keep-alive"),
        ("POST", "/workflow/dispatch"),
        ("GET", "/workflow/step"),
        ("POST", "/workflow/step"),
        ("GET", "/workflow/definition"),
        ("GET", "/status"),
        ("GET", "/workers"),
        ("GET", "/workflows"),
        ("GET", "/workflows/{workflow_id}/{version}"),
        ("GET", "/runs"),
        ("GET", "/runs/{instance_id}"),
        ("GET", "/runs/{instance_id}/wait"),
        ("POST", "/runs/{instance_id}/cancel"),
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/{letter_id}"),
        ("POST", "/dead-letters/{letter_id}/replay"),
        ("DELETE", "/dead-letters/{letter_id}"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
    }
    assert "HTTPValidationError" not in document["components"]["schemas"]
    report = document["paths"]["/workflow/step"]["post"]["responses"]
    assert {"200", "404", "409", "413", "422", "503"} <= report.keys()
    for status in ("404", "409", "422", "503"):
        content = report[status]["content"]["application/problem+json"]
        assert content["schema"]["$ref"] == "#/components/schemas/Problem"
    assert "code" in document["components"]["schemas"]["Problem"]["required"]
    step = document["paths"]["/workflow/step"]["get"]["responses"]
    assert step["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/StepAssignment")
    assert "content" not in step["204"]

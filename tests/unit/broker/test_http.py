"""HttpBroker where the contract does not reach: services that are away, slow, or no service of ours at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from fuseline.broker import HttpBroker, MemoryBroker
from fuseline.broker import http as module
from fuseline.clock import SystemClock
from fuseline.errors import (
    BrokerUnavailableError,
    CallerError,
    DeadlineExceededError,
    InvalidInputsError,
    InvalidMessageError,
    MessageTooLargeError,
    StaleReportError,
    UnknownWorkerError,
    UnsupportedError,
)
from fuseline.model.messages import StepReport
from fuseline.model.status import RunStatus, Status
from fuseline.testing.flows import Player, graph
from fuseline.web.background import serving

SINGLE = graph("single", {"a": []}, outputs=["a"])
Handler = Callable[[httpx.Request], httpx.Response]


def answered(handler: Handler, url: str = "http://service.test", **options: Any) -> HttpBroker:
    """A broker whose requests a function of the test answers."""
    return HttpBroker(url, transport=httpx.MockTransport(handler), **options)


@pytest.mark.parametrize("url", ["", "service:8080", "amqp://localhost", "http://", "http://x:port", "/path"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """P7."""
    with pytest.raises(CallerError, match="address"):
        HttpBroker(url)


def test_the_address_is_told_without_its_password() -> None:
    with HttpBroker("https://ada:secret@service.test/fuseline") as broker:
        assert broker.url == "https://service.test/fuseline"


def test_user_and_path_of_the_address_and_headers_go_with_every_request() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"broker": "memory"})

    with answered(handler, "https://ada:secret@service.test/fuseline", headers={"x-token": "t"}) as broker:
        broker.status()
    assert (seen[0].url.host, seen[0].url.path) == ("service.test", "/fuseline/status")
    assert seen[0].headers["authorization"].startswith("Basic ")
    assert seen[0].headers["x-token"] == "t"


def test_ids_of_any_characters_arrive() -> None:
    schema = graph("a/b c?&#%2F ü", {"x": []}, version="1/2")
    with MemoryBroker() as behind, serving(behind) as url, HttpBroker(url) as broker:
        run = broker.dispatch_workflow(schema, instance_id="run/1 ?#%")
        assert run == "run/1 ?#%"
        assert broker.get_run(run).workflow_id == schema.workflow_id
        assert broker.get_workflow(schema.workflow_id, "1/2") == schema
        broker.cancel_run(run)
        assert broker.wait(run, 10).state is RunStatus.CANCELLED


# ---- services that are away


def test_nobody_there_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: an error, and no hang."""
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.2)
    with (
        HttpBroker(f"http://127.0.0.1:{_free_port()}") as broker,
        pytest.raises(BrokerUnavailableError, match="cannot reach http://"),
    ):
        broker.status()


def test_a_service_that_comes_back_in_time_is_none_that_was_away() -> None:
    port = _free_port()
    with MemoryBroker() as behind, HttpBroker(f"http://127.0.0.1:{port}") as broker:
        found: list[str] = []
        caller = threading.Thread(target=lambda: found.append(broker.status()["broker"]))
        caller.start()
        with serving(behind, port=port):
            caller.join(10)
    assert found == ["memory"]


def test_a_service_that_does_not_answer_costs_no_more_than_the_deadline() -> None:
    """P7."""
    with (
        _listening() as (url, _),
        HttpBroker(url, call_seconds=0.2) as broker,
        pytest.raises(DeadlineExceededError, match=r"did not answer GET /status within 0\.2 s"),
    ):
        broker.status()


def test_a_dispatch_whose_answer_was_lost_begins_one_run() -> None:
    """P3, P4: sent again with the same id."""
    with MemoryBroker() as behind, serving(behind) as url, _losing_one_answer(url) as lossy:
        with HttpBroker(lossy) as broker:
            run = broker.dispatch_workflow(SINGLE)
        assert [one.instance_id for one in behind.list_runs()] == [run]


def test_a_report_whose_answer_was_lost_is_recorded_once() -> None:
    """P3, P4."""
    with MemoryBroker() as behind, serving(behind) as url:
        with HttpBroker(url) as first:
            worker = Player(first, first.register_worker([SINGLE]))
            run = first.dispatch_workflow(SINGLE)
            assignment = worker.take()
        with _losing_one_answer(url) as lossy, HttpBroker(lossy) as second:
            Player(second, worker.worker_id).report(assignment, result=1)
        assert behind.get_run(run).outputs == {"a": 1}


def test_a_closed_broker_takes_no_calls() -> None:
    broker = HttpBroker("http://127.0.0.1:9")
    broker.close()
    broker.close()
    with pytest.raises(BrokerUnavailableError, match="closed"):
        broker.status()


def test_closing_ends_the_calls_that_try_again() -> None:
    broker = HttpBroker(f"http://127.0.0.1:{_free_port()}")
    errors: list[Exception] = []

    def ask() -> None:
        try:
            broker.status()
        except BrokerUnavailableError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    start = SystemClock().monotonic()
    thread.start()
    broker.close()
    thread.join(10)
    assert len(errors) == 1
    assert SystemClock().monotonic() - start < module.RECONNECT_SECONDS / 2


# ---- what is no service of ours, and what is refused


@pytest.mark.parametrize(
    ("response", "error", "told"),
    [
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), BrokerUnavailableError, "HTTP 502"),
        (httpx.Response(500, json={"code": "internal_error", "detail": "x"}), BrokerUnavailableError, "x"),
        (httpx.Response(404, html="<h1>Not Found</h1>"), CallerError, "GET http://service.test/status"),
        (httpx.Response(200, html="<h1>Welcome</h1>"), BrokerUnavailableError, "not a Fuseline service"),
        (httpx.Response(302, headers={"location": "/login"}), CallerError, "HTTP 302"),
        (httpx.Response(404, json=["not", "a", "problem"]), CallerError, "HTTP 404"),
        (httpx.Response(409, json={"code": "stale_report", "detail": "over"}), StaleReportError, "^over$"),
        (httpx.Response(501, json={"code": "not_supported", "title": "No"}), UnsupportedError, "^No$"),
    ],
)
def test_every_refusal_becomes_the_error_that_it_is(
    response: httpx.Response, error: type[Exception], told: str
) -> None:
    with answered(lambda _: response) as broker, pytest.raises(error, match=told):
        broker.status()


def test_an_answer_of_another_shape_is_no_service_of_ours() -> None:
    with answered(lambda _: httpx.Response(200, json=[{"strange": True}])) as broker:
        for call in (broker.list_runs, broker.list_workers, broker.list_workflows):
            with pytest.raises(BrokerUnavailableError, match="not a Fuseline service"):
                call()
        with pytest.raises(BrokerUnavailableError, match="not a Fuseline service"):
            broker.get_run("x")


def test_what_is_not_json_is_refused_before_it_is_sent() -> None:
    """P7."""
    sent: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(500)

    report = StepReport(
        workflow_id="single", instance_id="i", step_name="a", state=Status.SUCCEEDED, result=object()
    )
    with answered(handler) as broker:
        with pytest.raises(InvalidInputsError, match="n is nan"):
            broker.dispatch_workflow(SINGLE, {"n": float("nan")})
        with pytest.raises(InvalidMessageError, match="result"):
            broker.report_step("w", report)
    assert sent == []


def test_what_is_too_large_is_refused_by_the_service() -> None:
    """P6."""
    with (
        MemoryBroker() as behind,
        serving(behind, max_body_bytes=5000) as url,
        HttpBroker(url) as broker,
        pytest.raises(MessageTooLargeError, match="5000 bytes"),
    ):
        broker.dispatch_workflow(SINGLE, {"text": "x" * 10_000})


# ---- what a worker says it holds


def test_a_beat_says_what_the_worker_holds() -> None:
    """P1: so that a step whose answer got lost on its way is not held for ever by a worker that lives."""
    beats: list[Any] = []
    with MemoryBroker() as behind:
        ours = behind.register_worker([SINGLE])
        behind.dispatch_workflow(SINGLE)
        assignment = behind.get_step(ours)
        assert assignment is not None

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/worker/register":
            return httpx.Response(200, json={"worker_id": "w"})
        if request.url.path == "/worker/keep-alive":
            beats.append(json.loads(request.content)["holds"])
        if request.method == "GET":
            return httpx.Response(200, json=assignment.model_dump(mode="json"))
        return httpx.Response(200, json={"ok": True})

    with answered(handler) as broker:
        broker.keep_alive("registered elsewhere")
        worker = Player(broker, broker.register_worker([SINGLE]))
        broker.keep_alive("w")
        taken = worker.take()
        broker.keep_alive("w")
        worker.report(taken)
        broker.keep_alive("w")
    assert beats == [None, [], [[assignment.instance_id, "a", 1]], []]


def test_a_report_that_is_refused_for_good_is_held_no_more() -> None:
    with MemoryBroker() as behind, serving(behind) as url, HttpBroker(url) as broker:
        worker = Player(broker, broker.register_worker([SINGLE]))
        run = broker.dispatch_workflow(SINGLE)
        assignment = worker.take()
        assert broker._holds[worker.worker_id] == {(run, "a", 1)}
        broker.cancel_run(run)
        with pytest.raises(StaleReportError):
            worker.report(assignment)
        assert broker._holds[worker.worker_id] == set()
        with pytest.raises(UnknownWorkerError):
            broker.keep_alive("nobody")


# ---- services of the test's own


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _listening() -> Iterator[tuple[str, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


@contextmanager
def _losing_one_answer(url: str) -> Iterator[str]:
    """A way to the service that takes the first request there and drops its answer; later ones go through."""
    target = httpx.URL(url)

    def carry(server: socket.socket) -> None:
        losing = True
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return  # closed: the test is over
            with client, socket.create_connection((target.host, target.port or 80)) as service:
                client.settimeout(10)
                service.settimeout(10)
                while request := _whole_message(client):
                    service.sendall(request)
                    answer = _whole_message(service)
                    if losing:
                        losing = False
                        break
                    client.sendall(answer)

    with _listening() as (lossy, server):
        thread = threading.Thread(target=carry, args=(server,), daemon=True)
        thread.start()
        yield lossy
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _whole_message(connection: socket.socket) -> bytes:
    """A request or an answer, with a body of the announced length; b"" when the connection was closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", b"0"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body

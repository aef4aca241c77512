"""Known trap: inputs and results that JSON or a database cannot hold (P7): told by name, and nothing else is harmed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.broker import Broker, HttpBroker, MemoryBroker
from fuseline.errors import CallerError, InvalidInputsError, InvalidMessageError, MessageTooLargeError
from fuseline.model import Cause, RunStatus, Status, StepReport
from fuseline.web.background import serving
from tests.integration.amqp.harness import SECONDS, props
from tests.integration.traps.parties import PATIENCE_SECONDS, Party, one_step, take

FLOW = one_step()
MIB = 1024 * 1024


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# What nobody can take, and what an error says about it.
REFUSED: dict[str, tuple[Any, str]] = {
    "object": (object(), "field"),
    "bytes that are no text": (b"\xff\xfe", "field"),
    "NaN": (float("nan"), "field"),
    "infinity": ({"deep": [1.0, float("-inf")]}, r"field\.deep\[1\]"),
    "50 MB": ("x" * (50 * MIB), r"\d{8} bytes|over|larger|allowed"),
    "10,000 levels": (nested(10_000), "nest|deep|recursion"),
    "240 levels": (nested(240), "nest|deep|recursion"),
    "lone surrogate": ({"name": "a\ud800"}, r"field\.name"),
    "lone surrogate in a key": ({"\udfff": 1}, "field"),
}
# What JSON can say, and has to come out as it went in (or as JSON says it).
TAKEN: dict[str, tuple[Any, Any]] = {
    "NUL": ("a\0b", "a\0b"),
    "huge integer": (2**200, 2**200),
    "keys that are no texts": ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
    "150 levels": (nested(150), nested(150)),
}


@contextmanager
def any_broker(kind: str, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with ExitStack() as stack:
        if kind == "amqp":
            party: Party = request.getfixturevalue("party")
            yield party.broker
            return
        memory = stack.enter_context(MemoryBroker())
        if kind == "memory":
            yield memory
        else:
            url = stack.enter_context(serving(memory))
            yield stack.enter_context(HttpBroker(url, call_seconds=PATIENCE_SECONDS))


@pytest.fixture(params=["memory", "amqp", "http"])
def any_kind(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with any_broker(request.param, request) as broker:
        yield broker


def report(run: str, result: Any) -> StepReport:
    return StepReport(
        workflow_id=FLOW.workflow_id,
        instance_id=run,
        step_name="a",
        state=Status.SUCCEEDED,
        result=result,
    )


def goes_on(broker: Broker, worker: str) -> None:
    """The next run is as if nothing had been."""
    run = broker.dispatch_workflow(FLOW, {"field": "plain"})
    assert take(broker, worker).instance_id == run
    broker.report_step(worker, report(run, "plain"))
    assert broker.wait(run, PATIENCE_SECONDS).state is RunStatus.SUCCEEDED


def test_inputs_that_nobody_can_take_are_refused_by_name(any_kind: Broker) -> None:
    worker = any_kind.register_worker([FLOW])
    for name, (value, told) in REFUSED.items():
        with pytest.raises((InvalidInputsError, InvalidMessageError, MessageTooLargeError), match=told):
            any_kind.dispatch_workflow(FLOW, {"field": value})
        assert any_kind.list_runs() == [], name
    goes_on(any_kind, worker)


def test_results_that_nobody_can_take_are_refused_and_the_step_is_still_held(any_kind: Broker) -> None:
    worker = any_kind.register_worker([FLOW])
    run = any_kind.dispatch_workflow(FLOW)
    assert take(any_kind, worker).instance_id == run
    for name, (value, told) in REFUSED.items():
        with pytest.raises(CallerError, match=told.replace("field", "(field|result)")):
            any_kind.report_step(worker, report(run, {"field": value}))
        assert any_kind.get_run(run).state is RunStatus.RUNNING, name
    any_kind.report_step(worker, report(run, "at last"))
    assert any_kind.wait(run, PATIENCE_SECONDS).steps["a"].result == "at last"
    goes_on(any_kind, worker)


def test_what_json_can_say_comes_out_as_it_went_in(any_kind: Broker) -> None:
    worker = any_kind.register_worker([FLOW])
    for value, told in TAKEN.values():
        run = any_kind.dispatch_workflow(FLOW, {"field": value})
        assert take(any_kind, worker).instance_id == run
        any_kind.report_step(worker, report(run, value))
        view = any_kind.wait(run, PATIENCE_SECONDS)
        assert view.inputs == {"field": told}
        assert view.steps["a"].result == told
    goes_on(any_kind, worker)


def test_a_step_that_returns_what_nobody_can_take_fails_and_its_worker_goes_on(party: Party) -> None:
    _, bodies = party.worker(FLOW)
    for name, (value, told) in REFUSED.items():
        bodies.sync["a"] = lambda _assignment, value=value: {"field": value}  # type: ignore[misc]
        view = party.wait(party.broker.dispatch_workflow(FLOW))
        assert view.state is RunStatus.FAILED, name
        assert view.error is not None
        assert view.error.cause is Cause.INVALID
        assert re.search(told.replace("field", "(field|result)"), view.error.message), name
    bodies.sync["a"] = lambda _assignment: "plain"
    assert party.wait(party.broker.dispatch_workflow(FLOW)).state is RunStatus.SUCCEEDED


# As somebody else's program would send it: bytes that no client of ours makes.
BODIES = {
    "10,000 levels": b'{"workflow_id": "trap", "inputs": {"field": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
    "NaN": b'{"workflow_id": "trap", "inputs": {"field": NaN}}',
    "lone surrogate": b'{"workflow_id": "trap", "inputs": {"field": "\\ud800"}}',
    "no UTF-8": b'{"workflow_id": "trap", "inputs": {"field": "\xff"}}',
    "a number beyond a double": b'{"workflow_id": "trap", "inputs": {"field": 1e999}}',
}


def test_bytes_that_no_client_of_ours_would_send_harm_neither_service_nor_coordinator(party: Party) -> None:
    with MemoryBroker() as memory, serving(memory) as url:
        worker = memory.register_worker([FLOW])
        for name, body in BODIES.items():
            answer = httpx.post(
                f"{url}/workflow/dispatch", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code in (400, 422), (name, answer.text)
            assert answer.json()["code"]
        goes_on(memory, worker)
    worker = party.broker.register_worker([FLOW])
    run = party.broker.dispatch_workflow(FLOW)
    exchange = party.topology.reports_exchange(FLOW.workflow_id)
    with BackgroundLink(party.url, name="somebody else") as link:
        for body in BODIES.values():
            link.publish(exchange, "", body, props(codec.REPORT), deadline_seconds=SECONDS)
        for _ in BODIES:
            parked = next_parked(link, party.topology.parked_queue)
            assert "JSON" in str((parked.properties.headers or {})["x-fuseline-reason"])
            link.ack(parked)
    assert take(party.broker, worker).instance_id == run
    party.broker.report_step(worker, report(run, "plain"))
    assert party.wait(run).state is RunStatus.SUCCEEDED


def next_parked(link: BackgroundLink, queue: str) -> Delivery:
    deadline = time.monotonic() + SECONDS
    while (parked := link.get(queue, deadline_seconds=SECONDS)) is None:
        assert time.monotonic() < deadline, "nothing was parked"
        time.sleep(0.02)
    return parked

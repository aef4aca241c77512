"""Known traps of cancellation: whatever a step is doing when its run is cancelled, the run ends and nothing more is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fuseline.coordinator import daemon
from fuseline.errors import StaleReportError
from fuseline.model import RunStatus, RunView, Status, StepAssignment
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, wait_until
from tests.integration.traps.parties import Party, one_step
from tests.integration.worker.harness import Relay
from tests.unit.worker.bodies import CallableCatalog

FLOW = graph("cancelled", {"a": ["b"]})


class Held:
    """The body of step `a`: begins, and waits to be told to stop or to end."""

    def __init__(self, bodies: CallableCatalog) -> None:
        self._bodies = bodies
        self.go = threading.Event()
        bodies.sync["a"] = self.body
        bodies.sync["b"] = lambda _assignment: "b"

    def body(self, _assignment: StepAssignment) -> str:
        self.go.wait(SECONDS * 3)
        return "done"


def cancelled(party: Party, run: str) -> RunView:
    """The run, after it has been cancelled: nothing in it goes on."""
    party.broker.cancel_run(run)
    view = party.wait(run)
    assert view.state is RunStatus.CANCELLED
    assert {step.state for step in view.steps.values()} == {Status.CANCELLED}
    return view


def test_cancelled_while_queued(party: Party) -> None:
    """A worker that is there was told, and drops its steps when they come; the next run goes as ever."""
    _, bodies = party.worker(FLOW, concurrency=1)
    held = Held(bodies)
    first = party.broker.dispatch_workflow(FLOW)
    assert bodies.started.get(timeout=SECONDS).instance_id == first
    view = cancelled(party, party.broker.dispatch_workflow(FLOW))
    held.go.set()
    last = party.broker.dispatch_workflow(FLOW)
    for run in (first, last):
        assert party.wait(run).state is RunStatus.SUCCEEDED
    assert bodies.runs == 4
    assert party.broker.get_run(view.instance_id) == view


def test_cancelled_while_queued_before_any_worker_came(party: Party) -> None:
    """Who was not there to be told may execute a step that still waits: once, and what it says changes nothing."""
    view = cancelled(party, party.broker.dispatch_workflow(FLOW))
    _, bodies = party.worker(FLOW)
    bodies.sync["b"] = lambda _assignment: "b"
    assert party.wait(party.broker.dispatch_workflow(FLOW)).state is RunStatus.SUCCEEDED
    assert bodies.runs in (2, 3)
    assert party.broker.get_run(view.instance_id) == view


@pytest.mark.parametrize("claim_after_seconds", [60.0, 0.0], ids=["held", "leased"])
def test_cancelled_while_a_worker_has_it(party: Party, claim_after_seconds: float) -> None:
    """By its unacknowledged delivery, or by a lease: the worker is told, and what its body still returns is stale."""
    _, bodies = party.worker(FLOW, claim_after_seconds=claim_after_seconds, concurrency=1)
    held = Held(bodies)
    run = party.broker.dispatch_workflow(FLOW)
    bodies.started.get(timeout=SECONDS)
    if not claim_after_seconds:
        wait_until(lambda: party.broker.get_run(run).steps["a"].state is Status.RUNNING)
    view = cancelled(party, run)
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == run
    held.go.set()
    assert party.wait(party.broker.dispatch_workflow(FLOW)).state is RunStatus.SUCCEEDED
    assert party.broker.get_run(run) == view


def test_cancelled_between_retries(party: Party) -> None:
    """The timer of the next attempt stands in the database; nothing comes of it."""
    schema = one_step(("retry", {"max_retries": 2, "wait": 1.0}))
    _, bodies = party.worker(schema)

    def fail(_assignment: StepAssignment) -> str:
        raise ValueError("again")

    bodies.sync["a"] = fail
    run = party.broker.dispatch_workflow(schema)
    wait_until(lambda: party.broker.get_run(run).steps["a"].state is Status.PENDING)
    view = cancelled(party, run)
    # Another run waits for as long as the cancelled one would have: its timer was set later, and has run out.
    ended = party.wait(party.broker.dispatch_workflow(schema))
    assert ended.steps["a"].attempt == 2
    assert bodies.runs == 3
    assert party.broker.get_run(run) == view


def test_cancelled_twice_and_after_the_end(party: Party) -> None:
    """Twice is once. A run that has ended otherwise says so, and stays as it is."""
    run = party.broker.dispatch_workflow(FLOW)
    view = cancelled(party, run)
    party.broker.cancel_run(run)
    assert party.broker.get_run(run) == view
    _, bodies = party.worker(FLOW)
    bodies.sync["b"] = lambda _assignment: "b"
    ended = party.wait(party.broker.dispatch_workflow(FLOW))
    with pytest.raises(StaleReportError, match="SUCCEEDED"):
        party.broker.cancel_run(ended.instance_id)
    assert party.broker.get_run(ended.instance_id) == ended


@pytest.fixture
def relay(amqp_url: str) -> Iterator[tuple[Relay, str]]:
    """A way to RabbitMQ that can be cut, and its address."""
    authority = amqp_url.partition("@")[2].partition("/")[0]
    host, _, port = authority.partition(":")
    one = Relay(host, int(port or 5672))
    yield one, amqp_url.replace(authority, f"127.0.0.1:{one.port}")
    one.close()


@pytest.mark.parametrize("claim_after_seconds", [60.0, 0.0], ids=["held", "leased"])
def test_cancelled_while_its_worker_was_away(
    party: Party,
    relay: tuple[Relay, str],
    claim_after_seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P5: the notice is sent once and nobody hears it; the worker is told when it comes back and names what it holds."""
    monkeypatch.setattr(daemon, "HOUSEKEEPING_SECONDS", 0.5)
    way, url = relay
    _, bodies = party.worker(FLOW, url, claim_after_seconds=claim_after_seconds, concurrency=1)
    held = Held(bodies)
    run = party.broker.dispatch_workflow(FLOW)
    bodies.started.get(timeout=SECONDS)
    if not claim_after_seconds:
        wait_until(lambda: party.broker.get_run(run).steps["a"].state is Status.RUNNING)
    way.cut()
    view = cancelled(party, run)
    way.mend()
    assert bodies.cancelled.get(timeout=SECONDS * 2).instance_id == run
    held.go.set()
    assert party.wait(party.broker.dispatch_workflow(FLOW)).state is RunStatus.SUCCEEDED
    assert bodies.runs == 3  # the cancelled one once, and the two steps of the other run
    assert party.broker.get_run(run) == view

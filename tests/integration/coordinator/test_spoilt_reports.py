"""P1 with a worker that cannot say how its steps end: its reports are parked, and its runs end all the same."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.engine import Rules
from fuseline.model import PolicySpec, RunStatus, RunView, StepAssignment
from fuseline.model.messages import Cause
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, props
from tests.integration.coordinator.conftest import Serve

PATIENT = Rules(sweep_seconds=60.0)
HURRIED = Rules(sweep_seconds=0.1, max_losses=3, lease_seconds=0.5)


class ForeignWorker:
    """Somebody else's program: takes assignments, and reports whatever the test has it say."""

    def __init__(self, url: str, topology: Topology) -> None:
        self.link = BackgroundLink(url, name="foreign worker")
        self.topology = topology
        self.taken: queue.Queue[Delivery] = queue.Queue()

    def consume(self, workflow_id: str) -> None:
        """Take what comes for version 1."""
        self.link.consume(self.topology.steps_queue(workflow_id, "1"), 1, self.taken.put)

    def take(self) -> tuple[StepAssignment, Delivery]:
        """The next assignment."""
        delivery = self.taken.get(timeout=SECONDS)
        return StepAssignment(**json.loads(delivery.body)), delivery

    def take_attempt(self, attempt: int) -> bool:
        """Take, and let go, until this attempt comes: an earlier one may be offered more than once."""
        while True:
            assignment, delivery = self.take()
            self.link.ack(delivery)
            if assignment.attempt == attempt:
                return True

    def say(self, workflow_id: str, body: bytes, properties: codec.Properties) -> None:
        """Publish to the workflow's reports."""
        exchange = self.topology.reports_exchange(workflow_id)
        self.link.publish(exchange, "", body, properties, deadline_seconds=SECONDS)


@pytest.fixture
def worker(amqp_url: str, topology: Topology) -> Iterator[ForeignWorker]:
    one = ForeignWorker(amqp_url, topology)
    yield one
    one.link.close(0)


def parked_reason(worker: ForeignWorker) -> str:
    """Of the next one; its run may have ended before it is there."""
    parked: queue.Queue[Delivery] = queue.Queue()
    worker.link.consume(worker.topology.parked_queue, 1, parked.put)
    delivery = parked.get(timeout=SECONDS)
    return str((delivery.properties.headers or {})["x-fuseline-reason"])


def spoilt_bodies(assignment: StepAssignment) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Reports that cannot be read, and the properties they come with, each of which names its attempt."""
    whole = {
        "workflow_id": assignment.workflow_id,
        "instance_id": assignment.instance_id,
        "step_name": assignment.step_name,
        "attempt": assignment.attempt,
    }
    return {
        "a state of its own": (json.dumps({**whole, "state": "DONE"}).encode(), {}),
        "no state, and the run in the envelope": (
            json.dumps({"step_name": assignment.step_name}).encode(),
            {"correlation_id": assignment.instance_id},
        ),
        "no JSON": (
            b"ok",
            {
                "correlation_id": assignment.instance_id,
                "headers": {"step_name": assignment.step_name, "attempt": assignment.attempt},
            },
        ),
    }


KINDS = ["a state of its own", "no state, and the run in the envelope", "no JSON"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_that_cannot_be_read_fails_the_attempt_that_it_names(
    serve: Serve, worker: ForeignWorker, kind: str
) -> None:
    """P7: with an error that says so, at once; the message itself is kept for people."""
    broker = serve(PATIENT)
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    worker.consume("spoilt")
    assignment, delivery = worker.take()
    body, properties = spoilt_bodies(assignment)[kind]
    worker.say("spoilt", body, props(**properties))
    worker.link.ack(delivery)
    view = broker.wait(run, SECONDS)
    assert view.state is RunStatus.FAILED
    assert view.error is not None
    assert (view.error.type, view.error.cause) == ("InvalidReport", Cause.INVALID)
    assert parked_reason(worker) in view.error.message


@pytest.mark.parametrize("why", ["another workflow's", "an earlier attempt's", "no report"])
def test_a_report_that_cannot_be_read_harms_no_attempt_but_its_own(
    serve: Serve, worker: ForeignWorker, why: str
) -> None:
    """P3, P5: the exchange says for which workflow the sender may speak, the attempt which one is meant."""
    broker = serve(PATIENT)
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    other = broker.dispatch_workflow(graph("other", {"a": []}))
    worker.consume("spoilt")
    worker.take()
    said = {"instance_id": run, "step_name": "a", "state": "DONE"}
    kind = codec.REPORT
    if why == "another workflow's":
        said["instance_id"] = other
    elif why == "an earlier attempt's":
        said["attempt"] = 7  # type: ignore[assignment]
    else:
        kind = "fuseline.report.v2"
    worker.say("spoilt", json.dumps(said).encode(), props(kind))
    good = {"workflow_id": "spoilt", "instance_id": run, "step_name": "a", "state": "SUCCEEDED"}
    worker.say("spoilt", json.dumps(good).encode(), props())
    assert broker.wait(run, SECONDS).state is RunStatus.SUCCEEDED
    assert broker.get_run(other).state is RunStatus.RUNNING
    assert parked_reason(worker)


def ended_without_a_word(broker: AmqpBroker, worker: ForeignWorker, workflow_id: str, run: str) -> RunView:
    worker.consume(workflow_id)
    for _ in range(HURRIED.max_losses):
        _, delivery = worker.take()
        worker.say(workflow_id, b"ok", props())
        worker.link.ack(delivery)
    return broker.wait(run, SECONDS)


def test_a_step_that_nobody_ever_reports_is_poison(serve: Serve, worker: ForeignWorker) -> None:
    """P1: nothing names the attempt, so it is offered again, but only `max_losses` times."""
    broker = serve(HURRIED)
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    view = ended_without_a_word(broker, worker, "spoilt", run)
    assert view.state is RunStatus.FAILED
    assert view.error is not None
    assert view.error.cause is Cause.POISON
    assert worker.taken.empty()


def test_a_step_that_waits_in_its_queue_is_never_poison(serve: Serve, worker: ForeignWorker) -> None:
    """Sweeps count nothing while the message is there."""
    broker = serve(HURRIED)
    waits = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    # Another run's step takes as many sweeps as it takes to end: those of the first were as many.
    taken = broker.dispatch_workflow(graph("other", {"a": []}))
    assert ended_without_a_word(broker, worker, "other", taken).state is RunStatus.FAILED
    assert broker.get_run(waits).state is RunStatus.RUNNING
    count = worker.link.count(worker.topology.steps_queue("spoilt", "1"), deadline_seconds=SECONDS)
    assert count is not None
    assert count.messages == 1


def test_a_worker_that_claims_and_is_never_heard_again_is_poison(serve: Serve, worker: ForeignWorker) -> None:
    """P1: losses through leases that end count as well."""
    broker = serve(HURRIED)
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    worker.consume("spoilt")
    for attempt in (1, 2, 3):
        assignment, delivery = worker.take()
        assert assignment.attempt == attempt
        claim = {"workflow_id": "spoilt", "instance_id": run, "step_name": "a", "attempt": attempt}
        worker.say("spoilt", json.dumps({**claim, "worker_id": "foreign"}).encode(), props(codec.CLAIM))
        worker.link.ack(delivery)
    view = broker.wait(run, SECONDS)
    assert view.error is not None
    assert view.error.cause is Cause.POISON


def test_a_step_that_may_expire_expires_whatever_its_worker_fails_to_say(
    serve: Serve, worker: ForeignWorker
) -> None:
    """P1: once per attempt that its retry policy allows."""
    broker = serve(replace(PATIENT, sweep_seconds=0.1))
    policies = [
        PolicySpec(name="expiry", config={"seconds": 0.5}),
        PolicySpec(name="retry", config={"max_retries": 2}),
    ]
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}, policies={"a": policies}))
    worker.consume("spoilt")
    for attempt in (1, 2):
        assert worker.take_attempt(attempt)
        worker.say("spoilt", b"ok", props())
    view = broker.wait(run, SECONDS)
    assert view.error is not None
    assert (view.error.cause, view.steps["a"].attempt) == (Cause.EXPIRED, 2)


def test_a_worker_that_beats_and_never_reports_is_ended_by_the_timeout(
    serve: Serve, worker: ForeignWorker
) -> None:
    """P1: its lease is carried on, and the step's own deadline passes all the same."""
    broker = serve(replace(PATIENT, timeout_grace_seconds=0.1))
    timeout = PolicySpec(name="timeout", config={"seconds": 0.3})
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}, policies={"a": [timeout]}))
    worker.consume("spoilt")
    _, delivery = worker.take()
    claim = {"workflow_id": "spoilt", "instance_id": run, "step_name": "a", "worker_id": "foreign"}
    worker.say("spoilt", json.dumps(claim).encode(), props(codec.CLAIM))
    worker.link.ack(delivery)
    beat = {"worker_id": "foreign", "leases": [[run, "a", 1]], "sent_at": 1.0}
    worker.link.publish(
        worker.topology.heartbeats_exchange,
        "",
        json.dumps(beat).encode(),
        props(codec.HEARTBEAT),
        deadline_seconds=SECONDS,
        mandatory=False,
    )
    view = broker.wait(run, SECONDS)
    assert view.error is not None
    assert view.error.cause is Cause.TIMEOUT


def test_a_message_of_very_many_reports_is_recorded_whole_and_let_go_once(
    serve: Serve, worker: ForeignWorker
) -> None:
    """P1: whoever sends it. What comes after it is read on the same channel, which a second ack would have closed."""
    broker = serve(PATIENT)
    good = {"workflow_id": "spoilt", "step_name": "a", "state": "SUCCEEDED"}
    runs = [broker.dispatch_workflow(graph("spoilt", {"a": []})) for _ in range(3)]
    stale = json.dumps({**good, "instance_id": runs[0], "attempt": 7}).encode()
    first, last, after = (json.dumps({**good, "instance_id": run}).encode() for run in runs)
    worker.say("spoilt", b"\n".join([first, *[stale] * 2_000, last, b""]), props(codec.REPORTS))
    worker.say("spoilt", after, props())
    for run in runs:
        assert broker.wait(run, SECONDS).state is RunStatus.SUCCEEDED
    assert worker.link.get(worker.topology.parked_queue, deadline_seconds=SECONDS) is None

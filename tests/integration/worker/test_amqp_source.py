"""The worker on a real RabbitMQ: assignments in, reports out, and nothing lost or done twice in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest

from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import ControlKind, ControlNotice
from fuseline.coordinator.decoding import death_reason
from fuseline.errors import SchemaConflictError
from fuseline.model import Cause, Status, StepAssignment, StepSchema, WorkflowSchema
from tests.integration.amqp.harness import wait_until
from tests.integration.worker.harness import (
    SECONDS,
    PlayedCoordinator,
    Relay,
    ThreadedWorker,
)
from tests.unit.worker.bodies import SCHEMA, CallableCatalog

Make = Callable[..., ThreadedWorker]


class Gate:
    """A body that says it runs and waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, assignment: StepAssignment) -> str:
        assert self.go.wait(SECONDS)
        return f"result of {assignment.instance_id}"


@pytest.fixture
def gate(bodies: CallableCatalog) -> Iterator[Gate]:
    bodies.sync["a"] = one = Gate()
    yield one
    one.go.set()


# ---- the plain way


def test_a_worker_registers_executes_and_reports(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    worker = make_worker()
    worker.start()
    args = coordinator.registered.get(timeout=SECONDS)
    assert args["worker_id"] == "w1"
    assert [WorkflowSchema(**one) for one in args["workflows"]] == [SCHEMA]
    assert isinstance(args["pid"], int)
    coordinator.assign("i1")
    report = coordinator.report()
    assert (report.instance_id, report.step_name, report.attempt) == ("i1", "a", 1)
    assert (report.state, report.result, report.worker_id) == (Status.SUCCEEDED, "done", "w1")
    worker.stop()
    assert worker.join() == 1
    assert coordinator.ready() == 0


def test_async_bodies_run_together(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    meeting = asyncio.Barrier(4)

    async def meet(_assignment: StepAssignment) -> str:
        async with asyncio.timeout(SECONDS):
            await meeting.wait()
        return "met"

    bodies.asynchronous["a"] = meet
    make_worker(concurrency=4).start()
    for index in range(4):
        coordinator.assign(f"i{index}")
    assert {coordinator.report().result for _ in range(4)} == {"met"}


def test_no_more_run_at_once_than_concurrency(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    """P6, over two workflows whose queues each have their own prefetch."""
    other = WorkflowSchema(workflow_id="flow two", steps={"a": StepSchema(name="a")})
    coordinator.schemas = (SCHEMA, other)
    coordinator.declare()
    catalog = CallableCatalog((SCHEMA, other))
    catalog.sync["a"] = gate
    worker = make_worker(catalog=catalog, concurrency=2)
    for index in range(3):
        coordinator.assign(f"i{index}")
        coordinator.assign(f"j{index}", schema=other)
    worker.start()
    for _ in range(2):
        catalog.started.get(timeout=SECONDS)
    wait_until(lambda: coordinator.ready() == 1 and coordinator.ready(other) == 1)
    assert catalog.started.empty()
    gate.go.set()
    assert {coordinator.report().instance_id for _ in range(6)} == {"i0", "i1", "i2", "j0", "j1", "j2"}


def test_an_idle_worker_leaves_when_asked_to(coordinator: PlayedCoordinator, make_worker: Make) -> None:
    for index in range(5):
        coordinator.assign(f"i{index}")
    worker = make_worker()
    worker.start(idle_seconds=0.3)
    assert worker.join() == 5


# ---- what can be wrong with an assignment or a body


def test_a_body_that_times_out_is_reported_and_its_late_result_dropped(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    worker = make_worker(concurrency=1)
    worker.start()
    coordinator.assign("i1", timeout=0.1)
    report = coordinator.report()
    assert report.state is Status.FAILED
    assert report.error is not None
    assert report.error.cause is Cause.TIMEOUT
    assert {"StepTimeout", "TimeoutError", "builtins.TimeoutError"} <= set(report.error.types)
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == "i1"  # ctx.cancelled is set
    bodies.sync["a"] = lambda _assignment: "next"
    coordinator.assign("i2")
    assert worker.threads.abandoned == 1  # and keeps the only place
    gate.go.set()
    wait_until(lambda: worker.threads.abandoned == 0)
    assert coordinator.report().result == "next"


def test_an_async_body_that_times_out_is_cancelled(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    cleaned = threading.Event()

    async def body(_assignment: StepAssignment) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            cleaned.set()

    bodies.asynchronous["a"] = body
    make_worker().start()
    coordinator.assign("i1", timeout=0.1)
    error = coordinator.report().error
    assert error is not None
    assert error.cause is Cause.TIMEOUT
    assert cleaned.wait(SECONDS)


def test_a_result_that_is_no_json_or_too_large_fails_the_step_and_says_so(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    make_worker(concurrency=1).start()
    bodies.sync["a"] = lambda _assignment: {"rows": [object()]}
    coordinator.assign("i1")
    error = coordinator.report().error
    assert error is not None
    assert error.cause is Cause.INVALID
    assert "result.rows[0]" in error.message
    bodies.sync["a"] = lambda _assignment: "x" * 200_000
    coordinator.assign("i2")
    error = coordinator.report().error
    assert error is not None
    assert error.cause is Cause.INVALID
    assert "100000" in error.message


def test_an_unreadable_assignment_and_one_of_another_workflow_are_dead_lettered(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    make_worker().start()
    coordinator.assign("i1", body=b"{")
    assert coordinator.dead.get(timeout=SECONDS).body == b"{"
    other = WorkflowSchema(workflow_id="other", steps={"a": StepSchema(name="a")})
    body = StepAssignment(
        workflow_id="other", instance_id="i2", step_name="a", assigned_at=1.0, expires_at=2.0
    ).model_dump_json()
    coordinator.assign("i2", schema=SCHEMA, body=body.encode())
    dead = coordinator.dead.get(timeout=SECONDS)
    assert death_reason(dict(dead.properties.headers or {})) == "rejected"
    assert other.workflow_id in dead.body.decode()
    assert bodies.runs == 0


# ---- leases


def test_a_long_step_is_claimed_acknowledged_and_kept_by_heartbeats(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    worker = make_worker(claim_after_seconds=0.2, concurrency=1)
    worker.start()
    coordinator.assign("i1")
    claim = coordinator.claim()
    assert (claim.instance_id, claim.step_name, claim.attempt, claim.worker_id, claim.released) == (
        "i1",
        "a",
        1,
        "w1",
        False,
    )
    beat, _ = coordinator.beat(lambda one: ("i1", "a", 1) in one.leases)
    assert beat.workflows == [SCHEMA.key]
    # The only place is taken by a lease: a step that comes now is for other workers.
    wait_until(lambda: worker.source._attempts is not None and worker.source._attempts.intake.prefetch == 0)
    coordinator.assign("i2")
    wait_until(lambda: coordinator.ready() == 1)
    gate.go.set()
    assert coordinator.report().instance_id == "i1"
    assert coordinator.report().instance_id == "i2"
    assert bodies.runs == 2
    coordinator.beat(lambda one: not one.leases)


def test_a_step_that_may_expire_is_claimed_before_it_starts(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog
) -> None:
    make_worker().start()
    coordinator.assign("i1", expiration=30.0)
    assert coordinator.claim().instance_id == "i1"
    assert coordinator.report().instance_id == "i1"


# ---- being told to stop


def test_a_stopped_run_cancels_what_runs_and_reports_it(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    make_worker(concurrency=2).start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    _, address = coordinator.beat()
    coordinator.notify(address, ControlNotice(kind=ControlKind.STOP, instance_id="another"))
    coordinator.notify(address, ControlNotice(kind=ControlKind.STOP, instance_id="i1", spare=["a"]))
    coordinator.notify(
        address, ControlNotice(kind=ControlKind.STOP, instance_id="i1", worker_id="somebody else")
    )
    coordinator.notify(address, ControlNotice(kind=ControlKind.STOP, instance_id="i1"))
    report = coordinator.report()
    assert report.state is Status.CANCELLED
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == "i1"
    bodies.sync["a"] = lambda _assignment: "next"
    coordinator.assign("i2")
    assert coordinator.report().result == "next"
    assert bodies.cancelled.empty()


def test_a_refused_lease_ends_the_attempt_without_a_word(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    """P5: who lost an attempt is told, and what it would say is of no interest."""
    make_worker(claim_after_seconds=0.1, concurrency=2).start()
    coordinator.assign("i1")
    coordinator.claim()
    _, address = coordinator.beat(lambda one: bool(one.leases))
    coordinator.notify(
        address,
        ControlNotice(kind=ControlKind.STOP, instance_id="i1", attempts=[("a", 1)], worker_id="w1"),
    )
    assert bodies.cancelled.get(timeout=SECONDS).instance_id == "i1"
    coordinator.beat(lambda one: not one.leases)
    bodies.sync["a"] = lambda _assignment: "next"
    coordinator.assign("i2")
    assert coordinator.report().instance_id == "i2"


def test_a_drain_notice_makes_the_worker_finish_and_leave(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    worker = make_worker(drain_seconds=SECONDS)
    worker.start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    _, address = coordinator.beat()
    coordinator.notify(address, ControlNotice(kind=ControlKind.DRAIN, worker_id="w1"))
    wait_until(lambda: worker.source._stops == 1)
    gate.go.set()
    assert coordinator.report().state is Status.SUCCEEDED
    assert worker.join() == 1


# ---- leaving


def test_a_drain_hands_back_what_does_not_end_in_time(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    """P1: the unacknowledged goes back to its queue, the leased is released, what waited was never begun."""
    worker = make_worker(drain_seconds=0.2, claim_after_seconds=0.3, concurrency=1)
    worker.start()
    coordinator.assign("leased")
    assert coordinator.claim().instance_id == "leased"
    coordinator.beat(lambda one: bool(one.leases))
    worker.stop()
    release = coordinator.claim()
    assert (release.instance_id, release.released) == ("leased", True)
    assert worker.join() == 0
    assert coordinator.ready() == 0
    # And one that no claim was made for yet.
    second = make_worker(drain_seconds=0.1)
    second.start()
    coordinator.assign("held")
    while bodies.started.get(timeout=SECONDS).instance_id != "held":
        pass
    second.stop()
    assert second.join() == 0
    wait_until(lambda: coordinator.ready() == 1)
    assert coordinator.incoming.empty()


def test_stopping_twice_waits_for_nothing(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    worker = make_worker(drain_seconds=3600.0)
    worker.start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    worker.stop()
    worker.stop()
    assert worker.join() == 0
    wait_until(lambda: coordinator.ready() == 1)


# ---- registering


def test_a_conflicting_definition_ends_the_worker(coordinator: PlayedCoordinator, make_worker: Make) -> None:
    coordinator.refuses = SchemaConflictError("step 'b' was added")
    worker = make_worker()
    worker.start()
    with pytest.raises(SchemaConflictError, match="step 'b' was added"):
        worker.join()


def test_a_coordinator_that_is_away_is_waited_for(
    amqp_url: str, topology: Topology, make_worker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """P1, and nothing is declared by the worker: it needs no permission for that."""
    worker = make_worker()
    worker.start()
    wait_until(lambda: "waiting for a coordinator" in caplog.text)
    late = PlayedCoordinator(amqp_url, topology)
    try:
        late.declare()
        late.serve()
        late.assign("i1")
        assert late.report().instance_id == "i1"
        worker.close()
    finally:
        late.close()


def test_a_worker_that_waits_for_a_coordinator_can_be_stopped(topology: Topology, make_worker: Make) -> None:
    worker = make_worker()
    worker.start()
    worker.stop()
    assert worker.join() == 0


# ---- redelivery


def test_a_redelivered_attempt_that_still_runs_is_not_executed_twice(
    coordinator: PlayedCoordinator,
    make_worker: Make,
    bodies: CallableCatalog,
    gate: Gate,
    relay: Relay,
    relay_url: str,
) -> None:
    """P3, P5: the new delivery is tied to the running attempt, and a lease covers the time in between."""
    worker = make_worker(url=relay_url)
    worker.start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    relay.cut()
    wait_until(lambda: coordinator.ready() == 1)
    relay.mend()
    assert coordinator.claim().instance_id == "i1"
    wait_until(lambda: coordinator.ready() == 0)
    gate.go.set()
    assert coordinator.report().result == "result of i1"
    coordinator.assign("i2")  # comes after the redelivered one
    assert coordinator.report().result == "result of i2"
    worker.stop()
    assert worker.join() == 2
    assert bodies.runs == 2
    assert coordinator.ready() == 0
    assert coordinator.incoming.empty()


def test_a_report_that_could_not_be_sent_goes_out_after_the_reconnect(
    coordinator: PlayedCoordinator,
    make_worker: Make,
    bodies: CallableCatalog,
    gate: Gate,
    relay: Relay,
    relay_url: str,
) -> None:
    """P4: also when its delivery is back in the queue; it is acknowledged there, and not executed."""
    worker = make_worker(url=relay_url)
    worker.start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    relay.cut()
    gate.go.set()
    wait_until(lambda: worker.source._attempts is not None and worker.source._attempts.executed == 1)
    wait_until(lambda: coordinator.ready() == 1)
    relay.mend()
    found: list[Any] = [coordinator.incoming.get(timeout=SECONDS)]
    while getattr(found[-1], "result", None) is None:  # a claim may come first
        found.append(coordinator.incoming.get(timeout=SECONDS))
    assert found[-1].result == "result of i1"
    coordinator.assign("i2")  # comes after the redelivered one
    assert coordinator.report().result == "result of i2"
    worker.stop()
    assert worker.join() == 2
    assert bodies.runs == 2
    assert coordinator.ready() == 0


@pytest.mark.parametrize("is_current", [True, False])
def test_what_somebody_else_had_before_is_checked_first(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, is_current: bool
) -> None:
    """P3: an attempt that is over is not executed again only because its message is still there."""
    coordinator.is_current = is_current
    coordinator.assign("i1")
    queue = coordinator.topology.steps_queue(*SCHEMA.key)
    first = coordinator.link.get(queue, deadline_seconds=SECONDS)
    assert first is not None
    coordinator.link.nack(first, requeue=True)
    wait_until(lambda: coordinator.ready() == 1)
    worker = make_worker()
    worker.start()
    assert coordinator.checked.get(timeout=SECONDS) == {
        "instance_id": "i1",
        "step_name": "a",
        "attempt": 1,
        "worker_id": "w1",
    }
    if is_current:
        # It may have taken a worker down before, which only a claim tells.
        assert coordinator.claim().instance_id == "i1"
        assert coordinator.report().instance_id == "i1"
    coordinator.assign("i2")
    assert coordinator.report().instance_id == "i2"
    worker.stop()
    assert worker.join() == (2 if is_current else 1)
    assert coordinator.ready() == 0


def test_the_same_assignment_offered_twice_is_executed_once(
    coordinator: PlayedCoordinator, make_worker: Make, bodies: CallableCatalog, gate: Gate
) -> None:
    """A coordinator that cannot know whether the first message got out sends a second."""
    worker = make_worker()
    worker.start()
    coordinator.assign("i1")
    bodies.started.get(timeout=SECONDS)
    coordinator.assign("i1")
    wait_until(lambda: coordinator.ready() == 0)
    gate.go.set()
    coordinator.report()
    coordinator.assign("i1")  # and a third, when it is over
    coordinator.assign("i2")
    assert coordinator.report().instance_id == "i2"
    worker.stop()
    assert worker.join() == 2
    with pytest.raises(Empty):
        coordinator.incoming.get_nowait()

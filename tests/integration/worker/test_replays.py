"""Runs that an operator replays, over RabbitMQ with the real coordinator: they go on at whoever serves them (P1, P3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker.amqp import AmqpBroker
from fuseline.coordinator import Coordinator
from fuseline.engine import Rules
from fuseline.errors import NotReplayableError, StaleReportError
from fuseline.model import (
    DeadLetterReason,
    DeadLetterState,
    DeadLetterView,
    PolicySpec,
    RunStatus,
    Status,
    StepAssignment,
    WorkflowSchema,
)
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import Player, graph
from tests.integration.amqp.harness import wait_until
from tests.integration.coordinator.harness import coordinating
from tests.integration.worker.harness import SECONDS, ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

SCHEMA = graph("replayed", {"long": ["end"], "bad": ["end"]}, outputs=["end"])

Make = Callable[..., ThreadedWorker]


def expiring(seconds: float) -> WorkflowSchema:
    """One step, and how long it may wait for a worker."""
    expiry = PolicySpec(name="expiry", config={"seconds": seconds})
    return graph("expiring", {"a": []}, policies={"a": [expiry]})


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[Coordinator]:
    with coordinating(amqp_url, topology, MemoryRuntimeStorage(), Rules(lease_seconds=300.0)) as one:
        yield one


@pytest.fixture
def broker(amqp_url: str, topology: Topology, coordinator: Coordinator) -> Iterator[AmqpBroker]:
    with AmqpBroker(amqp_url, topology=topology, claim_after_seconds=0.0) as one:
        yield one


def wait_until_heard(coordinator: Coordinator, worker_id: str) -> None:
    """A notice finds its way only once the coordinator has heard a beat, which it keeps to itself (P8)."""
    wait_until(lambda: coordinator._book.address(worker_id) is not None)


def only_letter(broker: AmqpBroker, run: str) -> DeadLetterView:
    (letter,) = broker.list_dead_letters(instance_id=run, state=DeadLetterState.OPEN)
    return letter


def test_a_run_that_expired_goes_on_when_a_worker_comes(broker: AmqpBroker, make_worker: Make) -> None:
    """P1: nobody took the step in time; after the replay somebody does, and the message that RabbitMQ expired is no trap.

    The second attempt gets a longer expiry by a new registration, so that a slow machine does not expire it as well.
    """
    run = broker.dispatch_workflow(expiring(0.2))
    failed = broker.wait(run, SECONDS)
    assert (failed.state, failed.steps["a"].attempt) == (RunStatus.FAILED, 1)
    letter = only_letter(broker, run)
    assert letter.reason is DeadLetterReason.EXPIRED
    broker.register_worker([expiring(600.0)])
    replayed = broker.replay_dead_letter(letter.letter_id)
    assert (replayed.took_effect, replayed.next_attempt, replayed.steps) == (True, 2, ["a"])
    make_worker(catalog=CallableCatalog([expiring(600.0)])).start()
    ended = broker.wait(run, SECONDS)
    assert (ended.state, ended.steps["a"].attempt, ended.steps["a"].result) == (
        RunStatus.SUCCEEDED,
        2,
        "done",
    )
    assert broker.list_dead_letters(state=DeadLetterState.OPEN) == []


@pytest.mark.parametrize("claim_after_seconds", [60.0, 0.0])
def test_the_worker_that_was_told_to_stop_executes_what_was_replayed(
    coordinator: Coordinator, broker: AmqpBroker, make_worker: Make, claim_after_seconds: float
) -> None:
    """P1: held by a delivery or by a lease, it was stopped as a step of a run that is over, which then goes on."""
    bodies = CallableCatalog([SCHEMA])
    may_fail = threading.Event()
    has_begun = threading.Event()
    stops: list[StepAssignment] = []

    def long(assignment: StepAssignment) -> int:
        if assignment.attempt == 1 and not stops:
            has_begun.set()
            stops.append(bodies.cancelled.get(timeout=SECONDS))
        return assignment.attempt

    def bad(assignment: StepAssignment) -> int:
        if assignment.attempt == 1:
            assert has_begun.wait(SECONDS)
            assert may_fail.wait(SECONDS)
            raise ValueError("not yet")
        return assignment.attempt

    bodies.sync |= {"long": long, "bad": bad, "end": lambda one: one.payload["results"]}
    worker = make_worker(catalog=bodies, claim_after_seconds=claim_after_seconds)
    worker.start()
    run = broker.dispatch_workflow(SCHEMA)
    wait_until_heard(coordinator, "w1")
    may_fail.set()
    failed = broker.wait(run, SECONDS)
    assert (failed.state, failed.steps["long"].state) == (RunStatus.FAILED, Status.CANCELLED)
    wait_until(lambda: bool(stops))
    assert broker.replay_dead_letter(only_letter(broker, run).letter_id).took_effect
    ended = broker.wait(run, SECONDS)
    assert ended.state is RunStatus.SUCCEEDED
    assert ended.steps["bad"].attempt == 2
    assert ended.outputs["end"] == {name: ended.steps[name].attempt for name in ("bad", "long")}
    worker.stop()
    assert worker.join() >= 3


def test_a_broker_that_was_told_to_stop_hands_out_what_was_replayed(
    coordinator: Coordinator, broker: AmqpBroker
) -> None:
    """P1 through `get_step`; and P5: what was held before the replay is still over."""
    worker = Player(broker, broker.register_worker([SCHEMA]))
    run = broker.dispatch_workflow(SCHEMA)
    held = worker.take_all(2)
    broker.keep_alive(worker.worker_id)
    wait_until_heard(coordinator, worker.worker_id)
    worker.report(held["bad"], error="not yet")
    wait_until(lambda: broker._holdings.is_stopped(held["long"]))
    worker.report(held["long"], Status.CANCELLED)
    worker.eventually(lambda: broker.get_run(run).state is RunStatus.FAILED or None, "the run did not end")
    letter_id = only_letter(broker, run).letter_id
    replayed = broker.replay_dead_letter(letter_id)
    assert sorted(replayed.steps) == ["bad", "long"]
    again = worker.take_all(2)
    assert {one.replays for one in again.values()} == {1}
    with pytest.raises(StaleReportError):
        worker.report(held["bad"], result="of before")
    with pytest.raises(NotReplayableError, match="was replayed, as attempt 2"):
        broker.discard_dead_letter(letter_id)
    for name, one in again.items():
        worker.report(one, result=name)
    worker.do("end")
    assert broker.wait(run, SECONDS).state is RunStatus.SUCCEEDED

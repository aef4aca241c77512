"""P1: retries many times over. RabbitMQ before 4.0.1 drops a message that dead-letters in a cycle, without a word.

So a retry is a fresh message, never the dead letter with its `x-death` sent again. And RabbitMQ expires messages at a
queue's head alone, so that what waits behind others is ended by its row's deadline.
"""

from __future__ import annotations

from fuseline.broker import AmqpBroker
from fuseline.model import Cause, PolicySpec, RunStatus, StepAssignment, StepSchema, WorkflowSchema
from tests.integration.amqp.harness import wait_until
from tests.integration.traps.parties import PATIENCE_SECONDS, Party, one_step

MANY = 30
EXPIRIES = 4


def test_thirty_retries_are_thirty_attempts(party: Party, broker: AmqpBroker) -> None:
    schema = one_step(("retry", {"max_retries": MANY + 1}))
    _, bodies = party.worker(schema)

    def fail(assignment: StepAssignment) -> int:
        if assignment.attempt <= MANY:
            raise ValueError("not yet")
        return assignment.attempt

    bodies.sync["a"] = fail
    run = party.wait(broker.dispatch_workflow(schema))
    assert run.state is RunStatus.SUCCEEDED
    assert run.steps["a"].result == bodies.runs == MANY + 1


def test_an_assignment_that_expires_again_and_again_is_never_dropped_as_a_cycle(
    party: Party, broker: AmqpBroker
) -> None:
    """Each expiry brings the next attempt through the same two queues, and a worker that comes at last gets one."""
    schema = one_step(("retry", {"max_retries": 1000}), ("expiry", {"seconds": 1.0}))
    instance_id = broker.dispatch_workflow(schema)
    wait_until(lambda: broker.get_run(instance_id).steps["a"].attempt > EXPIRIES, PATIENCE_SECONDS)
    party.worker(schema)
    run = party.wait(instance_id)
    assert run.state is RunStatus.SUCCEEDED
    assert run.steps["a"].attempt > EXPIRIES


def test_a_run_whose_step_expires_each_time_ends_as_expired(party: Party, broker: AmqpBroker) -> None:
    schema = one_step(("retry", {"max_retries": EXPIRIES}), ("expiry", {"seconds": 0.2}))
    run = party.wait(broker.dispatch_workflow(schema))
    assert run.state is RunStatus.FAILED
    assert run.steps["a"].attempt == EXPIRIES
    assert run.error is not None
    assert run.error.cause is Cause.EXPIRED


def test_a_short_expiry_behind_a_long_one_ends_on_time(party: Party, broker: AmqpBroker) -> None:
    """The long one is at the head of the queue, where RabbitMQ would let the short one wait for an hour."""
    expiry = {"long": 3600.0, "short": 0.5}
    steps = {
        name: StepSchema(name=name, policies=[PolicySpec(name="expiry", config={"seconds": seconds})])
        for name, seconds in expiry.items()
    }
    run = party.wait(broker.dispatch_workflow(WorkflowSchema(workflow_id="two", steps=steps)))
    error = run.steps["short"].error
    assert error is not None
    assert error.cause is Cause.EXPIRED
    assert run.steps["long"].error is None

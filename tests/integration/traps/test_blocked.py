"""P1, P5, P7: RabbitMQ has no memory left and blocks whoever publishes (one link: tests/integration/amqp/test_faults.py)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fuseline.coordinator import announcing
from fuseline.errors import BrokerBusyError
from fuseline.model import RunStatus, Status, StepAssignment, StepReport
from fuseline.testing.proxy import TcpProxy
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.amqp.harness import wait_until
from tests.integration.traps.conftest import Gather
from tests.integration.traps.parties import PATIENCE_SECONDS, be_hasty, one_step, take
from tests.unit.worker.bodies import CallableCatalog

HASTY_SECONDS = 1.0
LEASE_SECONDS = 3.0
SCHEMA = one_step()

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@contextmanager
def alarm(server: PrivateRabbitMQ) -> Iterator[None]:
    server.set_alarm("memory")
    try:
        yield
    finally:
        server.clear_alarm("memory")


@pytest.fixture
def proxy(rabbitmq_server: PrivateRabbitMQ) -> Iterator[TcpProxy]:
    """On the way to the server; there until the party has ended."""
    with TcpProxy("127.0.0.1", rabbitmq_server.port) as one:
        yield one


def success(run: str) -> StepReport:
    return StepReport(
        workflow_id=SCHEMA.workflow_id, instance_id=run, step_name="a", state=Status.SUCCEEDED, result="done"
    )


def held_up(bodies: CallableCatalog) -> tuple[queue.Queue[str], threading.Event]:
    """Have step `a` wait: of which runs it is executed, and what lets it end."""
    executed: queue.Queue[str] = queue.Queue()
    may_end = threading.Event()

    def body(assignment: StepAssignment) -> str:
        executed.put(assignment.instance_id)
        may_end.wait(PATIENCE_SECONDS)
        return "done"

    bodies.sync["a"] = body
    return executed, may_end


def test_calls_of_a_blocked_broker_say_so_in_time_and_can_be_repeated(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls is told why within the call's deadline; the same calls after the alarm have one effect."""
    party = gather(rabbitmq_server.url)
    broker = party.broker
    worker_id = broker.register_worker([SCHEMA])
    reported, cancelled = (broker.dispatch_workflow(SCHEMA) for _ in range(2))
    assert {take(broker, worker_id).instance_id for _ in range(2)} == {reported, cancelled}
    calls: list[Callable[[], Any]] = [
        lambda: broker.dispatch_workflow(SCHEMA, instance_id="repeated"),
        lambda: broker.report_step(worker_id, success(reported)),
        lambda: broker.cancel_run(cancelled),
        lambda: broker.keep_alive(worker_id),
        lambda: broker.get_run(reported),
        lambda: broker.register_worker([SCHEMA]),
    ]
    with alarm(rabbitmq_server), monkeypatch.context() as patch:
        be_hasty(patch, broker, HASTY_SECONDS)
        for call in calls:
            with pytest.raises(BrokerBusyError, match="memory or disk"):
                call()
    for call in calls:
        call()
    assert take(broker, worker_id).instance_id == "repeated"
    broker.report_step(worker_id, success("repeated"))
    ended = {run: party.wait(run) for run in (reported, cancelled, "repeated")}
    assert [run.state for run in ended.values()] == [
        RunStatus.SUCCEEDED,
        RunStatus.CANCELLED,
        RunStatus.SUCCEEDED,
    ]
    assert {run.steps["a"].attempt for run in ended.values()} == {1}
    assert {run.instance_id for run in broker.list_runs()} == set(ended)


def test_a_worker_and_a_coordinator_wait_for_the_end_of_the_alarm_and_go_on(
    rabbitmq_server: PrivateRabbitMQ, proxy: TcpProxy, gather: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step ends in the midst of the alarm, and a dispatch comes to the coordinator; both want to publish."""
    monkeypatch.setattr("fuseline.worker.outgoing.PUBLISH_SECONDS", 0.5)  # so that it fails, again and again
    server = rabbitmq_server
    party = gather(proxy.url(server.url), sweep_seconds=5.0)
    broker = party.client(server.url)
    _, bodies = party.worker(SCHEMA, server.url)
    executed, may_end = held_up(bodies)
    running = broker.dispatch_workflow(SCHEMA)
    assert executed.get(timeout=PATIENCE_SECONDS) == running
    proxy.freeze("to_client")
    dispatching = threading.Thread(
        target=broker.dispatch_workflow, args=(SCHEMA,), kwargs={"instance_id": "late"}
    )
    dispatching.start()
    wait_until(lambda: holds_a_command(server, party.topology.commands_queue), PATIENCE_SECONDS)
    with alarm(server):
        proxy.thaw()
        may_end.set()
        # The client has published already, and is not blocked: it waits for the answer.
        wait_until(lambda: blocked(server) >= {"coordinator", "worker"}, PATIENCE_SECONDS)
    dispatching.join(PATIENCE_SECONDS)
    assert not dispatching.is_alive()
    ended = [party.wait(run) for run in (running, "late")]
    assert {run.state for run in ended} == {RunStatus.SUCCEEDED}
    assert {run.steps["a"].attempt for run in ended} == {1}
    assert (executed.get(timeout=PATIENCE_SECONDS), executed.qsize()) == ("late", 0)
    broker.close()


def holds_a_command(server: PrivateRabbitMQ, queue_name: str) -> bool:
    """Whether RabbitMQ has handed a command to the coordinator, which has not answered it."""
    return any(one.name == queue_name and one.unacknowledged for one in server.queues())


def blocked(server: PrivateRabbitMQ) -> set[str]:
    """Whose connections RabbitMQ has blocked."""
    names = [one.name for one in server.connections() if one.state == "blocked"]
    return {kind for kind in ("client", "coordinator", "worker") for name in names if kind in name}


def test_a_coordinator_that_is_told_nothing_of_the_alarm_ends_no_lease(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ tells who publishes. The worker does, whose beats are blocked; the coordinator has nothing to say, until it
    looks at the lease: it speaks to itself then, or, if it takes silence for an end, to the next worker.
    """
    monkeypatch.setattr(
        announcing, "QUIET_GATHER_SECONDS", 0.0
    )  # what has happened is announced before the next answer
    party = gather(rabbitmq_server.url, lease_seconds=LEASE_SECONDS)
    _, bodies = party.worker(SCHEMA, claim_after_seconds=0.0)
    executed, may_end = held_up(bodies)
    run = party.broker.dispatch_workflow(SCHEMA)
    assert executed.get(timeout=PATIENCE_SECONDS) == run
    wait_until(lambda: party.broker.get_run(run).steps["a"].state is Status.RUNNING, PATIENCE_SECONDS)
    party.broker.get_run(run)
    with alarm(rabbitmq_server):
        wait_until(lambda: "worker" in blocked(rabbitmq_server), PATIENCE_SECONDS)
        wait_until(lambda: "coordinator" in blocked(rabbitmq_server), PATIENCE_SECONDS)
    may_end.set()
    step = party.wait(run).steps["a"]
    assert (step.state, step.attempt, executed.qsize()) == (Status.SUCCEEDED, 1, 0)

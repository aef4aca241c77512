"""P1, P7: a quorum queue whose node is killed within about a second of its declaration, and that answers nobody after.

RabbitMQ 3.10 and 4.0 may come back with the queue declared, and no leader: publishing to it, getting from it and consuming
it hang. 4.3 may come back with what was confirmed in it gone. The stand-in for such a queue is one whose process is
suspended; no server can be made to lose one at will.
"""

from __future__ import annotations

import time

import pytest

from fuseline.amqp.topology import Topology
from fuseline.cli.doctor.checks import Check, Health
from fuseline.cli.doctor.rabbitmq import examine_rabbitmq
from fuseline.coordinator import mending, outbox
from fuseline.model import RunStatus
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.traps.conftest import Gather
from tests.integration.traps.parties import Party, one_step

BROKEN = one_step(workflow_id="broken")
SOUND = one_step(workflow_id="sound")
ATTEMPTS = 3
FEW_SECONDS = 3.0

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of half a minute until somebody looks at a queue that confirms nothing."""
    monkeypatch.setattr(outbox, "PUBLISH_SECONDS", FEW_SECONDS)
    monkeypatch.setattr(mending, "ASK_SECONDS", FEW_SECONDS)


def suspend(server: PrivateRabbitMQ, queue: str) -> None:
    """From now on the queue is there and answers nothing; deleting it deletes its process."""
    server.rabbitmqctl("eval", f"sys:suspend('%2F_{queue}').")


def succeed(party: Party, instance_id: str) -> None:
    assert party.wait(instance_id).state is RunStatus.SUCCEEDED


@pytest.mark.timeout(240)
def test_a_queue_that_answers_nobody_is_made_anew_and_holds_up_no_other(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ
) -> None:
    """What waits for it waits on a channel of its own: other runs, and the coordinator's answers, go on meanwhile."""
    party = gather(rabbitmq_server.url, sweep_seconds=5.0)
    party.broker.register_worker([BROKEN])
    party.worker(SOUND)
    suspend(rabbitmq_server, party.topology.steps_queue(*BROKEN.key))
    stuck = party.broker.dispatch_workflow(BROKEN)
    for _ in range(5):
        succeed(party, party.broker.dispatch_workflow(SOUND))
    assert party.broker.get_run(stuck).state is RunStatus.RUNNING
    party.worker(BROKEN)
    succeed(party, stuck)


def test_the_doctor_names_a_queue_that_does_not_answer(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ
) -> None:
    """Whichever it is; of the four that hold what is nowhere else nobody else takes care."""
    party = gather(rabbitmq_server.url)
    queue = party.topology.parked_queue

    def problems() -> list[Check]:
        checks = examine_rabbitmq([rabbitmq_server.url], party.topology, [], 30.0)
        return [check for check in checks if check.health is Health.PROBLEM]

    assert not problems()
    suspend(rabbitmq_server, queue)
    try:
        (problem,) = problems()
        assert queue in problem.found
        assert f"delete_queue {queue}" in problem.advice
    finally:
        rabbitmq_server.rabbitmqctl("eval", f"sys:resume('%2F_{queue}').")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_ends_although_its_node_is_killed_as_soon_as_its_queue_is_declared(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ, topology_prefix: str
) -> None:
    """Whatever the server has made of the queue. It is not lost each time; what was seen is in the test's output."""
    for number in range(ATTEMPTS):
        party = gather(rabbitmq_server.url, Topology(f"{topology_prefix}-{number}"), sweep_seconds=5.0)
        schema = one_step(workflow_id=f"fresh{number}")
        instance_id = party.broker.dispatch_workflow(schema)
        rabbitmq_server.kill()
        rabbitmq_server.start()
        party.worker(schema)
        began = time.monotonic()
        succeed(party, instance_id)
        print(f"attempt {number}: done {time.monotonic() - began:.0f} s after the worker came")

"""Known trap: a coordinator killed at the last parent of a wide join (P1, P3): Celery's chords are lost there."""

from __future__ import annotations

from collections import Counter

import pytest

from fuseline.amqp.topology import Topology
from fuseline.model import RunStatus, Status
from fuseline.testing.flows import graph
from tests.integration.cli.harness import Fuseline
from tests.integration.traps.parties import PATIENCE_SECONDS
from tests.integration.traps.processes import coordinator_process
from tests.integration.traps.test_database import client
from tests.integration.worker.harness import ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

WIDTH = 1000
PARENTS = [f"p{number:03}" for number in range(WIDTH)]
FLOW = graph("join", {name: ["join"] for name in PARENTS})

# A coordinator that kills itself, as kill -9 does, at one moment of the join's last parent.
VICTIM = """
import os, signal, sys
from fuseline.cli.main import main
from fuseline.coordinator import outbox, pipeline

where = {where!r}

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def is_join(assignment):
    return assignment.step_name == "join"

apply, assign = pipeline.Pipeline.apply, outbox.Outbox.assign

def applying(self, items, *rest):
    outcomes = apply(self, items, *rest)
    if where == "recorded" and any(is_join(a) for o in outcomes for a in o.assignments):
        die()
    return outcomes

def assigning(self, outcome, assignment, done):
    assign(self, outcome, assignment, done)
    if where == "published" and is_join(assignment):
        self._link.call_later(0.5, die)
        self._link.ack = lambda *_args, **_options: None  # it dies before it lets the report go

pipeline.Pipeline.apply, outbox.Outbox.assign = applying, assigning
sys.argv = ["fuseline", "coordinator"]
main()
"""


@pytest.mark.parametrize("where", ["recorded", "published"])
def test_a_join_of_a_thousand_whose_coordinator_is_killed_at_the_last_parent_fires_once(
    on_rabbitmq: Fuseline, where: str
) -> None:
    """Killed after the commit and before anything is published, and when the join is out but nothing acknowledged."""
    bodies = CallableCatalog((FLOW,))
    for name in FLOW.steps:
        bodies.sync[name] = lambda assignment: len(assignment.payload["results"])
    url, prefix = on_rabbitmq.environment["FUSELINE_AMQP_URL"], on_rabbitmq.environment["FUSELINE_PREFIX"]
    with client(on_rabbitmq) as broker:
        with coordinator_process(on_rabbitmq, VICTIM.format(where=where)) as victim:
            worker = ThreadedWorker(url, Topology(prefix), bodies, concurrency=16)
            worker.start()
            run = broker.dispatch_workflow(FLOW)
            victim.process.wait(PATIENCE_SECONDS)
            assert victim.process.returncode == -9
        try:
            with coordinator_process(on_rabbitmq):
                view = broker.wait(run, PATIENCE_SECONDS)
                events = broker.status()["events"]
        finally:
            worker.close()
    assert view.state is RunStatus.SUCCEEDED
    assert {step.state for step in view.steps.values()} == {Status.SUCCEEDED}
    assert {step.attempt for step in view.steps.values()} == {1}
    assert view.steps["join"].result == WIDTH
    executed = Counter(bodies.started.get().step_name for _ in range(bodies.runs))
    assert executed["join"] == 1
    assert (
        events.get("accepted", 0) <= 1 + WIDTH
    )  # each parent that the killed one had not recorded, and the join

"""What a worker makes of an attempt after its run was replayed (P1, P3). Seeds of the simulation found both."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.clock import ManualClock
from fuseline.model import Status, StepAssignment, StepReport
from fuseline.testing.flows import graph
from fuseline.worker.fusing import Fusing
from fuseline.worker.leases import Held, Holdings, Phase
from tests.unit.worker.bodies import assignment, sealer

SCHEMA = graph("w", {"a": ["b"]})


def held(replays: int, **more: Any) -> Held:
    """An attempt of `a` that came after so many replays."""
    one = assignment("a").model_copy(update={"replays": replays, **more})
    delivery = Delivery(1, 1, codec.encode(one), Properties(), "", "", False, "q", None)
    return Held(one, delivery, 0.0, Phase.RUNNING)


def report(one: StepAssignment) -> StepReport:
    return StepReport(
        workflow_id="w",
        instance_id=one.instance_id,
        step_name="a",
        attempt=one.attempt,
        state=Status.SUCCEEDED,
        result=1,
    )


def test_what_was_given_up_before_a_replay_is_executed_after_it() -> None:
    """P1: a step that a worker was refused to go on with was never queued, so its first attempt is still to come."""
    holdings = Holdings(10)
    holdings.finish(held(0))
    assert holdings.is_finished(held(0).assignment)
    assert not holdings.is_finished(held(1).assignment)
    holdings.finish(held(1))
    assert holdings.is_finished(held(1).assignment)
    assert holdings.is_finished(held(0).assignment)  # late, and of before


@pytest.mark.parametrize(("replays", "goes_on"), [(0, True), (1, False)])
def test_a_step_of_a_replayed_run_is_not_gone_on_with(replays: int, goes_on: bool) -> None:
    """P1: the next step may have had attempts before, and a worker that was told to stop would drop what counts as one."""
    fusing = Fusing([SCHEMA], 20, float("inf"), ManualClock())
    one = held(replays, workflow_version=SCHEMA.version)
    follows = fusing.follows(one, sealer().seal(report(one.assignment)))
    assert (follows is not None) is goes_on

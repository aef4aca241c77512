"""P3: a report that comes again is known as the same where it can be."""

from __future__ import annotations

import pytest

from fuseline.broker import MemoryBroker
from fuseline.broker.reported import Reported
from fuseline.clock import ManualClock
from fuseline.errors import StaleReportError
from fuseline.model import PolicySpec, Status, StepReport
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.flows import Player, graph, report_on

RETRY = PolicySpec(name="retry", config={"max_retries": 5})


def report(run: str, state: Status = Status.SUCCEEDED) -> StepReport:
    return StepReport(workflow_id="w", instance_id=run, step_name="a", state=state)


def test_the_same_is_the_same_worker_attempt_and_state() -> None:
    reported = Reported()
    reported.add("w1", report("i"))
    assert reported.knows("w1", report("i"))
    assert not reported.knows("w2", report("i"))
    assert not reported.knows("w1", report("i", Status.FAILED))
    assert not reported.knows("w1", report("i").model_copy(update={"attempt": 2}))


def test_only_the_latest_are_remembered() -> None:
    """P6."""
    reported = Reported(remembered=2)
    for run in ("i", "j", "k"):
        reported.add("w1", report(run))
    assert [run for run in ("i", "j", "k") if reported.knows("w1", report(run))] == ["j", "k"]


def test_a_failure_that_comes_again_after_a_restart_is_stale_once_its_retry_is_queued() -> None:
    storage, clock = MemoryRuntimeStorage(), ManualClock()
    schema = graph("g", {"a": []}, policies={"a": [RETRY]})
    with MemoryBroker(storage, clock=clock) as broker:
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        failed = report_on(worker.do("a", Status.FAILED), Status.FAILED)
        broker.report_step(worker.worker_id, failed)
    with (
        MemoryBroker(storage, clock=clock) as broker,
        pytest.raises(StaleReportError, match=r"attempt 1 .* is over"),
    ):
        broker.report_step(worker.worker_id, failed)


def test_a_failure_of_an_attempt_that_was_lost_is_stale() -> None:
    """P5: nobody had reported it before."""
    clock = ManualClock()
    schema = graph("g", {"a": []}, policies={"a": [RETRY]})
    with MemoryBroker(clock=clock) as broker:
        worker = Player(broker, broker.register_worker([schema]), 5.0)
        broker.dispatch_workflow(schema)
        lost = worker.take()
        clock.advance(61)
        with pytest.raises(StaleReportError):
            worker.report(lost, Status.FAILED)

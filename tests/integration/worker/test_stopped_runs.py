"""P5: a worker that was told of a run's end executes no step of it, also none that comes later."""

from __future__ import annotations

from collections.abc import Callable

from fuseline.amqp.wire import ControlKind, ControlNotice
from fuseline.model import Status, StepAssignment
from tests.integration.worker.harness import SECONDS, PlayedCoordinator, ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog


def test_a_step_of_a_stopped_run_that_comes_later_is_dropped(
    coordinator: PlayedCoordinator, make_worker: Callable[..., ThreadedWorker], bodies: CallableCatalog
) -> None:
    def until_cancelled(assignment: StepAssignment) -> str:
        if assignment.instance_id == "cancelled":
            bodies.cancelled.get(timeout=SECONDS)
        return "done"

    bodies.sync["a"] = until_cancelled
    worker = make_worker()
    worker.start()
    coordinator.assign("cancelled")
    bodies.started.get(timeout=SECONDS)
    _, address = coordinator.beat()
    coordinator.notify(address, ControlNotice(kind=ControlKind.STOP, instance_id="cancelled"))
    assert coordinator.report().state is Status.CANCELLED
    coordinator.assign("cancelled", attempt=2)
    coordinator.assign("other")
    report = coordinator.report()
    assert (report.instance_id, report.result) == ("other", "done")
    worker.stop()
    assert worker.join() == 1
    assert coordinator.ready() == 0

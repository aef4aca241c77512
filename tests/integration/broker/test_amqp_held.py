"""What an `AmqpBroker` holds for workers that ask it for steps, with a coordinator that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import ControlKind, ControlNotice, Heartbeat
from fuseline.broker import AmqpBroker
from fuseline.broker.ready import Fence, fence
from fuseline.errors import BrokerBusyError, DeadlineExceededError, StaleReportError
from fuseline.model import Status, StepAssignment, StepReport
from tests.integration.amqp.harness import wait_until
from tests.integration.worker.harness import SECONDS, PlayedCoordinator
from tests.unit.worker.bodies import SCHEMA

Make = Callable[[float], AmqpBroker]


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology) -> Iterator[PlayedCoordinator]:
    """Played by the test, and serving."""
    played = PlayedCoordinator(amqp_url, topology)
    played.declare()
    played.serve()
    yield played
    played.close()


@pytest.fixture
def make_broker(amqp_url: str, topology: Topology) -> Iterator[Make]:
    """A broker that claims after so many seconds."""
    made: list[AmqpBroker] = []

    def make(claim_after_seconds: float) -> AmqpBroker:
        made.append(
            AmqpBroker(
                amqp_url, topology=topology, call_seconds=SECONDS, claim_after_seconds=claim_after_seconds
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def take(broker: AmqpBroker, worker_id: str) -> StepAssignment:
    """The next step; RabbitMQ may need a moment to have it in its queue."""
    found: list[StepAssignment] = []

    def asked() -> bool:
        if (one := broker.get_step(worker_id)) is not None:
            found.append(one)
        return bool(found)

    wait_until(asked)
    return found[0]


def beat_after(
    broker: AmqpBroker, worker_id: str, coordinator: PlayedCoordinator, holds: list[Fence] | None = None
) -> Heartbeat:
    """What the coordinator hears of a keep-alive."""
    broker.keep_alive(worker_id, holds=holds)
    return coordinator.beat()[0]


def hold_leased(
    broker: AmqpBroker, worker_id: str, coordinator: PlayedCoordinator, instance_id: str
) -> StepAssignment:
    """A step of this run, held by a lease."""
    coordinator.assign(
        instance_id, expiration=60.0
    )  # claimed at once, because it could expire while it is held
    assignment = take(broker, worker_id)
    assert coordinator.claim().instance_id == instance_id
    wait_until(lambda: fence(assignment) in beat_after(broker, worker_id, coordinator).leases)
    return assignment


def success(of: StepAssignment) -> StepReport:
    """A report of it."""
    return StepReport(
        workflow_id=of.workflow_id, instance_id=of.instance_id, step_name=of.step_name, state=Status.SUCCEEDED
    )


# ---- runs that were stopped


def stop(run: str, *spare: str) -> ControlNotice:
    """Stop all of a run."""
    return ControlNotice(kind=ControlKind.STOP, instance_id=run, spare=list(spare))


def test_steps_of_a_run_that_was_stopped_are_not_handed_out(
    coordinator: PlayedCoordinator, make_broker: Make
) -> None:
    """P5: what a notice said holds for what comes after it, but for the clean-up that it spares."""
    broker = make_broker(60.0)
    worker_id = broker.register_worker([SCHEMA])
    for run in ("cancelled", "failing"):
        hold_leased(broker, worker_id, coordinator, run)
    broker.keep_alive(worker_id)
    _, address = coordinator.beat()
    coordinator.notify(address, stop("cancelled"))
    coordinator.notify(address, stop("failing", "b"))
    wait_until(lambda: not beat_after(broker, worker_id, coordinator).leases)
    coordinator.assign("cancelled", "b")
    coordinator.assign("failing", "a", attempt=2)
    coordinator.assign("failing", "b")
    coordinator.assign("other")
    handed = [take(broker, worker_id), take(broker, worker_id)]
    assert [(one.instance_id, one.step_name) for one in handed] == [("failing", "b"), ("other", "a")]
    broker.close()
    wait_until(lambda: coordinator.ready() == 2)  # what was handed out; the others are gone for good


def test_a_delivery_of_a_stopped_run_is_let_go(coordinator: PlayedCoordinator, make_broker: Make) -> None:
    """It is not given to somebody else when this broker leaves."""
    broker = make_broker(60.0)
    worker_id = broker.register_worker([SCHEMA])
    coordinator.assign("cancelled")
    held = take(broker, worker_id)
    hold_leased(broker, worker_id, coordinator, "last told")
    broker.keep_alive(worker_id)
    _, address = coordinator.beat()
    coordinator.notify(address, stop("cancelled"))
    coordinator.notify(address, stop("last told"))
    wait_until(lambda: not beat_after(broker, worker_id, coordinator).leases)
    coordinator.is_current = False
    with pytest.raises(StaleReportError):
        broker.report_step(worker_id, success(held))
    broker.close()
    assert coordinator.ready() == 0


# ---- what a worker that is far away says it holds


def test_keep_alive_carries_what_the_worker_says_it_holds(
    coordinator: PlayedCoordinator, make_broker: Make
) -> None:
    """P1: an assignment that was lost on its way to the worker is carried on by nobody."""
    broker = make_broker(60.0)
    worker_id = broker.register_worker([SCHEMA])
    kept = fence(hold_leased(broker, worker_id, coordinator, "kept"))
    lost = fence(hold_leased(broker, worker_id, coordinator, "lost"))
    coordinator.assign("unclaimed")
    unclaimed = fence(take(broker, worker_id))
    assert beat_after(broker, worker_id, coordinator, [kept, unclaimed]).leases == [kept]
    assert set(beat_after(broker, worker_id, coordinator, [kept, lost]).leases) == {
        kept,
        lost,
    }  # it came late
    assert beat_after(broker, worker_id, coordinator, []).leases == []


def test_what_was_lost_is_carried_no_more_whatever_the_worker_says(
    coordinator: PlayedCoordinator, make_broker: Make
) -> None:
    """P5."""
    broker = make_broker(60.0)
    worker_id = broker.register_worker([SCHEMA])
    lost = fence(hold_leased(broker, worker_id, coordinator, "i"))
    broker.keep_alive(worker_id)
    _, address = coordinator.beat()
    coordinator.notify(
        address,
        ControlNotice(kind=ControlKind.STOP, instance_id="i", attempts=[lost[1:]], worker_id=worker_id),
    )
    wait_until(lambda: not beat_after(broker, worker_id, coordinator, [lost]).leases)


# ---- what could not be handed out


def test_what_cannot_be_checked_goes_back(
    coordinator: PlayedCoordinator, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: nobody held it, and RabbitMQ kept it for a broker that had forgotten it."""
    first, broker = make_broker(60.0), make_broker(60.0)
    coordinator.assign("i")
    take(first, first.register_worker([SCHEMA]))
    first.close()
    worker_id = broker.register_worker([SCHEMA])
    wait_until(lambda: coordinator.ready() == 1)

    def check(*_: object) -> None:
        raise DeadlineExceededError("no coordinator answers")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "_check", check)
        wait_until(lambda: fails(broker, worker_id, DeadlineExceededError))
    assert take(broker, worker_id).instance_id == "i"


def test_what_cannot_be_claimed_goes_back_and_is_carried_on_by_nobody(
    coordinator: PlayedCoordinator, make_broker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: its worker never got it, and its lease would have been kept alive for ever."""
    broker = make_broker(0.2)
    worker_id = broker.register_worker([SCHEMA])
    coordinator.assign("i", expiration=60.0)

    def claim_now(*_: object) -> None:
        raise BrokerBusyError("RabbitMQ blocks publishers")

    with monkeypatch.context() as patch:
        patch.setattr(broker._holdings, "claim_now", claim_now)
        wait_until(lambda: fails(broker, worker_id, BrokerBusyError))
    assert take(broker, worker_id).instance_id == "i"
    assert coordinator.claim().instance_id == "i"
    coordinator.assign("j")
    assert take(broker, worker_id).instance_id == "j"
    assert coordinator.claim().instance_id == "j"  # and there was no other one before


def fails(broker: AmqpBroker, worker_id: str, error: type[Exception]) -> bool:
    """Whether asking for a step fails now; RabbitMQ may need a moment to have it in its queue."""
    try:
        assert broker.get_step(worker_id) is None
    except error:
        return True
    return False

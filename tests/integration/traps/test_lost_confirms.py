"""P3, P7: who publishes and is not told that it arrived. It fails within its deadline, and may have an effect yet: once.

Without a quorum queue's majority: tests/integration/test_cluster.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuseline.broker import AmqpBroker
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError
from fuseline.model import RunStatus, RunView, Status
from fuseline.testing.flows import graph
from fuseline.testing.proxy import TcpProxy, Where
from fuseline.testing.servers import PrivateRabbitMQ
from tests.integration.amqp.harness import wait_until
from tests.integration.traps.conftest import Gather
from tests.integration.traps.parties import PATIENCE_SECONDS, Party, be_hasty, error_of, success, take

HASTY_SECONDS = 1.0
FLOW = graph("chain", {"a": ["b"]})
LATE = "late"

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.fixture
def proxy(rabbitmq_server: PrivateRabbitMQ) -> Iterator[TcpProxy]:
    """On the way to the server."""
    with TcpProxy("127.0.0.1", rabbitmq_server.port) as one:
        yield one


class Caller:
    """A broker with a step in its hands, and two calls that change something: a dispatch and that step's report."""

    def __init__(self, broker: AmqpBroker) -> None:
        self.broker = broker
        self.worker_id = broker.register_worker([FLOW])

    def begin(self) -> None:
        self.reported = self.broker.dispatch_workflow(FLOW)
        report = success(take(self.broker, self.worker_id))
        self.calls: list[Callable[[], Any]] = [
            lambda: self.broker.dispatch_workflow(FLOW, instance_id=LATE),
            lambda: self.broker.report_step(self.worker_id, report),
        ]

    def fail(self, patch: pytest.MonkeyPatch) -> list[Exception | None]:
        """Make each call with little patience: what it raises."""
        with patch.context() as hasty:
            be_hasty(hasty, self.broker, HASTY_SECONDS)
            return [error_of(call) for call in self.calls]


def has_landed(by: AmqpBroker, caller: Caller) -> bool:
    """Whether the run is there, and the report is recorded."""
    known = {run.instance_id for run in by.list_runs()}
    return LATE in known and by.get_run(caller.reported).steps["a"].state is Status.SUCCEEDED


def heard(by: AmqpBroker) -> int:
    """How many events the coordinator has decided on."""
    return sum(by.status()["events"].values())


def finish(party: Party, caller: Caller) -> dict[str, RunView]:
    """Have a worker do what is left: each step once, and all runs end."""
    _, bodies = party.worker(FLOW, party.url)
    ended = {run: party.wait(run) for run in (caller.reported, LATE)}
    executed = sorted((one.instance_id, one.step_name) for one in bodies.started.queue)
    assert executed == sorted([(caller.reported, "b"), (LATE, "a"), (LATE, "b")])
    assert {run.state for run in ended.values()} == {RunStatus.SUCCEEDED}
    assert {step.attempt for run in ended.values() for step in run.steps.values()} == {1}
    assert {run.instance_id for run in party.broker.list_runs()} == set(ended)
    return ended


@pytest.mark.parametrize(
    ("direction", "lose"), [("to_client", True), ("to_server", False)], ids=["confirm lost", "lands later"]
)
def test_a_call_without_its_confirm_fails_in_time_and_has_one_effect(
    gather: Gather,
    rabbitmq_server: PrivateRabbitMQ,
    proxy: TcpProxy,
    monkeypatch: pytest.MonkeyPatch,
    direction: Where,
    lose: bool,
) -> None:
    """RabbitMQ has it and cannot say so, or gets it when its caller has given up; then the caller tries again."""
    party = gather(rabbitmq_server.url)
    near = party.broker
    with party.client(proxy.url(rabbitmq_server.url)) as far:
        caller = Caller(far)
        caller.begin()
        proxy.freeze(direction, lose=lose)
        for error in caller.fail(monkeypatch):
            assert isinstance(error, DeadlineExceededError)
        if direction == "to_client":
            wait_until(lambda: has_landed(near, caller), PATIENCE_SECONDS)
        else:
            assert {run.instance_id for run in near.list_runs()} == {caller.reported}
        proxy.thaw()
        wait_until(lambda: has_landed(near, caller), PATIENCE_SECONDS)
        assert far.dispatch_workflow(FLOW, instance_id=LATE) == LATE
        ended = finish(party, caller)
        before = heard(near)
        for call in caller.calls:
            call()
        wait_until(lambda: heard(near) >= before + len(caller.calls), PATIENCE_SECONDS)
        assert {run: near.get_run(run) for run in ended} == ended


def test_calls_with_rabbitmq_down_fail_in_time_and_are_not_made_later(
    gather: Gather, rabbitmq_server: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its caller was told of as failed is not sent when RabbitMQ is back; who repeats it has it done once."""
    party = gather(rabbitmq_server.url)
    broker = party.broker
    caller = Caller(broker)
    rabbitmq_server.restart()  # a quorum queue that is seconds old may not outlive a crash
    caller.begin()
    rabbitmq_server.kill()
    for error in caller.fail(monkeypatch):
        assert isinstance(error, BrokerUnavailableError)
    rabbitmq_server.start()
    assert {run.instance_id for run in broker.list_runs()} == {caller.reported}
    for call in caller.calls:
        call()
    wait_until(lambda: has_landed(broker, caller), PATIENCE_SECONDS)
    finish(party, caller)

"""P1, P5: a delivery tag counts within one channel, so after a reconnect the same number is another message's.

Both kinds of link, ack and nack: tests/integration/amqp/test_consuming.py and test_faults.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from fuseline.broker import AmqpBroker
from fuseline.model import RunStatus
from fuseline.testing.proxy import TcpProxy
from tests.integration.amqp.harness import SECONDS
from tests.integration.traps.parties import Party, one_step, success, take

SCHEMA = one_step()


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[TcpProxy]:
    """On the way to the server, for whoever is to lose it."""
    parts = urlsplit(amqp_url)
    assert parts.hostname
    with TcpProxy(parts.hostname, parts.port or 5672) as one:
        yield one


def tags(broker: AmqpBroker, worker_id: str) -> list[int]:
    """The delivery tags of what a worker holds."""
    held = broker._holdings._worker(worker_id).held.values()
    return [one.delivery.tag for one in held if one.delivery is not None]


def test_what_was_held_before_a_reconnect_does_not_let_another_step_go_after_it(
    party: Party, proxy: TcpProxy, amqp_url: str
) -> None:
    """Its late report is refused, and the step that has its number now is still there when its holder dies."""
    steady = party.broker
    with party.client(proxy.url(amqp_url)) as flapping:
        worker, other = flapping.register_worker([SCHEMA]), steady.register_worker([SCHEMA])
        first = steady.dispatch_workflow(SCHEMA)
        before = take(flapping, worker)
        proxy.cut()
        again = take(steady, other)
        assert before.instance_id == again.instance_id == first
        second = steady.dispatch_workflow(SCHEMA)
        assert take(flapping, worker).instance_id == second
        assert tags(flapping, worker) == [1, 1], "else the next line proves nothing"
        flapping.report_step(worker, success(before))
        steady.report_step(other, success(again))
    # It is gone, as when it is killed: RabbitMQ hands on what it held.
    left = take(steady, other, SECONDS)
    assert left.instance_id == second
    steady.report_step(other, success(left))
    ended = [party.wait(run) for run in (first, second)]
    assert {run.state for run in ended} == {RunStatus.SUCCEEDED}
    assert {run.steps["a"].attempt for run in ended} == {1}

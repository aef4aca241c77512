"""A queue that is gone is declared once, however many messages come back from it."""

from __future__ import annotations

from typing import Any, cast

from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.coordinator.declared import Declared
from fuseline.errors import BrokerUnavailableError, FuselineError

KEY = ("g", "1")


class FakeLink:
    """Keeps who waits for a declaration."""

    def __init__(self) -> None:
        self.then: list[Any] = []

    def declare(self, _resources: object, then: Any, *, deadline_seconds: float) -> None:
        assert deadline_seconds > 0
        self.then.append(then)


def test_many_who_ask_at_once_take_one_channel() -> None:
    """P1, P6: each declaration takes a channel, of which a connection has 2,047."""
    link = FakeLink()
    declared = Declared(cast("Link", link), Topology())
    told: list[FuselineError | None] = []
    for _ in range(5_000):
        declared.again(KEY, told.append)
    declared.again(("h", "1"), told.append)
    assert len(link.then) == 2
    error = BrokerUnavailableError("no majority")
    link.then[0](error)
    assert told == [error] * 5_000
    assert KEY not in declared
    declared.again(KEY, told.append)  # the next one asks anew
    link.then[2](None)
    assert told[-1] is None
    assert KEY in declared

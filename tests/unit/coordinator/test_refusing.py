"""What can never be sent fails its step, and its cause stays unacknowledged until that is recorded (P4, P7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp.topology import Topology
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.settle import Ticket
from fuseline.coordinator.workers import WorkerBook
from fuseline.errors import FatalError, FuselineError, InvalidMessageError, StorageUnavailableError
from fuseline.ledger import Dispatch, Occurrence
from fuseline.model import RunStatus, Status
from fuseline.testing.flows import graph
from tests.unit.ledgers import Leaving, ledger_over, ok

REFUSED = InvalidMessageError("larger than RabbitMQ allows")


class Desk:
    """Runs of two steps whose first has just been reported; what is published waits for the test's word."""

    def __init__(self, *runs: str, after: Sequence[str] = ()) -> None:
        self.published: list[Callable[[FuselineError | None], None]] = []
        self.later: list[Callable[[], None]] = []
        self.settled = 0
        self.ledger, self.storage, clock = ledger_over(Leaving(), graph("g", {"a": ["b"], "b": list(after)}))
        self.ledger.apply([Dispatch("g", "1", i) for i in runs])
        self.outbox = Outbox(cast("Any", self), Topology(), clock, lambda _key, then: then(None))
        self.outbox.events = lambda outcome: None  # type: ignore[method-assign]
        self.pipeline = Pipeline(self.ledger, self.outbox, WorkerBook(clock, 60.0))
        for i in runs:
            ticket = Ticket(cast("Any", SimpleNamespace(settle=self._settle)), cast("Any", None))
            self.pipeline.run([Item(Occurrence(i, ok("a"), "g"))], [ticket])
            ticket.done()

    is_blocked = False

    def publish(self, *_what: Any, on_done: Callable[[FuselineError | None], None], **_how: Any) -> None:
        self.published.append(on_done)

    def flush(self) -> None:
        """It has left."""

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def _settle(self) -> None:
        self.settled += 1

    def status(self, i: str = "r") -> tuple[RunStatus, Status]:
        stored = self.storage.read_run(i)
        assert stored is not None
        return stored.run.status, stored.steps["b"].status


def test_its_cause_is_let_go_when_its_failure_is_recorded() -> None:
    desk = Desk("r")
    desk.published[0](REFUSED)
    assert (desk.status(), desk.settled, desk.later) == ((RunStatus.FAILED, Status.FAILED), 1, [])


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
def test_it_is_kept_while_storage_is_away(recorded: bool) -> None:
    """Nobody knows whether it is recorded; what is, counts once (P3)."""
    desk = Desk("r")
    if recorded:
        desk.storage.at_end = [StorageUnavailableError("cut off")]
    else:
        desk.storage.is_full = True
    desk.published[0](REFUSED)
    assert desk.settled == 0
    desk.storage.is_full = False
    (again,) = desk.later
    again()
    assert (desk.status(), desk.settled) == ((RunStatus.FAILED, Status.FAILED), 1)
    assert desk.later == [again]


def test_only_the_first_asks_storage_again() -> None:
    """P1: each time may take as long as storage's timeouts, and RabbitMQ hears nothing meanwhile."""
    desk = Desk("r", "s", "t")
    desk.storage.is_full = True
    for on_done in desk.published:
        on_done(REFUSED)
    assert (desk.settled, len(desk.later)) == (0, 1)
    desk.later.pop()()
    assert (desk.settled, len(desk.later)) == (0, 1)
    desk.storage.is_full = False
    desk.later.pop()()
    assert (desk.settled, desk.later) == (3, [])
    assert {desk.status(i) for i in "rst"} == {(RunStatus.FAILED, Status.FAILED)}


def test_what_is_not_recorded_as_the_coordinator_stops_is_left_to_the_next_one() -> None:
    desk = Desk("r")
    desk.storage.is_full = True
    desk.published[0](REFUSED)
    desk.outbox.stop()
    desk.storage.is_full = False
    desk.later.pop()()
    assert (desk.status(), desk.settled) == ((RunStatus.RUNNING, Status.QUEUED), 0)


def test_an_error_that_goes_up_keeps_nothing_that_is_refused_later_from_being_recorded() -> None:
    """P7."""
    desk = Desk("r", "s")
    record, desk.outbox.refusals.on_refused = desk.outbox.refusals.on_refused, _breaks
    with pytest.raises(FatalError):
        desk.published[0](REFUSED)
    desk.outbox.refusals.on_refused = record
    desk.published[1](REFUSED)
    assert {desk.status(i) for i in "rs"} == {(RunStatus.FAILED, Status.FAILED)}
    assert desk.settled == 2


def _breaks(*_what: object) -> None:
    raise FatalError("the tables are gone")

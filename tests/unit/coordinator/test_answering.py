"""Commands that came together: storage is asked for each, so a slow one must not hold up all else (ADR 0005)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp.codec import Properties, encode
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Command, Reply
from fuseline.coordinator.answering import Answering
from fuseline.coordinator.commands import Commands
from fuseline.coordinator.intake import Intake
from fuseline.coordinator.pipeline import Pipeline
from fuseline.coordinator.workers import WorkerBook
from fuseline.errors import DeadlineExceededError, FuselineError, StorageUnavailableError, TopologyError
from fuseline.ledger import Dispatch, Outcome
from fuseline.testing.flows import graph
from tests.unit.coordinator.outboxes import outbox_with
from tests.unit.ledgers import Leaving, ledger_over


class Desk:
    """Commands in an inbox, and what becomes of them."""

    def __init__(self, commands: int, *, redelivered: bool = False) -> None:
        self.is_away = False
        self.is_enough = False
        self.asked = 0
        self.replies: list[bool] = []
        self.acked = 0
        self.inbox = Intake(cast("Any", self), "commands", 100, lambda: None)
        body = encode(Command(name="status"))
        said: dict[str, Any] = {"properties": Properties(), "exchange": "commands", "routing_key": ""}
        for tag in range(1, commands + 1):
            self._deliver(
                Delivery(tag, 1, body, **said, redelivered=redelivered, queue="commands", line=None)
            )
        nobody: Any = SimpleNamespace()
        self._answering = Answering(
            cast("Any", SimpleNamespace(names={"status"}, read=self._read)),
            nobody,
            cast("Any", SimpleNamespace(reply=self._reply)),
            nobody,
            Topology(),
            lambda _error: None,
            lambda: None,
        )

    def consume(self, _queue: str, _prefetch: int, deliver: Any, *_rest: Any) -> Any:
        self._deliver = deliver

    def ack(self, delivery: Delivery, *, multiple: bool) -> None:
        assert multiple
        self.acked = delivery.tag

    def _reply(self, _request: Delivery, reply: Reply) -> None:
        self.replies.append(reply.ok)

    def _read(self, _name: str, _args: dict[str, Any]) -> Any:
        self.asked += 1
        if self.is_away:
            self.is_enough = True  # as the coordinator says until storage has been tried again
            raise StorageUnavailableError("the database does not answer")

    def answer(self) -> bool:
        """Once, as the coordinator does."""
        return self._answering.answer(self.inbox, 100, lambda: self.is_enough)


def test_storage_that_does_not_answer_is_asked_once_and_not_for_each_command() -> None:
    """P7: each time takes as long as storage's own timeouts, and RabbitMQ hears nothing meanwhile."""
    desk = Desk(5)
    desk.is_away = True
    assert desk.answer()
    assert (desk.asked, desk.replies, desk.acked, len(desk.inbox)) == (1, [False], 1, 4)
    desk.is_away = desk.is_enough = False
    assert desk.answer()
    assert (desk.replies[1:], desk.acked, len(desk.inbox)) == ([True] * 4, 5, 0)
    assert not desk.answer()


def test_what_is_kept_is_not_asked_for_one_after_the_other_either() -> None:
    """P4: all of them are kept, and answered in the end."""
    desk = Desk(5, redelivered=True)
    desk.is_away = True
    for _ in range(3):
        desk.is_enough = False
        assert desk.answer()
    assert (desk.asked, desk.acked) == (3, 0)
    desk.is_away = desk.is_enough = False
    while desk.answer():
        pass
    assert (desk.replies.count(True), desk.acked) == (5, 5)


@pytest.mark.parametrize("commands", [1, 5])
def test_one_is_answered_even_when_time_is_up(commands: int) -> None:
    """P1."""
    desk = Desk(commands)
    desk.is_enough = True
    for answered in range(1, commands + 1):
        assert desk.answer()
        assert desk.acked == answered
    assert not desk.answer()


class Dispatching:
    """Dispatches of many runs in an inbox, over a storage that is left to commit."""

    def __init__(self, *commands: Sequence[str], redelivered: bool = False) -> None:
        self.ledger, self.storage, clock = ledger_over(Leaving(), graph("g", {"a": []}))
        ledger = self.ledger
        self.assigned: list[str] = []
        self.replies: list[bool] = []
        self.acked: list[int] = []
        self.lost = 0
        outbox = outbox_with(
            reply=lambda _request, reply: self.replies.append(reply.ok),
            assign=self._assign,
            events=lambda _outcome: None,
        )
        self.pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0), few=0)
        self.to_finish = 0
        self.pipeline.on_under_way = self._finish_soon
        self.declared = {("g", "1")}
        self.ensured: list[Callable[[FuselineError | None], None]] = []
        self.inbox = Intake(cast("Any", self), "commands", 100, lambda: None)
        for tag, runs in enumerate(commands, 1):
            args: dict[str, Any] = {"workflow_id": "g", "version": "1", "runs": [(i, {}) for i in runs]}
            body = encode(Command(name="dispatch_many", args=args))
            said: dict[str, Any] = {
                "exchange": "commands",
                "routing_key": "",
                "queue": "commands",
                "line": None,
            }
            self._deliver(Delivery(tag, 1, body, Properties(), redelivered=redelivered, **said))
        self._answering = Answering(
            Commands(ledger, self.storage, clock),
            self.pipeline,
            outbox,
            cast("Any", self),
            Topology(),
            self._lost,
            lambda: None,
        )

    def _finish_soon(self) -> None:
        self.to_finish += 1

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self.declared

    def ensure(self, _key: tuple[str, str], then: Callable[[FuselineError | None], None]) -> None:
        self.ensured.append(then)

    def _assign(self, outcome: Outcome, _assignment: object, done: Callable[[], None]) -> None:
        self.assigned.append(outcome.instance_id)
        done()

    def _lost(self, _error: StorageUnavailableError) -> None:
        self.lost += 1

    def consume(self, _queue: str, _prefetch: int, deliver: Any, *_rest: Any) -> Any:
        self._deliver = deliver

    def ack(self, delivery: Delivery, *, multiple: bool) -> None:
        assert multiple
        self.acked.append(delivery.tag)

    def answer(self) -> bool:
        return self._answering.answer(self.inbox, 1, lambda: False)


def test_a_dispatch_is_answered_when_it_is_recorded_and_no_sooner() -> None:
    """P4: the next one is begun before that."""
    desk = Dispatching(["a"], ["b"])
    assert desk.answer()
    assert (desk.assigned, desk.replies, desk.acked) == ([], [], [])
    assert desk.answer()
    assert (desk.assigned, desk.replies, desk.acked) == (["a"], [True], [1])
    desk.pipeline.finish()
    assert (desk.assigned, desk.replies, desk.acked) == (["a", "b"], [True, True], [1, 2])
    assert not desk.answer()


def test_whose_dispatch_storage_may_have_lost_is_told_to_ask_again() -> None:
    desk = Dispatching(["a"], ["b"])
    desk.storage.at_end = [StorageUnavailableError("cut off")]
    desk.answer()
    desk.answer()
    desk.pipeline.finish()
    assert (desk.replies, desk.lost, desk.acked, desk.assigned) == ([False, True], 1, [1, 2], ["b"])


def test_a_dispatch_that_comes_again_and_may_be_lost_is_kept() -> None:
    """P1: its caller may have been answered long ago by one that was killed before anything of it went out."""
    desk = Dispatching(["a"], redelivered=True)
    desk.storage.at_end = [StorageUnavailableError("cut off")]
    desk.answer()
    desk.pipeline.finish()
    assert (desk.replies, desk.acked, desk.assigned) == ([False], [], [])
    assert desk.answer()
    desk.pipeline.finish()
    assert (desk.replies, desk.acked, desk.assigned) == ([False, True], [1], ["a"])


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
def test_a_dispatch_that_comes_again_goes_out_although_its_queue_cannot_be_declared(recorded: bool) -> None:
    """P4: the coordinator that recorded and answered it was killed, and with it RabbitMQ's node that leads the queue."""
    desk = Dispatching(["a"], redelivered=True)
    if recorded:
        desk.ledger.apply([Dispatch("g", "1", "a")])
    desk.declared.clear()
    desk.answer()
    (then,) = desk.ensured
    then(DeadlineExceededError("RabbitMQ did not answer in time"))
    desk.pipeline.finish()
    assert (desk.replies, desk.acked, desk.assigned) == ([True], [1], ["a"])


@pytest.mark.parametrize("redelivered", [True, False])
def test_a_dispatch_whose_queue_can_never_be_declared_is_refused(redelivered: bool) -> None:
    """P7; and so is one that comes for the first time and may be repeated."""
    desk = Dispatching(["a"], redelivered=redelivered)
    desk.declared.clear()
    desk.answer()
    (then,) = desk.ensured
    then(TopologyError("it has other arguments") if redelivered else DeadlineExceededError("no answer"))
    assert (desk.replies, desk.acked, desk.assigned) == ([False], [1], [])


def test_a_dispatch_that_storage_cannot_begin_is_refused_at_once() -> None:
    desk = Dispatching(["a"])
    desk.storage.is_full = True
    desk.answer()
    assert (desk.replies, desk.lost, desk.acked, desk.pipeline.is_under_way) == ([False], 1, [1], False)


@pytest.mark.parametrize("begins", [True, False], ids=["as it is begun", "as it is committed"])
def test_runs_that_are_there_already_are_found_by_who_did_not_look(begins: bool) -> None:
    """P3: a caller repeats what he had no answer to. The others of his call, and of the next one, begin."""
    desk = Dispatching(["a"], ["b", "a", "c"], ["d"])
    desk.storage.tells_conflicts = True
    desk.answer()
    desk.pipeline.finish()
    if not begins:
        desk.storage.conflict_at_end = True
    assert desk.answer()
    assert desk.answer()
    desk.pipeline.finish()
    assert (desk.replies, desk.acked, desk.lost) == ([True] * 3, [1, 2, 3], 0)
    assert sorted(desk.assigned) == ["a", "a", "b", "c", "d"]  # what is queued is offered again
    assert len(desk.storage.list_runs()) == 4


def test_who_dispatches_many_new_runs_does_not_look_for_them() -> None:
    desk = Dispatching(["a", "b"])
    desk.storage.tells_conflicts = True
    desk.answer()
    assert not any(wanted.runs for wanted in desk.storage.loads)


def test_what_begins_when_its_queue_is_declared_is_finished_soon_as_well() -> None:
    """P1: no other command may come for long. It was found by two of 30,000 seeds, as a dispatch that took five seconds."""
    desk = Dispatching(["a"])
    desk.declared.clear()
    desk.answer()
    assert (desk.to_finish, desk.pipeline.is_under_way) == (0, False)
    desk.ensured[0](None)
    assert (desk.to_finish, desk.pipeline.is_under_way) == (1, True)
    desk.pipeline.finish()
    assert (desk.replies, desk.acked, desk.assigned) == ([True], [1], ["a"])

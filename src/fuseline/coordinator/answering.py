"""Takes commands from their queue, applies and answers them; dispatches that came together share a transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Command, Reply, read
from fuseline.coordinator.commands import WORKER_COMMANDS, Commands
from fuseline.coordinator.declared import Declared
from fuseline.coordinator.intake import Intake
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.settle import Ticket
from fuseline.errors import CallerError, FuselineError, RetryableError, StorageUnavailableError
from fuseline.ledger import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A command that is checked and waits for its transaction."""

    items: list[Item]
    delivery: Delivery
    ticket: Ticket


@dataclass(slots=True)
class _Together:
    """Commands of one transaction: a ticket for each item, as one command may ask for many."""

    items: list[Item] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    commands: list[tuple[Delivery, Ticket]] = field(default_factory=list)

    def add(self, one: _Ready) -> None:
        self.items += one.items
        self.tickets += [one.ticket] * len(one.items)
        self.commands.append((one.delivery, one.ticket))


@dataclass(slots=True)
class _Many:
    """Dispatches that one command asked for, of which `left` have no outcome yet."""

    delivery: Delivery
    left: int
    runs: int
    error: FuselineError | None = None


class Answering:
    """Every command gets one answer, then its message is acknowledged: a coordinator that dies leaves it to the next.

    One that comes a second time while storage is away is kept until it is back. Whoever had it first may have recorded
    and acknowledged it, so that its caller asks no more, and been killed before he sent out what it brings about.
    """

    def __init__(
        self,
        commands: Commands,
        pipeline: Pipeline,
        outbox: Outbox,
        declared: Declared,
        topology: Topology,
        on_storage_lost: Callable[[StorageUnavailableError], None],
        on_applied: Callable[[], None],
    ) -> None:
        self._commands = commands
        self._pipeline = pipeline
        self._outbox = outbox
        self._declared = declared
        self._topology = topology
        self._on_storage_lost = on_storage_lost
        self._on_applied = on_applied
        self._kept: list[tuple[Delivery, Ticket]] = []

    def answer(self, intake: Intake, limit: int, is_enough: Callable[[], bool]) -> bool:
        """Answer up to `limit` commands, fewer when it `is_enough`; False when there are none.

        Each may ask storage for itself, so that many of them must not follow each other for as long as storage is slow.
        """
        if self._kept:
            self._answer_kept(limit, is_enough)
            return True
        deliveries = intake.peek(limit)
        if not deliveries:
            return False
        ticket = intake.settler.open(deliveries)
        ready = _Together()
        answered = 0
        while answered < len(deliveries) and not (answered and (is_enough() or len(ready.items) >= limit)):
            self._answer_one(deliveries[answered], ticket, ready)
            answered += 1
        ticket.last = deliveries[answered - 1]
        intake.take(deliveries[:answered])
        self._apply(ready)
        ticket.done()
        return True

    def _answer_kept(self, limit: int, is_enough: Callable[[], bool]) -> None:
        kept, self._kept = self._kept, []
        ready = _Together()
        answered = 0
        while answered < len(kept) and not (answered and (is_enough() or len(ready.items) >= limit)):
            delivery, ticket = kept[answered]
            if not delivery.is_stale:  # that of a lost channel comes again
                self._answer_one(delivery, ticket, ready)
            answered += 1
        self._kept += kept[answered:]
        self._apply(ready)
        for _, ticket in kept[:answered]:
            ticket.done()

    def _answer_one(self, delivery: Delivery, ticket: Ticket, ready: _Together) -> None:
        try:
            command = read(Command, delivery.body)
            for_workers = delivery.exchange == self._topology.worker_commands_exchange
            if for_workers and command.name not in WORKER_COMMANDS:
                raise CallerError(f"command {command.name!r} is not for workers")
            self._begin(command, delivery, ticket, ready)
        except StorageUnavailableError as error:
            self._storage_lost([(delivery, ticket)], error)
        except FuselineError as error:
            self._refuse(delivery, error)
        except Exception as error:
            log.exception("a command failed for a reason that nobody foresaw")
            self._refuse(
                delivery, FuselineError(f"internal error of the coordinator: {type(error).__name__}")
            )

    def _begin(self, command: Command, delivery: Delivery, ticket: Ticket, ready: _Together) -> None:
        if command.name == "register":
            worker_id, schemas = self._commands.register(command.args)
            ticket.expect()
            then = partial(self._registered, delivery, worker_id, ticket)
            # Whatever was declared before: a worker also registers because it found its queue gone.
            self._declared.again_all([schema.key for schema in schemas], then)
        elif command.name == "dispatch":
            one, schema = self._commands.dispatch(command.args, redelivered=delivery.redelivered)
            items = [Item(what, on_outcome=partial(self._dispatched, delivery)) for what in one]
            self._dispatch(_Ready(items, delivery, ticket), schema.key, ready)
        elif command.name == "dispatch_many":
            all_of_them, schema, refused = self._commands.dispatch_many(
                command.args, redelivered=delivery.redelivered
            )
            many = _Many(delivery, len(all_of_them), len(all_of_them), refused)
            told = partial(self._dispatched_one, many)
            items = [Item(one, on_outcome=told) for one in all_of_them]
            self._dispatch(_Ready(items, delivery, ticket), schema.key, ready)
        elif command.name == "cancel":
            answered = partial(self._answered, delivery, self._commands.cancelled)
            ready.add(_Ready([Item(self._commands.cancel(command.args), answered)], delivery, ticket))
        elif command.name == "replay_dead_letter":
            letter_id, event = self._commands.replay(command.args, redelivered=delivery.redelivered)
            answer = partial(self._commands.replayed, letter_id)
            ready.add(
                _Ready([Item(event, on_outcome=partial(self._answered, delivery, answer))], delivery, ticket)
            )
        elif command.name == "discard_dead_letter":
            letter_id, event = self._commands.discard(command.args)
            answer = partial(self._commands.discarded, letter_id)
            ready.add(
                _Ready([Item(event, on_outcome=partial(self._answered, delivery, answer))], delivery, ticket)
            )
        elif command.name in self._commands.names:
            result = self._commands.read(command.name, command.args)
            self._outbox.reply(delivery, Reply(ok=True, result=result))
        else:
            raise CallerError(f"command {command.name!r} is unknown to this coordinator")

    def _dispatch(self, one: _Ready, key: tuple[str, str], ready: _Together) -> None:
        if key in self._declared:
            ready.add(one)
        else:
            one.ticket.expect()
            self._declared.ensure(key, partial(self._dispatch_declared, one))

    def _apply(self, ready: _Together) -> None:
        """Where there are many, the commit is not waited for: `Pipeline.finish` does that."""
        if not ready.items:
            return
        for _, ticket in ready.commands:
            ticket.expect()
        done, lost = partial(self._applied, ready), partial(self._not_applied, ready)
        try:
            self._pipeline.begin(ready.items, done, lost)
        except StorageUnavailableError as error:
            lost(error)
        self._on_applied()  # rows were saved, and some of them may be due soon

    def _applied(self, ready: _Together, outcomes: Sequence[Outcome]) -> None:
        self._pipeline.carry_out_all(ready.items, outcomes, ready.tickets)
        self._let_go(ready)

    def _not_applied(self, ready: _Together, error: StorageUnavailableError) -> None:
        self._storage_lost(ready.commands, error)
        self._let_go(ready)

    @staticmethod
    def _let_go(ready: _Together) -> None:
        for _, ticket in ready.commands:
            ticket.done()

    def _storage_lost(self, commands: list[tuple[Delivery, Ticket]], error: StorageUnavailableError) -> None:
        self._on_storage_lost(error)
        for delivery, ticket in commands:
            self._refuse(delivery, error)
            if delivery.redelivered:
                ticket.expect()
                self._kept.append((delivery, ticket))

    def _refuse(self, delivery: Delivery, error: FuselineError) -> None:
        self._outbox.reply(delivery, Reply.failure(error))

    def _registered(
        self, delivery: Delivery, worker_id: str, ticket: Ticket, error: FuselineError | None
    ) -> None:
        if error is None:
            self._outbox.reply(delivery, Reply(ok=True, result={"worker_id": worker_id}))
        else:
            self._refuse(delivery, error)
        ticket.done()

    def _dispatch_declared(self, one: _Ready, error: FuselineError | None) -> None:
        # One that comes a second time may be recorded and answered: what it brings about has to go out (P4), and goes by
        # the way of an assignment whose queue is not there.
        if error is None or (one.delivery.redelivered and isinstance(error, RetryableError)):
            alone = _Together()
            alone.add(one)
            self._apply(alone)
        else:
            self._refuse(one.delivery, error)
        one.ticket.done()

    def _dispatched(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._refuse(delivery, outcome.error)
        else:
            self._outbox.reply(delivery, Reply(ok=True, result={"instance_id": outcome.instance_id}))

    def _dispatched_one(self, many: _Many, outcome: Outcome) -> None:
        many.left -= 1
        many.error = many.error or outcome.error
        if many.left:
            return
        if many.error is not None:
            self._refuse(many.delivery, many.error)
        else:
            self._outbox.reply(many.delivery, Reply(ok=True, result={"runs": many.runs}))

    def _answered(self, delivery: Delivery, answer: Callable[[Outcome], Any], outcome: Outcome) -> None:
        try:
            reply = Reply(ok=True, result=answer(outcome))
        except FuselineError as error:
            reply = Reply.failure(error)
        self._outbox.reply(delivery, reply)

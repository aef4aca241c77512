"""Known bugs, planted into the real code to prove that the simulation sees them. Each is a context manager."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.resources import Queue
from fuseline.coordinator import bundles, daemon, decoding
from fuseline.coordinator.declared import Declared
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline
from fuseline.coordinator.reading import Source
from fuseline.coordinator.recording import Recording
from fuseline.engine import machine, turn
from fuseline.engine.events import StepDuePassed, StepReported
from fuseline.engine.plan import StepPlan
from fuseline.engine.readiness import EdgeState, Fate
from fuseline.engine.state import StepRow
from fuseline.engine.turn import Turn
from fuseline.errors import InvalidMessageError, StorageUnavailableError
from fuseline.ledger import Occurrence, Outcome, deciding
from fuseline.model.messages import StepAssignment
from fuseline.model.status import Status
from fuseline.storage.recollection import Swap


@contextlib.contextmanager
def ack_before_commit() -> Iterator[None]:
    """The coordinator acknowledges reports first, and records them then."""

    def record(self: Recording, sources: Sequence[Source], limit: int) -> bool:
        items = []
        for source in sources:
            deliveries = source.intake.peek(limit)
            if not deliveries:
                continue
            source.intake.take(deliveries)
            source.intake.settler.open(deliveries).done()
            for delivery in (part for one in deliveries for part in bundles.reports_in(one)):
                with contextlib.suppress(InvalidMessageError):
                    items.append(Item(source.decode(delivery)))
        try:
            if items:
                self._pipeline.run(items, [None] * len(items))
        except StorageUnavailableError as error:
            self._on_storage_lost(error)
        return bool(items)

    with mock.patch.object(Recording, "record", record):
        yield


@contextlib.contextmanager
def lost_commit_forgotten() -> Iterator[None]:
    """Reports whose commit nobody knows of are acknowledged."""

    def keep(self: Recording, batch: Any, error: StorageUnavailableError) -> None:
        for ticket in batch.tickets:
            if ticket is not None:
                ticket.done()
        self._on_storage_lost(error)

    with mock.patch.object(Recording, "_keep", keep):
        yield


@contextlib.contextmanager
def no_fencing() -> Iterator[None]:
    """A report counts for whatever attempt its step is at, whoever holds it."""
    real = machine.decide

    def decide(plan: Any, snapshot: Any, event: Any, now: float) -> Any:
        row = snapshot.steps.get(getattr(event, "step", None))
        if isinstance(event, StepReported) and row is not None and not row.status.is_terminal:
            event = dataclasses.replace(event, attempt=row.attempt, holder=row.holder or event.holder)
        return real(plan, snapshot, event, now)

    with mock.patch.object(deciding, "decide", decide):
        yield


@contextlib.contextmanager
def join_counted_twice() -> Iterator[None]:
    """An edge that arrives at a join counts as two."""
    real = turn._requirements

    def requirements(row: Any, edge: Any, state: EdgeState) -> list[EdgeState]:
        found = real(row, edge, state)
        return found * 2 if row.unresolved > len(found) else found

    with mock.patch.object(turn, "_requirements", requirements):
        yield


@contextlib.contextmanager
def no_dead_path_elimination() -> Iterator[None]:
    """A step that is skipped because its branch was not taken says so to nobody."""
    real = Turn._decide_fate

    def decide_fate(self: Turn, target: StepPlan, decided: Fate, failed_source: str | None) -> None:
        edges = len(self._edges)
        real(self, target, decided, failed_source)
        if decided is Fate.SKIPPED:
            del self._edges[edges:]

    with mock.patch.object(Turn, "_decide_fate", decide_fate):
        yield


@contextlib.contextmanager
def lease_never_expired() -> Iterator[None]:
    """A lease that nobody carries on is carried on."""

    def due_running(at: Turn, row: StepRow, _event: StepDuePassed) -> None:
        at.change_step(row).due_at = at.now + at.plan.rules.lease_seconds

    with mock.patch.dict(machine._RULES, {(Status.RUNNING, StepDuePassed): due_running}):
        yield


@contextlib.contextmanager
def republished_dead_letter() -> Iterator[None]:
    """The retry of an expired attempt is the dead letter again, headers and all, by way of a queue that delays it."""
    deaths: dict[tuple[str, str], dict[str, Any]] = {}
    real_assign, real_base = Outbox.assign, Declared.declare_base

    def read_dead_letter(delivery: Delivery) -> Occurrence:
        what = decoding.read_dead_letter(delivery)
        step = getattr(what.event, "step", "")
        deaths[what.instance_id, step] = dict(delivery.properties.headers or {})
        return what

    def assign(
        self: Outbox, outcome: Outcome, assignment: StepAssignment, on_done: Callable[[], None]
    ) -> None:
        headers = deaths.get((assignment.instance_id, assignment.step_name))
        if headers is None or assignment.attempt == 1:
            real_assign(self, outcome, assignment, on_done)
            return
        key = assignment.workflow_id, assignment.workflow_version
        self._link.publish(
            "",
            f"{self._topology.steps_queue(*key)}.delayed",
            codec.encode(assignment),
            codec.properties(
                codec.ASSIGNMENT,
                message_id=f"{assignment.instance_id}/{assignment.step_name}/{assignment.attempt}",
                timestamp=assignment.assigned_at,
                expiration_seconds=0.1,
                headers=headers,
            ),
            on_done=lambda _error: on_done(),
            deadline_seconds=20.0,
        )

    def declare_base(self: Declared, keys: Any, then: Any) -> None:
        for key in sorted(keys):
            self._link.declare([_delayed(self, key)], lambda _error: None, deadline_seconds=30.0)
        real_base(self, keys, then)

    def declare_again(self: Declared, key: Any, then: Any) -> None:
        self._link.declare([_delayed(self, key)], lambda _error: None, deadline_seconds=30.0)
        real_again(self, key, then)

    real_again = Declared.again
    with (
        mock.patch.object(daemon, "read_dead_letter", read_dead_letter),
        mock.patch.object(Outbox, "assign", assign),
        mock.patch.object(Declared, "declare_base", declare_base),
        mock.patch.object(Declared, "again", declare_again),
    ):
        yield


def _delayed(declared: Declared, key: tuple[str, str]) -> Queue:
    topology = declared._topology
    return Queue(
        f"{topology.steps_queue(*key)}.delayed",
        {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": topology.steps_exchange,
            "x-dead-letter-routing-key": topology.steps_key(*key),
        },
    )


@contextlib.contextmanager
def no_outbox_on_redelivery() -> Iterator[None]:
    """A report that comes again is a duplicate and no more: what it had made ready is not offered again."""
    with mock.patch.object(machine, "_offer_again_after", return_value=None):
        yield


@contextlib.contextmanager
def ack_before_confirm() -> Iterator[None]:
    """The coordinator does not wait until RabbitMQ has what it publishes."""
    real = Pipeline.assign

    def assign(self: Pipeline, outcome: Outcome, assignment: StepAssignment, _ticket: Any) -> None:
        real(self, outcome, assignment, None)

    with mock.patch.object(Pipeline, "assign", assign):
        yield


@contextlib.contextmanager
def stale_tags() -> Iterator[None]:
    """A delivery of an earlier channel is acknowledged on the present one."""

    def ack(_self: Link, delivery: Delivery, *, multiple: bool = False) -> None:
        if delivery.line is not None and delivery.line._channel is not None:
            delivery.line._channel.basic_ack(delivery.tag, multiple)

    with mock.patch.object(Link, "ack", ack), mock.patch.object(Delivery, "is_stale", False):
        yield


@contextlib.contextmanager
def unfenced_fusion() -> Iterator[None]:
    """A report of a step that its worker went on with counts like any other."""
    real = machine.decide

    def decide(plan: Any, snapshot: Any, event: Any, now: float) -> Any:
        if isinstance(event, StepReported) and event.continued_from is not None:
            event = dataclasses.replace(event, continued_from=None)
        return real(plan, snapshot, event, now)

    with mock.patch.object(deciding, "decide", decide):
        yield


@contextlib.contextmanager
def memory_believed() -> Iterator[None]:
    """What a coordinator remembers of a run is written over whatever others have made of it."""
    with mock.patch.object(Swap, "holds", return_value=True):
        yield


PLANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "ack-before-commit": ack_before_commit,
    "lost-commit-forgotten": lost_commit_forgotten,
    "no-fencing": no_fencing,
    "join-counted-twice": join_counted_twice,
    "no-dead-path-elimination": no_dead_path_elimination,
    "lease-never-expired": lease_never_expired,
    "republished-dead-letter": republished_dead_letter,
    "no-outbox-on-redelivery": no_outbox_on_redelivery,
    "ack-before-confirm": ack_before_confirm,
    "stale-tags": stale_tags,
    "unfenced-fusion": unfenced_fusion,
    "memory-believed": memory_believed,
}
"""By the name that `--plant` takes."""

"""The attempts that a worker holds (P5): each by an unacknowledged delivery, or by a lease that its heartbeats carry."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from fuseline.amqp.codec import traceparent_of
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.wire import Claim, ControlNotice
from fuseline.model.messages import StepAssignment
from fuseline.worker.executors.base import Running
from fuseline.worker.reports import Sealed

Key: TypeAlias = tuple[str, str, int]
"""(instance_id, step name, attempt)."""


class Phase(Enum):
    """How far an attempt has come here."""

    CHECKING = auto()  # delivered again: the coordinator is asked whether it is still to be executed
    WAITING = auto()  # for a place to run in
    CLAIMING = auto()  # has a place, and starts when its claim is confirmed
    RUNNING = auto()
    REPORTING = auto()  # over; its report is on the way


@dataclass(slots=True, eq=False)
class Held:
    """One attempt. `delivery` may be stale: then the message went back to its queue, and may come here again.

    `received_at` is monotonic. `is_settled`: the delivery is acked or nacked. `must_claim`: the coordinator has to know
    before it starts, because the assignment may expire while it is held (its step has an ExpiryPolicy), or because it
    may have taken a worker down already.

    Of step fusion: `hops` is how many steps this worker executed before this one without giving others their turn,
    `continued_from` the attempt that it went on from (then `delivery` is that of the first, and settled), `following` what
    it goes on with when the report is confirmed. A lease `is_brief` until the attempt has run for as long as it takes
    others to claim theirs: it does not count as long as the next step may be over in a moment.
    """

    assignment: StepAssignment
    delivery: Delivery
    received_at: float
    phase: Phase
    must_claim: bool = False
    hops: int = 0
    continued_from: tuple[str, int] | None = None
    following: StepAssignment | None = None
    is_brief: bool = False
    is_claiming: bool = False
    is_leased: bool = False
    is_settled: bool = False
    is_gone: bool = False
    started_at: float | None = None
    running: Running | None = None
    timer: asyncio.TimerHandle | None = None
    timed_out: Callable[[], Sealed] | None = None
    sealed: Sealed | None = None
    key: Key = field(init=False)
    """The fencing key."""

    def __post_init__(self) -> None:
        one = self.assignment
        self.key = one.instance_id, one.step_name, one.attempt

    @property
    def traceparent(self) -> str | None:
        """The trace context that its report carries on."""
        return traceparent_of(self.delivery.properties)

    def claim(self, worker_id: str, *, released: bool = False) -> Claim:
        """The claim of it, or what gives it back."""
        one = self.assignment
        return Claim(
            workflow_id=one.workflow_id,
            instance_id=one.instance_id,
            step_name=one.step_name,
            attempt=one.attempt,
            worker_id=worker_id,
            released=released,
        )

    def going_on_with(self, following: StepAssignment) -> Held:
        """The next step, which the report of this one takes by a lease."""
        return Held(
            following,
            self.delivery,
            self.received_at,
            Phase.WAITING,
            hops=self.hops + 1,
            continued_from=self.key[1:],
            is_leased=True,
            is_settled=True,
            is_brief=True,
        )

    def is_meant(self, notice: ControlNotice) -> bool:
        """Whether a stop notice is about this attempt.

        One of a single attempt takes away what is held by a lease or a claim. An unacknowledged delivery is nobody else's.
        One about what was gone on with says from where: the same attempt may have come from its queue by now.
        """
        if notice.instance_id != self.assignment.instance_id:
            return False
        if notice.attempts is None:
            is_of_then = self.assignment.replays <= notice.replays
            return is_of_then and self.assignment.step_name not in notice.spare
        if (self.assignment.step_name, self.assignment.attempt) not in notice.attempts:
            return False
        if notice.continued_from is not None:
            return self.continued_from == notice.continued_from
        return self.is_leased or self.is_claiming


class Holdings:
    """All that a worker holds, oldest first, and the keys of what it has finished lately.

    A finished attempt whose acknowledgement was lost with its connection is delivered again, and only its key tells
    that there is nothing left to do. `remembered` keys are kept: as many as could be unacknowledged, several times over.
    """

    def __init__(self, remembered: int) -> None:
        self._held: dict[Key, Held] = {}
        self._finished: OrderedDict[Key, int] = OrderedDict()  # and after how many replays
        self._remembered = remembered
        self._leased = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def get(self, key: Key) -> Held | None:
        """What is held under this key."""
        return self._held.get(key)

    def add(self, held: Held) -> None:
        """Hold one more."""
        self._held[held.key] = held

    def is_finished(self, assignment: StepAssignment) -> bool:
        """Whether it was finished here lately.

        What was given up before a replay of its run, and was never queued until then, comes with the same attempt.
        """
        key = assignment.instance_id, assignment.step_name, assignment.attempt
        return self._finished.get(key, -1) >= assignment.replays

    def finish(self, held: Held) -> None:
        """It is over and everybody knows; the key is remembered.

        Not that of a step that was gone on with: it came by no delivery, and comes by its first if it did not count.
        """
        self.forget(held)
        if held.continued_from is not None:
            return
        self._finished[held.key] = held.assignment.replays
        if len(self._finished) > self._remembered:
            self._finished.popitem(last=False)

    def forget(self, held: Held) -> None:
        """It is not held any more, and may come again."""
        held.is_gone = True
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if self._held.pop(held.key, None) is not None and held.is_leased and not held.is_brief:
            self._leased -= 1

    def lease(self, held: Held) -> None:
        """It is held by a lease from now on, and counts."""
        if held.is_gone or (held.is_leased and not held.is_brief):
            return
        held.is_leased, held.is_brief = True, False
        self._leased += 1

    @property
    def leased(self) -> int:
        """How many are held by a lease, brief ones aside."""
        return self._leased

    def leases(self) -> list[Key]:
        """What the heartbeats carry: leases, and claims that may have arrived although no confirm has."""
        return [held.key for held in self._held.values() if held.is_leased or held.is_claiming]

    def unclaimed(self) -> Iterator[Held]:
        """Running attempts that are held by their delivery alone, or by a brief lease, oldest first."""
        for held in self._held.values():
            if held.phase is Phase.RUNNING and not held.is_claiming and (held.is_brief or not held.is_leased):
                yield held

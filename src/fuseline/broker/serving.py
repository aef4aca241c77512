"""Steps handed out and reports taken, for many callers in one transaction. The broker's lock is held all the while."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pydantic_core import from_json

from fuseline.broker.grouping import Call
from fuseline.broker.lane import Told
from fuseline.broker.plain import detached
from fuseline.broker.ready import Fence, ReadyQueue, fence
from fuseline.broker.reported import Reported, as_event, attempt_of
from fuseline.broker.roster import Roster
from fuseline.clock import Clock
from fuseline.engine.effects import Verdict
from fuseline.engine.events import StepClaimed
from fuseline.errors import (
    CallerError,
    FuselineError,
    MessageTooLargeError,
    RetryableError,
    StaleReportError,
    UnknownStepError,
)
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model.messages import StepAssignment, StepReport

log = logging.getLogger(__name__)

RUNS_AT_ONCE: Final = 200
"""Runs that one call begins in one transaction at most (P6)."""

MAX_WAIT_SECONDS: Final = 1.0
"""What waits for longer goes before what a worker could go on with: an eighth of its places are for that."""

CarryOut = Callable[[Iterable[Outcome]], None]


class Serving:
    """Used by one thread at a time, as the ledger is. `carry_out` gets the outcomes of what was committed."""

    def __init__(
        self, ledger: Ledger, clock: Clock, ready: ReadyQueue, roster: Roster, carry_out: CarryOut
    ) -> None:
        self.ledger = ledger
        self.ready = ready
        self.roster = roster
        self.reported = Reported()
        self._clock = clock
        self._carry_out = carry_out

    def serve(self, calls: Sequence[Call]) -> None:
        """Answer these calls with one commit. What one of them is wrong about harms no other."""
        asked: list[tuple[Call, Sequence[Dispatch | Occurrence]]] = []
        for call in calls:
            try:
                asked.append((call, call.prepare()))
            except FuselineError as error:
                call.fail(error)
        if not asked:
            return
        try:
            self._commit(asked)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            if len(asked) == 1 or isinstance(error, RetryableError):
                for call, _ in asked:
                    call.fail(error)
            else:
                for call, _ in asked:  # one of them asks for what cannot be stored
                    self.serve([call])

    def _commit(self, asked: Sequence[tuple[Call, Sequence[Dispatch | Occurrence]]]) -> None:
        handing = _Handing(
            self.ready, self.roster, [(call, len(mine)) for call, mine in asked], self._clock.now()
        )
        items = [item for _, mine in asked for item in mine]
        outcomes: list[Outcome] = []
        if items or handing.has_any:
            try:
                outcomes = self.ledger.apply(items, handing.claim)
            except BaseException:
                handing.undo()
                raise
        now = self._clock.now()
        claimed = outcomes[len(items) :]
        self._carry_out(handing.without_taken(outcomes[: len(items)]))
        for call, assignment, hold in handing.held(claimed):
            self.roster.handed_out(call.worker_id, hold)
            payload = detached(assignment.payload) if call.is_detached else assignment.payload
            call.handed.append(_handed(assignment, payload, now, hold))
        done = 0
        for call, mine in asked:
            call.succeed(outcomes[done : done + len(mine)])
            done += len(mine)


def _handed(one: StepAssignment, payload: dict[str, Any], now: float, hold_seconds: float) -> StepAssignment:
    return StepAssignment.of_checked(
        {
            **one.__dict__,
            "payload": payload,
            "assigned_at": now,
            "expires_at": now + hold_seconds,
        }
    )


class _Handing:
    """Which steps go to which of the calls: those that wait, and those that become ready by what is decided just now."""

    def __init__(
        self, ready: ReadyQueue, roster: Roster, calls: Sequence[tuple[Call, int]], now: float
    ) -> None:
        """`calls`: each with how many outcomes are its own."""
        self._ready = ready
        self._roster = roster
        self._now = now
        self._calls = calls
        self._workflows = {call.worker_id: roster.seen(call.worker_id) for call, _ in calls if call.wanted}
        self._taken: list[tuple[Call, StepAssignment, float]] = []
        self._keys: set[Fence] = set()

    @property
    def has_any(self) -> bool:
        """Whether something waits for one of them."""
        return any(self._ready.has(workflows) for workflows in self._workflows.values())

    def claim(self, outcomes: list[Outcome]) -> list[Occurrence]:
        """Take what there is: each is to be claimed for its worker."""
        if not self._workflows:
            return []
        fresh: dict[Call, ReadyQueue] = {}
        done = 0
        for call, count in self._calls:
            fresh[call] = queue = ReadyQueue()
            for outcome in outcomes[done : done + count]:
                for one in outcome.assignments:
                    if fence(one) not in self._ready:
                        queue.put(one)
            done += count
        for call, own in fresh.items():
            if call.wanted:
                self._choose(call, [own, *(other for other in fresh.values() if other is not own)])
        return [self._claim(*taken) for taken in self._taken]

    def _choose(self, call: Call, fresh: Sequence[ReadyQueue]) -> None:
        """Its worker goes on with the runs that it reported on, so that what was begun ends; what has waited for long has a
        part of its places all the same, or a stream of work that never ends would leave it there.
        """
        workflows = self._workflows[call.worker_id]
        call.taken, wanted = 0, call.wanted
        late = self._ready.waits_since(workflows)
        overdue = late is not None and self._now - late > MAX_WAIT_SECONDS
        wanted -= self._take(call, workflows, self._ready, math.ceil(wanted / 8) if overdue else 0)
        for queue in (fresh[0], self._ready, *fresh[1:]):
            wanted -= self._take(call, workflows, queue, wanted)

    def _take(self, call: Call, workflows: Sequence[tuple[str, str]], queue: ReadyQueue, wanted: int) -> int:
        taken = 0
        while taken < wanted and (one := queue.take(workflows)) is not None:
            if fence(one) in self._keys:  # offered twice
                continue
            taken += 1
            hold = one.timeout_seconds or self._roster.lease_seconds
            self._taken.append((call, one, hold))
            self._keys.add(fence(one))
        call.taken += taken
        return taken

    def _claim(self, call: Call, one: StepAssignment, hold: float) -> Occurrence:
        lease = self._roster.lease_for(call.worker_id, hold)
        return Occurrence(one.instance_id, StepClaimed(one.step_name, one.attempt, call.worker_id, lease))

    def undo(self) -> None:
        """Nothing is known to be committed. If it was after all, its holder must get it the next time (P1), and a claim of
        what was not is refused then.
        """
        for _, assignment, _ in reversed(self._taken):
            self._ready.put_back(assignment)

    def without_taken(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Outcomes without the assignments that have a worker already."""
        if self._keys:
            for outcome in outcomes:
                outcome.assignments = [one for one in outcome.assignments if fence(one) not in self._keys]
        return outcomes

    def held(self, claimed: Sequence[Outcome]) -> Iterable[tuple[Call, StepAssignment, float]]:
        """What is held now; not what was cancelled, or whose attempt is over, since it was queued."""
        for (call, assignment, hold), outcome in zip(self._taken, claimed, strict=True):
            if outcome.error is not None:
                log.error("a step of run %s cannot be handed out: %s", outcome.instance_id, outcome.error)
            elif outcome.verdict is Verdict.ACCEPTED:
                yield call, assignment, hold


class Exchange(Call):
    """Reports of one worker, and the steps that it wants. Each report has its own `refusals` entry."""

    def __init__(
        self,
        serving: Serving,
        worker_id: str,
        reports: Sequence[tuple[StepReport, Occurrence]],
        wanted: int,
        *,
        is_detached: bool = True,
    ) -> None:
        super().__init__()
        self._serving = serving
        self._reports = reports
        self.worker_id = worker_id
        self.wanted = wanted
        self.is_detached = is_detached
        self.refusals: list[CallerError | None] = []

    def prepare(self) -> list[Occurrence]:
        self._serving.roster.seen(self.worker_id)
        ready = self._serving.ready
        self.refusals = [
            self._not_handed_out(report) if attempt_of(report) in ready else None
            for report, _ in self._reports
        ]
        return [
            item for (_, item), refusal in zip(self._reports, self.refusals, strict=True) if refusal is None
        ]

    def _not_handed_out(self, report: StepReport) -> CallerError:
        return StaleReportError(
            f"attempt {report.attempt} of step {report.step_name!r} was not handed to worker {self.worker_id!r}"
        )

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        following = iter(outcomes)
        for number, (report, _) in enumerate(self._reports):
            if self.refusals[number] is None:
                self.refusals[number] = self._refusal(report, next(following))

    def _refusal(self, report: StepReport, outcome: Outcome) -> CallerError | None:
        if outcome.error is not None:
            return outcome.error
        if outcome.verdict is Verdict.UNKNOWN and self._is_unknown(outcome, report):
            return UnknownStepError(f"workflow {outcome.workflow_id!r} has no step {report.step_name!r}")
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.STALE):
            if self._serving.reported.knows(self.worker_id, report):
                return None
            return StaleReportError(outcome.reason)
        self._serving.reported.add(self.worker_id, report)
        return None

    def _is_unknown(self, outcome: Outcome, report: StepReport) -> bool:
        plan = self._serving.ledger.plan(outcome.workflow_id, outcome.version)
        return plan.step(report.step_name) is None


class Begin(Call):
    """Runs to begin. `register` makes their workflow known where it is not."""

    def __init__(self, items: Sequence[Dispatch], register: Callable[[], None]) -> None:
        super().__init__()
        self._items = items
        self._register = register

    def prepare(self) -> Sequence[Dispatch]:
        self._register()
        return self._items

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error


def all_told(
    worker_id: str, reports: Sequence[Told], max_bytes: int
) -> tuple[list[tuple[StepReport, Occurrence]], dict[int, CallerError]]:
    """Reports of the lane with their events, and those that are wrong in themselves, by place."""
    items: list[tuple[StepReport, Occurrence]] = []
    refused: dict[int, CallerError] = {}
    for place, one in enumerate(reports):
        try:
            items.append((one.report, _told(worker_id, one, max_bytes)))
        except CallerError as error:
            refused[place] = error
    return items, refused


def _told(worker_id: str, one: Told, max_bytes: int) -> Occurrence:
    if len(one.body) > max_bytes:
        raise MessageTooLargeError(
            f"the report of step {one.report.step_name!r} has {len(one.body)} bytes, over {max_bytes}"
        )
    result = None if one.report.result is None else from_json(one.body, cache_strings="keys")["result"]
    event = as_event(worker_id, one.report, result)
    return Occurrence(one.report.instance_id, event, one.report.workflow_id)

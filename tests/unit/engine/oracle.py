"""The graph's meaning once more, by brute force: the whole graph is looked at again after each fact.

Written from the text (docs/concepts.md, ADR 0002) and sharing no code with the engine, so that a mistake has to be made
twice to stay unseen. It is slow and knows no rows, counters or loading; it knows what state each step must be in.
"""

from __future__ import annotations

import copy
from collections import Counter
from enum import Enum
from typing import Any

from fuseline.model import Cause, FailureDecision, RunStatus, Status, StepSchema, Trigger, WorkflowSchema

CLEANUP = (Trigger.ALL_DONE, Trigger.ONE_FAILED)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED)


class Edge(Enum):
    OPEN = "its source has not ended"
    LIVE = "its source took it"
    DEAD = "its source took another one, or was never reached"
    FAILED = "its source failed for good or was cancelled"


class Oracle:
    """What is known of one run, told fact by fact. `state` holds each step's, `verdict` the run's."""

    def __init__(self, schema: WorkflowSchema, max_losses: int, now: float, grace_seconds: float) -> None:
        self.schema = schema
        self.max_losses = max_losses
        self.grace_seconds = grace_seconds
        self.now = now
        self.state = dict.fromkeys(schema.steps, Status.PENDING)
        self.verdict = RunStatus.RUNNING
        self.is_failing = False
        self.begun: set[str] = set()
        self.took: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.attempt: Counter[str] = Counter()
        self.queued_at: dict[str, float] = {}
        self.started_at: dict[str, float] = {}
        self._settle()

    # ---- facts

    def claimed(self, step: str) -> None:
        self.state[step] = Status.RUNNING
        self.started_at[step] = self.now

    def succeeded(self, step: str, action: str | None, result: Any) -> None:
        """The action is the explicit one, else the result where that is a string that names one, else `default`."""
        if action is None:
            named = isinstance(result, str) and result in self.schema.steps[step].successors
            action = result if named else "default"
        self._end(step, Status.SUCCEEDED, action)

    def skipped(self, step: str, action: str | None = None) -> None:
        """By its own condition or policy: its successors go on."""
        self._end(step, Status.SKIPPED, "default" if action is None else action)

    def stopped(self, step: str) -> None:
        """Its worker says that it was cancelled; outside a failing run nobody asked for that."""
        if self.is_failing:
            self._end(step, Status.CANCELLED)
        else:
            self.failed(step)

    def failed(
        self,
        step: str,
        cause: Cause = Cause.ERROR,
        decision: FailureDecision | None = None,
        delay_seconds: float = 0.0,
    ) -> None:
        self.failures[step] += 1
        may_retry = not self.is_failing or self.is_cleanup(step)
        if decision is FailureDecision.SKIP:
            self.skipped(step)
        elif not may_retry or cause is Cause.POISON or decision is FailureDecision.FAIL:
            self._end(step, Status.FAILED)
        elif decision is FailureDecision.RETRY:
            self._again(step, delay_seconds)
        elif cause is not Cause.INVALID and self.failures[step] < self._max_attempts(step):
            self._again(step, self._config(step, "retry").get("wait", 0.0))
        else:
            self._end(step, Status.FAILED)

    def lost(self, step: str) -> None:
        """Whoever held it is gone."""
        self.losses[step] += 1
        if self.is_failing and not self.is_cleanup(step):
            self._end(step, Status.CANCELLED)
        elif self.losses[step] >= self.max_losses:
            self.failed(step, Cause.POISON)
        else:
            self._again(step)

    def released(self, step: str) -> None:
        """Its holder gave it back."""
        if self.is_failing and not self.is_cleanup(step):
            self._end(step, Status.CANCELLED)
        else:
            self._again(step)

    def vanished(self, step: str) -> None:
        """Its message is gone, and who may have taken it is silent; the first time, nobody is to blame."""
        self.losses[step] += 1
        if self.losses[step] >= max(2, self.max_losses):
            self.failed(step, Cause.POISON)

    def due(self, step: str, renewed_until: float | None) -> None:
        """Its deadline has passed."""
        if self.state[step] is Status.PENDING:
            self._queue(step)
        elif self.state[step] is Status.QUEUED:
            expiry = self._config(step, "expiry").get("seconds")
            if expiry is not None and self.now >= self.queued_at[step] + expiry:
                self.failed(step, Cause.EXPIRED)
        else:
            timeout = self._config(step, "timeout").get("seconds")
            hard = None if timeout is None else self.started_at[step] + timeout + self.grace_seconds
            if hard is not None and self.now >= hard:
                self.failed(step, Cause.TIMEOUT)
            elif renewed_until is None or renewed_until <= self.now:
                self.lost(step)

    def ended(self, verdict: RunStatus) -> None:
        """Somebody, or its deadline, ended the run."""
        self.verdict = verdict
        self.state = {
            name: state if state in ENDED else Status.CANCELLED for name, state in self.state.items()
        }

    def fails_without(self, step: str) -> bool:
        """Whether the ended run would have failed if this step had not: another one's failure is not tolerated."""
        probe = copy.deepcopy(self)
        probe.is_failing = False
        probe._undo_with_what_followed({step})
        return bool(probe._untolerated())

    def replayed(self, step: str, stays_failing: bool) -> set[str]:
        """An operator sets the ended run going again at a step; returns the failed steps that are tried again with it.

        As if the step had failed into a retry: what came of its failure has not happened. `stays_failing`: it is clean-up
        after another step's failure, and everything but clean-up stays as it is.
        """
        self.verdict = RunStatus.RUNNING
        self.is_failing = stays_failing
        undone: set[str] = set()
        failed = {name for name, state in self.state.items() if state is Status.FAILED}
        doomed = {step}
        while doomed:
            undone |= self._undo_with_what_followed(doomed)
            doomed = set() if stays_failing else self._untolerated()
        self._settle()
        return undone & failed

    def _undo_with_what_followed(self, steps: set[str]) -> set[str]:
        undone = set(steps)
        for name in steps:
            self._undo(name)
        while wrong := [name for name in self.schema.steps if self._is_unjustified(name)]:
            undone.update(wrong)
            for name in wrong:
                self._undo(name)
            self._skip_what_nothing_leads_to()
        return undone

    def _untolerated(self) -> set[str]:
        return {
            name
            for name, state in self.state.items()
            if state is Status.FAILED and not self.is_tolerated(name)
        }

    def _skip_what_nothing_leads_to(self) -> None:
        """Cancelled with the run before; what other steps can count on, now that it was not."""
        while found := [
            name
            for name, step in self.schema.steps.items()
            if self.state[name] is Status.PENDING and self.fate(step) is Status.SKIPPED
        ]:
            self.state.update(dict.fromkeys(found, Status.SKIPPED))

    def _undo(self, name: str) -> None:
        self.state[name] = Status.PENDING
        self.begun.discard(name)
        self.took.pop(name, None)

    def _is_unjustified(self, name: str) -> bool:
        state = self.state[name]
        if self.is_failing and not self.is_cleanup(name):
            return False
        if state is Status.PENDING:
            return False
        if state is Status.CANCELLED:
            return True
        was_unreached = state is Status.SKIPPED and name not in self.took
        return self.fate(self.schema.steps[name]) is not (Status.SKIPPED if was_unreached else Status.QUEUED)

    # ---- meaning

    def edge(self, source: str, target: str) -> Edge:
        state = self.state[source]
        if state in (Status.FAILED, Status.CANCELLED):
            return Edge.FAILED
        if state not in ENDED:
            return Edge.OPEN
        taken = self.schema.steps[source].successors.get(self.took.get(source, ""), [])
        return Edge.LIVE if target in taken else Edge.DEAD

    def requirements(self, step: StepSchema) -> list[Edge]:
        """One a predecessor, and one an OR group."""
        grouped = {member for members in step.or_groups.values() for member in members}
        alone = [self.edge(source, step.name) for source in step.predecessors if source not in grouped]
        return alone + [self.group(members, step.name) for members in step.or_groups.values()]

    def group(self, members: list[str], target: str) -> Edge:
        edges = [self.edge(source, target) for source in members]
        return next(e for e in (Edge.LIVE, Edge.OPEN, Edge.FAILED, Edge.DEAD) if e in edges)

    def fate(self, step: StepSchema) -> Status | None:
        """QUEUED: it starts; None: not to be told yet. The table of ADR 0002."""
        found = self.requirements(step)
        resolved = Edge.OPEN not in found
        if not found:
            return Status.QUEUED
        if all(edge is Edge.DEAD for edge in found):
            return Status.SKIPPED
        match step.trigger():
            case Trigger.ALL_SUCCESS if Edge.FAILED in found:
                return Status.CANCELLED
            case Trigger.ALL_SUCCESS | Trigger.ALL_DONE:
                return Status.QUEUED if resolved else None
            case Trigger.ONE_SUCCESS if Edge.LIVE in found:
                return Status.QUEUED
            case Trigger.ONE_SUCCESS:
                return Status.CANCELLED if resolved else None
            case Trigger.ONE_FAILED if Edge.FAILED in found:
                return Status.QUEUED
            case Trigger.ONE_FAILED:
                return Status.SKIPPED if resolved else None

    def is_tolerated(self, failed: str) -> bool:
        """It has successors, and every one of them can still be met without it."""
        targets = [step for step in self.schema.steps.values() if failed in step.predecessors]
        return bool(targets) and all(self._can_do_without(step, failed) for step in targets)

    def _can_do_without(self, step: StepSchema, failed: str) -> bool:
        if step.trigger() is Trigger.ONE_SUCCESS:
            return self.fate(step) is not Status.CANCELLED
        groups = [members for members in step.or_groups.values() if failed in members]
        return bool(groups) and all(self.group(members, step.name) is not Edge.FAILED for members in groups)

    # ---- what follows

    def _settle(self) -> None:
        while self._decide_steps() or self._begin_to_fail():
            pass
        if all(state in ENDED for state in self.state.values()):
            self.verdict = RunStatus.FAILED if self.is_failing else RunStatus.SUCCEEDED

    def _decide_steps(self) -> bool:
        found = False
        for name, step in self.schema.steps.items():
            if self.state[name] is Status.PENDING and name not in self.begun and (fate := self.fate(step)):
                found = True
                if fate is Status.QUEUED:
                    self._queue(name)
                else:
                    self.state[name] = fate
        return found

    def _begin_to_fail(self) -> bool:
        """What waits is cancelled, and only clean-up still starts."""
        if self.is_failing or not any(
            state is Status.CANCELLED or (state is Status.FAILED and not self.is_tolerated(name))
            for name, state in self.state.items()
        ):
            return False
        self.is_failing = True
        for name, state in self.state.items():
            if state in (Status.PENDING, Status.QUEUED) and not self.is_cleanup(name):
                self.state[name] = Status.CANCELLED
        return True

    def _end(self, step: str, state: Status, took: str | None = None) -> None:
        self.state[step] = state
        if took is not None:
            self.took[step] = took
        self._settle()

    def _queue(self, step: str) -> None:
        if step not in self.begun:
            self.attempt[step] += 1
            self.failures[step] = self.losses[step] = 0
            self.begun.add(step)
        self.state[step] = Status.QUEUED
        self.queued_at[step] = self.now

    def _again(self, step: str, delay_seconds: float = 0.0) -> None:
        self.attempt[step] += 1
        if delay_seconds:
            self.state[step] = Status.PENDING
        else:
            self._queue(step)

    def is_cleanup(self, step: str) -> bool:
        return self.schema.steps[step].trigger() in CLEANUP

    def _max_attempts(self, step: str) -> int:
        return int(self._config(step, "retry").get("max_retries", 1))

    def _config(self, step: str, policy: str) -> dict[str, Any]:
        return next((p.config for p in self.schema.steps[step].policies if p.name == policy), {})

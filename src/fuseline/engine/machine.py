"""The one scheduler: what an event means for a run, as a table of (step status, event) -> rule.

`decide` is pure. It reads a plan and a snapshot, and answers with the rows to save and the effects to carry out; a
snapshot that lacks a row makes it raise `NotLoaded`, nothing being changed. Every user of runs goes through it: the
in-process run, the memory broker and the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fuseline.engine import fusion
from fuseline.engine.effects import Decision, FinishRun, Verdict
from fuseline.engine.events import (
    CancelRequested,
    DeadLetterDiscarded,
    Event,
    HolderLost,
    RunDispatched,
    RunDuePassed,
    StepClaimed,
    StepDuePassed,
    StepExpired,
    StepOvertaken,
    StepPoisoned,
    StepReleased,
    StepReplayed,
    StepReported,
    StepVanished,
)
from fuseline.engine.plan import Plan, StepPlan
from fuseline.engine.readiness import EdgeState
from fuseline.engine.replay import discard, replay
from fuseline.engine.retry import MAX_WAIT_SECONDS
from fuseline.engine.state import RunRow, Snapshot, StepRow
from fuseline.engine.turn import Turn
from fuseline.model.messages import PROCESS_DIED, Cause, FailureDecision, StepError
from fuseline.model.schema import DEFAULT_ACTION
from fuseline.model.status import RunStatus, Status


def new_run(plan: Plan, instance_id: str, now: float) -> RunRow:
    """The header of a run that was just asked for; `decide` it with `RunDispatched`."""
    due_at = None if plan.run_timeout_seconds is None else now + plan.run_timeout_seconds
    return RunRow(
        instance_id, plan.workflow_id, plan.version, RunStatus.RUNNING, now, due_at=due_at, is_new=True
    )


def wanted(plan: Plan, event: Event) -> tuple[list[str], tuple[str, ...]]:
    """(steps, joins) whose rows `decide` will most likely read for `event`: worth loading beforehand."""
    name = getattr(event, "step", None)
    if name is None:
        return [], ()
    step = plan.step(name)
    if step is None or not isinstance(event, StepReported):
        return [name], ()
    steps = [name] if event.continued_from is None else [name, event.continued_from[0]]
    return steps, step.counted


def decide(plan: Plan, snapshot: Snapshot, event: Event, now: float) -> Decision:
    """What `event`, seen at `now`, means for the run.

    Raises `NotLoaded` when it needs rows that the snapshot lacks, `UnknownStepError` when a row's step is not in the
    plan.
    """
    turn = Turn(plan, snapshot, now)
    _OTHER_RULES.get(type(event), _step_event)(turn, event)
    return turn.done()


# ---- events about the run


def _dispatched(turn: Turn, _event: RunDispatched) -> None:
    begun = turn.steps(turn.plan.starts)
    # Asked of the rows, as a header stays new until the batch is saved that may hold it twice; and of the header, as a large
    # run that has ended loses its steps first when it is purged.
    if not begun and not turn.run.status.is_terminal:
        turn.note("workflow_started")
        for name in turn.plan.starts:
            turn.queue(name)
        return
    for row in begun:
        if row.status is Status.QUEUED and row.attempt == 1:
            turn.offer_again(row)
    turn.refuse(Verdict.DUPLICATE, "the run is known already")


def _cancel_requested(turn: Turn, _event: CancelRequested) -> None:
    if turn.run.status is RunStatus.CANCELLED:
        turn.refuse(Verdict.DUPLICATE, "the run is cancelled already")
        turn.stop()  # who recorded it may have died before anybody was told
        turn.decision.effects.append(FinishRun(turn.run.status))
    elif turn.run.status.is_terminal:
        turn.refuse(Verdict.STALE, f"the run has ended {turn.run.status}")
    else:
        turn.end_now(RunStatus.CANCELLED)


def _run_due(turn: Turn, _event: RunDuePassed) -> None:
    run = turn.run
    if run.status.is_terminal or run.due_at is None or turn.now < run.due_at:
        turn.refuse(Verdict.STALE, "the run's deadline has not passed")
    else:
        seconds = run.due_at - run.created_at
        message = f"the run did not end within {seconds:g} s"
        turn.end_now(RunStatus.FAILED, StepError(type="RunTimeout", message=message, cause=Cause.RUN_TIMEOUT))


# ---- events about a step


def _step_event(turn: Turn, event: Any) -> None:
    row = turn.step(event.step)
    if row is None:
        if isinstance(event, StepReported) and fusion.is_early(turn, event):
            turn.refuse(Verdict.EARLY, "how the step before it ended is not recorded yet")
        else:
            _refuse(turn, event, Verdict.UNKNOWN, f"step {event.step!r} was never queued in this run")
        return
    attempt = getattr(event, "attempt", row.attempt)
    if turn.run.status.is_terminal or row.status.is_terminal or attempt != row.attempt:
        _late(turn, row, event, attempt)
        return
    rule = _RULES.get((row.status, type(event)))
    if rule is None:
        _refuse(turn, event, Verdict.STALE, f"step {row.name!r} is {row.status}")
    else:
        rule(turn, row, event)


def _refuse(turn: Turn, event: Any, verdict: Verdict, reason: str) -> None:
    """Nothing changes. What a report takes that does not count is not its sender's either: he may be past it (P5)."""
    turn.refuse(verdict, reason)
    if isinstance(event, StepReported):
        fusion.stop_going_on(turn, event)


def _late(turn: Turn, row: StepRow, event: Any, attempt: int) -> None:
    """The attempt is over: nothing changes. An event that comes again brings along what may not have gone out then."""
    same = isinstance(event, StepReported) and attempt == row.attempt and event.status is row.status
    if same and (event.holder is None or row.holder is None or event.holder == row.holder):
        turn.refuse(Verdict.DUPLICATE, f"attempt {attempt} of step {row.name!r} is recorded already")
    else:
        state = (
            f"run {turn.run.status}"
            if turn.run.status.is_terminal
            else f"{row.status}, attempt {row.attempt}"
        )
        _refuse(turn, event, Verdict.STALE, f"attempt {attempt} of step {row.name!r} is over ({state})")
    if getattr(event, "redelivered", False):
        _offer_again_after(turn, row)


def _offer_again_after(turn: Turn, row: StepRow) -> None:
    """The recorder may have died between saving and publishing: offer again what this event had queued.

    The way leads along the edges out, through steps that were skipped, so it costs what the event itself cost.
    """
    if turn.run.status.is_terminal:
        turn.decision.effects.append(FinishRun(turn.run.status))
        return
    todo, seen = [row], {row.name}
    while todo:
        names = []
        for here in todo:
            if here.status is Status.QUEUED:
                turn.offer_again(here)
            elif here.status.is_terminal:
                names += [edge.target for edge in turn.plan_of(here.name).out if edge.target not in seen]
                seen.update(names)
        todo = [row for row in turn.steps(names) if row.status is Status.QUEUED or row.is_unreached]
    if turn.run.is_failing:
        turn.stop(turn.plan.cleanup)
        for cleanup in turn.steps(turn.plan.cleanup):
            if cleanup.status is Status.QUEUED:
                turn.offer_again(cleanup)


def _claim_queued(turn: Turn, row: StepRow, event: StepClaimed) -> None:
    row = turn.change_step(row)
    row.status, row.holder, row.started_at = Status.RUNNING, event.holder, turn.now
    lease = turn.plan.rules.lease_seconds if event.lease_seconds is None else event.lease_seconds
    row.due_at = turn.lease_due(row, turn.now + lease)
    turn.note("step_started", row, worker_id=event.holder)


def _claim_running(turn: Turn, row: StepRow, event: StepClaimed) -> None:
    if row.holder != event.holder:
        turn.refuse(Verdict.STALE, f"attempt {row.attempt} of step {row.name!r} is held by another worker")
        return
    lease = turn.plan.rules.lease_seconds if event.lease_seconds is None else event.lease_seconds
    turn.change_step(row).due_at = turn.lease_due(row, turn.now + lease)


def _reported(turn: Turn, row: StepRow, event: StepReported) -> None:
    if not fusion.is_of_holder(turn, row, event):
        reason = f"attempt {row.attempt} of step {row.name!r} is held by another worker"
        _refuse(turn, event, Verdict.STALE, reason)
        return
    row = turn.change_step(row)
    row.holder = event.holder or row.holder
    row.started_at = event.started_at or row.started_at
    if event.status is Status.SUCCEEDED:
        row.action = action_of(turn.plan_of(row.name), event.action, event.result)
        row.result, row.error = event.result, None
        turn.close(row, Status.SUCCEEDED)
        turn.note("step_finished", row, action=row.action)
        turn.follow(row.name, EdgeState.LIVE, row.action)
    elif event.status is Status.SKIPPED:
        _skip(turn, row, "its own condition", event.action)
    elif event.status is Status.CANCELLED and turn.run.is_failing:
        turn.cancel(row)
    else:
        error = event.error or StepError(type=event.status.value, message="the report gave no error")
        if error.type == PROCESS_DIED:
            error = _process_died(turn, row, error)
        _fail_attempt(turn, row, error, event)
    turn.settle()
    fusion.go_on(turn, row, event)


def _process_died(turn: Turn, row: StepRow, error: StepError) -> StepError:
    """The step took down the process that executed it (killed, out of memory): that counts as losing a holder does.

    Else its retries would take down one process after the other, and the machine's memory each time.
    """
    row.losses += 1
    if row.losses < turn.plan.rules.max_losses:
        return error
    message = (
        f"step {row.name!r} took down {row.losses} process(es) or worker(s); the last time {error.message}"
    )
    return StepError(type="StepPoisoned", message=message, cause=Cause.POISON)


def action_of(step: StepPlan, action: str | None, result: object) -> str:
    """What a finished step takes: the action that its report names, else its result if that names one, else the default."""
    if action is not None:
        return action
    return result if isinstance(result, str) and result in step.actions else DEFAULT_ACTION


def _skip(turn: Turn, row: StepRow, by: str, action: str | None = None) -> None:
    """Skipped by its own condition or policy: successors go on, without a value from here."""
    row.action = DEFAULT_ACTION if action is None else action
    turn.close(row, Status.SKIPPED)
    turn.note("step_skipped", row, by=by)
    turn.follow(row.name, EdgeState.LIVE, row.action)


def _fail_attempt(turn: Turn, row: StepRow, error: StepError, report: StepReported | None = None) -> None:
    """An attempt failed: again later, skip, or for good. A custom policy's decision goes before the schema's rule."""
    row = turn.change_step(row)
    row.failures += 1
    row.error = error
    decision = report.decision if report is not None else None
    step = turn.plan_of(row.name)
    may_retry = step.trigger.is_cleanup or not turn.run.is_failing
    if decision is not None and decision.decision is FailureDecision.SKIP:
        turn.note("step_failed", row, error=error.message, will_retry=False)
        _skip(turn, row, "its failure policy")
        return
    delay: float | None = None
    if not may_retry or error.cause is Cause.POISON:
        delay = None
    elif decision is not None:
        # Bounded as a retry policy's own waits are: a retry that is due in a billion years is a run that hangs (P1).
        wait = min(decision.delay_seconds, MAX_WAIT_SECONDS)
        delay = wait if decision.decision is FailureDecision.RETRY else None
    elif step.retry is not None and error.cause is not Cause.INVALID:
        identity = f"{turn.run.instance_id}/{row.name}/{row.attempt}"
        delay = step.retry.delay_after(row.failures, error.types or [error.type], identity)
    turn.note(
        "step_failed",
        row,
        error=error.message,
        type=error.type,
        cause=error.cause.value,
        will_retry=delay is not None,
    )
    if delay is None:
        turn.close(row, Status.FAILED)
        turn.bury(row, error)
        if not step.out:
            turn.doom(row, error)
        turn.follow(row.name, EdgeState.FAILED)
    else:
        _next_attempt(turn, row, delay)


def _next_attempt(turn: Turn, row: StepRow, delay_seconds: float = 0.0) -> None:
    row.attempt += 1
    if delay_seconds > 0:
        row.status, row.holder, row.due_at = Status.PENDING, None, turn.now + delay_seconds
    else:
        turn.requeue(row)


def _expired(turn: Turn, row: StepRow, _event: object = None) -> None:
    seconds = turn.plan_of(row.name).expiry_seconds
    waited = "its expiry" if seconds is None else f"{seconds:g} s"
    error = StepError(
        type="StepExpired",
        message=f"no worker took attempt {row.attempt} within {waited}",
        cause=Cause.EXPIRED,
        types=["StepExpired", "TimeoutError"],
    )
    _fail_attempt(turn, row, error)
    turn.settle()


def _poisoned(turn: Turn, row: StepRow, _event: object = None) -> None:
    error = StepError(
        type="StepPoisoned",
        message=f"every worker that took step {row.name!r} was lost or never reported, {max(row.losses, 1)} time(s) over",
        cause=Cause.POISON,
    )
    _fail_attempt(turn, row, error)
    turn.settle()


def _lost(turn: Turn, row: StepRow, event: HolderLost | StepDuePassed | StepOvertaken) -> None:
    """The lease ended, or the message is gone. The next attempt is queued, unless too many were lost before."""
    holder = getattr(event, "holder", None)
    if holder is not None and row.holder != holder:
        turn.refuse(Verdict.STALE, f"attempt {row.attempt} of step {row.name!r} is held by another worker")
        return
    row = turn.change_step(row)
    row.losses += 1
    if turn.run.is_failing and not turn.plan_of(row.name).trigger.is_cleanup:
        turn.cancel(row)
    elif row.losses >= turn.plan.rules.max_losses:
        _poisoned(turn, row)
        return
    else:
        _next_attempt(turn, row)
    turn.settle()


def _released(turn: Turn, row: StepRow, event: StepReleased) -> None:
    if event.holder is not None and row.holder != event.holder:
        turn.refuse(Verdict.STALE, f"attempt {row.attempt} of step {row.name!r} is held by another worker")
        return
    if turn.run.is_failing and not turn.plan_of(row.name).trigger.is_cleanup:
        turn.cancel(row)
    else:
        _next_attempt(turn, turn.change_step(row))
    turn.settle()


def _due_pending(turn: Turn, row: StepRow, _event: StepDuePassed) -> None:
    if _not_due(turn, row):
        return
    turn.requeue(row)


def _due_queued(turn: Turn, row: StepRow, _event: StepDuePassed) -> None:
    if _not_due(turn, row):
        return
    expiry = turn.plan_of(row.name).expiry_seconds
    if expiry is not None and row.queued_at is not None and turn.now >= row.queued_at + expiry:
        _expired(turn, row)
        return
    row = turn.change_step(row)
    row.due_at = turn.queue_due(row)
    turn.offer_again(row)


def _vanished(turn: Turn, row: StepRow, _event: StepVanished) -> None:
    """Offered again, but not for ever: a worker may take it each time and fail to say how it ended (P1)."""
    row = turn.change_step(row)
    row.losses += 1
    # At least once in any case: the first time it may have been a purge.
    if row.losses >= max(2, turn.plan.rules.max_losses):
        _poisoned(turn, row)
        return
    row.due_at = turn.queue_due(row)
    turn.offer_again(row)


def _due_running(turn: Turn, row: StepRow, event: StepDuePassed) -> None:
    if _not_due(turn, row):
        return
    hard = turn.hard_deadline(row)
    if hard is not None and turn.now >= hard:
        seconds = turn.plan_of(row.name).timeout_seconds
        error = StepError(
            type="StepTimeout",
            message=f"attempt {row.attempt} ran longer than {seconds:g} s, and its worker did not end it",
            cause=Cause.TIMEOUT,
            types=["StepTimeout", "TimeoutError"],
        )
        _fail_attempt(turn, row, error)
        turn.settle()
    elif event.renewed_until is not None and event.renewed_until > turn.now:
        turn.change_step(row).due_at = turn.lease_due(row, event.renewed_until)
    else:
        _lost(turn, row, event)


def _not_due(turn: Turn, row: StepRow) -> bool:
    if row.due_at is not None and turn.now >= row.due_at:
        return False
    turn.refuse(Verdict.STALE, f"step {row.name!r} is not due yet")
    return True


_Rule = Callable[[Turn, StepRow, Any], None]
_RULES: dict[tuple[Status, type], _Rule] = {
    (Status.QUEUED, StepClaimed): _claim_queued,
    (Status.QUEUED, StepReported): _reported,
    (Status.QUEUED, StepExpired): _expired,
    (Status.QUEUED, StepPoisoned): _poisoned,
    (Status.QUEUED, StepVanished): _vanished,
    (Status.QUEUED, StepOvertaken): _lost,
    (Status.QUEUED, StepDuePassed): _due_queued,
    (Status.RUNNING, StepClaimed): _claim_running,
    (Status.RUNNING, StepReported): _reported,
    (Status.RUNNING, StepReleased): _released,
    (Status.RUNNING, HolderLost): _lost,
    (Status.RUNNING, StepDuePassed): _due_running,
    (Status.PENDING, StepDuePassed): _due_pending,
}
_OTHER_RULES: dict[type, Callable[[Turn, Any], None]] = {
    RunDispatched: _dispatched,
    CancelRequested: _cancel_requested,
    RunDuePassed: _run_due,
    StepReplayed: replay,
    DeadLetterDiscarded: discard,
}

"""Invariants of what was recorded: over every row that was ever committed, and the rows at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.status import RunStatus, Status
from fuseline.testing.simulation.endings import endings
from fuseline.testing.simulation.semantics import READY
from tests.fault.checker.facts import Facts, run_row, step_row

_OPEN = ("PENDING", "QUEUED", "RUNNING")
_REPLAYED = (("FAILED", "RUNNING"), ("FAILED", "CANCELLED"))
"""How a replay changes a run: a cancellation that came along with it is in the same transaction."""


def acknowledged_runs_exist(facts: Facts) -> Iterator[str]:
    """P4: what was acknowledged is in the database; what was refused is not."""
    for run, asked in facts.asked.items():
        if asked.outcome == "acknowledged" and run not in facts.run_rows:
            yield f"run {run} was acknowledged, and is not in the database"
        elif asked.outcome in ("failed", "refused") and run in facts.run_rows:
            yield f"run {run} was refused, and is in the database"
    for run in facts.run_rows.keys() - facts.asked.keys():
        yield f"run {run} is in the database, and nobody has asked for it"


def terminal_states_stay(facts: Facts) -> Iterator[str]:
    """P3: a run or step that has ended changes no more, unless an operator replays its run, nor is any row taken away."""
    ended: dict[tuple[str, str, str | None], str] = {}
    for change in facts.changes:
        if change.op == "DELETE":
            yield f"{change.table} {change.run}/{change.name} was deleted"
        if change.table not in ("runs", "steps"):
            continue
        key = change.table, change.run, change.name
        status = change.body["status"]
        if (change.run, change.tx) in facts.replays:
            before = ended.pop(key, None)
            if change.table == "runs" and (before, status) not in _REPLAYED:
                yield f"run {change.run} is replayed, and goes from {before} to {status}"
        if key in ended:
            yield f"{change.run}/{change.name or ''} changes to {status} after it had ended {ended[key]}"
        is_reset = status == "CANCELLED" and change.body["finished_at"] is None
        if status not in _OPEN and not is_reset:
            ended[key] = status
    for run in facts.replayed_runs:
        if (asked := facts.asked.get(run)) is not None and not asked.replays:
            yield f"run {run} was set going again, and no operator has asked for it"


def failures_are_kept(facts: Facts) -> Iterator[str]:
    """P4: each step that failed for good is a dead letter, which is settled once; a replayed one has a next attempt.

    Unless the replay had it decided on anew, and it was not reached then.
    """
    kept = {(row["instance_id"], row["name"], row["attempt"]): row for row in facts.letters}
    for run, rows in facts.step_rows.items():
        for row in rows.values():
            if row.status is Status.FAILED and (run, row.name, row.attempt) not in kept:
                yield f"{run}/{row.name} failed for good at attempt {row.attempt}, and is no dead letter"
    for (run, name, attempt), letter in kept.items():
        found = facts.step_rows.get(run, {}).get(name)
        last = attempt if letter["next_attempt"] is None else letter["next_attempt"]
        is_behind = found is None or found.attempt < last
        if (
            found is not None
            and run in facts.replayed_runs
            and found.status in (Status.SKIPPED, Status.CANCELLED)
        ):
            is_behind = False
        if is_behind or (letter["state"] == "replayed") == (last == attempt):
            yield f"dead letter {run}/{name} attempt {attempt} is {letter['state']}, and the step is {found}"
    settled = set()
    for change in facts.changes:
        if change.table == "dead_letters":
            key = change.run, change.name, change.body["attempt"]
            if key in settled:
                yield f"dead letter {key} changes after it was settled"
            if change.body["state"] != "open":
                settled.add(key)


def one_outcome_per_attempt(facts: Facts) -> Iterator[str]:
    """P3: attempts rise one by one, each is queued once and closed once, and its outcome is that of its execution."""
    last: dict[tuple[str, str], StepRow] = {}
    for change in facts.changes:
        if change.table != "steps":
            continue
        new = step_row(change.body)
        old = last.get((change.run, new.name))
        where = f"{change.run}/{new.name}"
        if old is None:
            if new.attempt > 1 and not _failed_before_it_was_written(facts, change.run, new):
                yield f"{where} begins with attempt {new.attempt}"
        else:
            if not old.attempt <= new.attempt <= old.attempt + 1:
                yield f"{where}: attempt {new.attempt} follows attempt {old.attempt}"
            if old.attempt == new.attempt and old.status is Status.RUNNING and new.status is Status.QUEUED:
                yield f"{where}: attempt {new.attempt} is queued a second time"
            still_runs = old.attempt == new.attempt and old.status is new.status is Status.RUNNING
            if still_runs and old.holder != new.holder:
                yield f"{where}: attempt {new.attempt} goes from {old.holder} to {new.holder}"
        last[change.run, new.name] = new
    yield from _outcomes(facts)


def _failed_before_it_was_written(facts: Facts, run: str, row: StepRow) -> bool:
    """Whether its first attempt, gone on with by fusion, was recorded in one transaction with the step before, as failed."""
    if not facts.fusion_hops or (row.attempt, row.failures) != (2, 1):
        return False
    return any(
        (line["what"], line["run"], line["step"], line["attempt"]) == ("end", run, row.name, 1)
        and line["outcome"] == "failed"
        for line in facts.executions
    )


def _outcomes(facts: Facts) -> Iterator[str]:
    ended: defaultdict[tuple[str, str, int], dict[str, str]] = defaultdict(dict)
    for line in facts.executions:
        if line["what"] == "end":
            ended[line["run"], line["step"], line["attempt"]][line["nonce"]] = line["outcome"]
    for run, rows in facts.step_rows.items():
        for row in rows.values():
            outcomes = ended[run, row.name, row.attempt]
            where = f"{run}/{row.name} attempt {row.attempt}"
            if row.status is Status.SUCCEEDED:
                nonce = row.result.get("nonce") if isinstance(row.result, dict) else row.result
                if outcomes.get(str(nonce)) != "succeeded":
                    yield f"{where} is recorded with result {row.result}, which no execution of it had: {outcomes}"
            elif _is_scripted(row) and "failed" not in outcomes.values():
                yield f"{where} is recorded as failed, and no execution of it did: {outcomes}"


def _is_scripted(row: StepRow) -> bool:
    return row.status is Status.FAILED and row.error is not None and row.error.type == "Scripted"


def joins_fire_once(facts: Facts) -> Iterator[str]:
    """P3: the counter of a join that has fired changes no more, unless an operator replays its run."""
    fired = set()
    for change in facts.changes:
        if change.table == "joins":
            key = change.run, change.name
            if (change.run, change.tx) in facts.replays:
                fired.discard(key)
            if key in fired:
                yield f"the join of {change.run}/{change.name} changes after it has fired"
            if change.body["fired"]:
                fired.add(key)


def ready_steps_are_held(facts: Facts) -> Iterator[str]:
    """P1: after every commit, each step that is ready has a row, and each row that is open has its time."""
    runs: dict[str, RunRow] = {}
    steps: defaultdict[str, dict[str, StepRow]] = defaultdict(dict)
    by_run: defaultdict[str, list[int]] = defaultdict(list)
    for index, change in enumerate(facts.changes):
        by_run[change.run].append(index)
    for run, indexes in by_run.items():
        # Only one transaction at a time changes a run, so its changes are in their transactions' order.
        for _, group in groupby((facts.changes[index] for index in indexes), key=lambda change: change.tx):
            for change in group:
                if change.table == "runs":
                    runs[run] = run_row(change.body)
                elif change.table == "steps":
                    row = steps[run][change.body["name"]] = step_row(change.body)
                    if not row.status.is_terminal and row.due_at is None:
                        yield f"{run}/{row.name} is {row.status} without a timer"
            if run not in runs:
                yield f"{run} has steps before it has a row"
                break
            standing = {name: row for name, row in steps[run].items() if not row.is_reset}
            yield from _unheld(facts, runs[run], standing)


def _unheld(facts: Facts, run: RunRow, rows: dict[str, StepRow]) -> Iterator[str]:
    if run.status.is_terminal:
        return
    if not any(not row.status.is_terminal for row in rows.values()):
        yield f"run {run.instance_id} is open, and none of its steps is"
    graph = facts.graphs[run.workflow_id]
    for name in graph.steps.keys() - rows.keys():
        if run.error is not None and not graph.is_cleanup(name):
            continue
        if graph.fate(run, rows, name) == READY:
            yield f"{run.instance_id}/{name} is ready, and has no row"


def leases_end(facts: Facts) -> Iterator[str]:
    """P5: an attempt that runs has a holder and a time; at the end nobody holds anything."""
    for change in facts.changes:
        if change.table != "steps" or change.body["status"] != "RUNNING":
            continue
        if change.body["holder"] is None or change.body["due_at"] is None:
            yield f"{change.run}/{change.name} runs without a holder or a lease"
    for run, rows in facts.step_rows.items():
        for row in rows.values():
            if row.status is Status.RUNNING:
                yield f"{run}/{row.name} attempt {row.attempt} is still held by {row.holder}"
    for worker, leases in facts.leases.items():
        for lease in leases:
            yield f"worker {worker} still says that it holds {lease}"


def terminal_runs_own_nothing(facts: Facts) -> Iterator[str]:
    """P6: a run that has ended has no open step and no timer."""
    for run, row in facts.run_rows.items():
        if not row.status.is_terminal:
            continue
        if row.open_steps or row.due_at is not None:
            yield f"run {run} has ended with {row.open_steps} open steps and timer {row.due_at}"
        for step in facts.step_rows[run].values():
            if not step.status.is_terminal or step.due_at is not None:
                yield f"run {run} has ended, and {step.name} is {step.status} with timer {step.due_at}"


def endings_are_the_graphs(facts: Facts) -> Iterator[str]:
    """P1, P2, P3: each run ended as its graph, its script and what happened to its steps say it must."""
    for run, row in facts.run_rows.items():
        if not row.status.is_terminal:
            continue
        rows = facts.step_rows[run]
        for promise, what in endings(row, rows, facts.graphs[row.workflow_id]):
            yield f"{promise}: {what}"
        asked = facts.asked.get(run)
        if asked is None:
            continue
        if row.status is RunStatus.CANCELLED and not asked.cancels:
            yield f"run {run} is cancelled, and nobody has asked for it"
        scripts = asked.inputs.get("scripts", {})
        for step in rows.values():
            script = scripts.get(step.name, {})
            if step.status is Status.SUCCEEDED and script.get("state") == "FAILED":
                yield f"{run}/{step.name} succeeded, and was to fail"
            if (
                _is_scripted(step)
                and script.get("state") != "FAILED"
                and script.get("failures", 0) < step.attempt
            ):
                yield f"{run}/{step.name} failed at attempt {step.attempt}, and was not to: {script}"


def runs_end_in_time(facts: Facts) -> Iterator[str]:
    """P1: every run has ended within T of the last fault."""
    for run, row in facts.run_rows.items():
        if row.finished_at is None:
            yield f"run {run} has not ended {facts.within_seconds:g} s after the last fault: {row.status}"
        elif row.finished_at > facts.last_fault_at + facts.within_seconds:
            late = row.finished_at - facts.last_fault_at
            yield f"run {run} ended {late:.1f} s after the last fault, over {facts.within_seconds:g}"

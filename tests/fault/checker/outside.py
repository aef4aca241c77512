"""Invariants that hold between the database and the world around it: executions, messages, views, processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.status import Status
from tests.fault.checker.facts import Facts, Letter, Row


def steps_start_in_order(facts: Facts) -> Iterator[str]:
    """P2: an attempt is executed after it was queued and all it requires was recorded, with the recorded results.

    With step fusion, also at once after the only step that it requires, by whoever executed that, with that result.
    """
    closed: dict[tuple[str, str], float] = {}
    for change in facts.changes:
        if change.table == "steps" and change.body["status"] not in ("PENDING", "QUEUED", "RUNNING"):
            closed[change.run, str(change.name)] = change.at
    for line in facts.executions:
        run = facts.run_rows.get(line["run"])
        if line["what"] != "start" or run is None or facts.is_of_before(line):
            continue  # without a run, an assignment that was forged: nobody recorded it
        where = f"{line['run']}/{line['step']} attempt {line['attempt']}"
        if facts.queued.get((line["run"], line["step"], line["attempt"]), line["at"] + 1) > line["at"]:
            if facts.fusion_hops:
                yield from (f"{where} {what}" for what in _fused(facts, line))
                continue
            yield f"{where} was executed before it was queued"
        yield from (f"{where} {what}" for what in _inputs(facts, run, line, closed))


def _inputs(facts: Facts, run: RunRow, line: Row, closed: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """What is wrong with what an execution was given."""
    graph = facts.graphs[run.workflow_id]
    rows = facts.step_rows[line["run"]]
    recorded = {nonce: name for name, row in rows.items() if (nonce := _nonce(row)) is not None}
    step = graph.steps[line["step"]]
    for parameter, nonce in line["seen"].items():
        source = recorded.get(nonce)
        if source is None or source not in step.or_groups.get(parameter, [parameter]):
            yield f"saw a result of {parameter} that is not the recorded one"
    if not graph.is_plain(line["step"]):
        return
    for source in step.predecessors:
        row = rows.get(source)
        if row is None:
            continue  # cancelled before it was ever queued
        if closed.get((line["run"], source), line["at"] + 1) > line["at"]:
            yield f"was executed before {source} had ended"
        nonce = _nonce(row)
        if nonce is None or graph.edge(run, rows, source, line["step"]) != "live":
            continue
        if line["seen"].get(source) != nonce:
            yield f"did not see the result of {source}"


def is_fused(facts: Facts, line: Row) -> bool:
    """Whether this start was brought about by the execution before it in a chain, and by no message."""
    if line["what"] != "start" or line["run"] not in facts.run_rows:
        return False
    was_queued = (line["run"], line["step"], line["attempt"]) in facts.queued
    return not was_queued and not any(_fused(facts, line))


def _fused(facts: Facts, line: Row) -> Iterator[str]:
    """What is wrong with a start of an attempt that was not queued before.

    It may follow an execution whose report is not recorded, and never will be; then its own outcome is not either.
    """
    graph = facts.graphs[facts.run_rows[line["run"]].workflow_id]
    sources = graph.steps[line["step"]].predecessors
    if line["attempt"] != 1:
        yield "was executed before it was queued, and is no first attempt"
    elif len(sources) != 1 or not graph.is_plain(line["step"]):
        yield "was executed before it was queued, and requires more than one step's result"
    else:
        (source,) = sources
        seen = line["seen"].get(source)
        before = facts.successes.get((line["run"], source, seen))
        if before is None or before > line["at"]:
            yield f"was executed before it was queued, and {source} had not been executed with what it saw of it"
        rows = facts.step_rows[line["run"]]
        of_source = rows.get(source)
        of_step = rows.get(line["step"])
        counts = of_step is not None and _nonce(of_step) == line["nonce"]
        if counts and (of_source is None or _nonce(of_source) != seen):
            yield f"is recorded, and saw a result of {source} that is not the recorded one"


def _nonce(row: StepRow) -> str | None:
    """What tells the recorded execution of a step that succeeded from all others."""
    if row.status is not Status.SUCCEEDED or not isinstance(row.result, dict):
        return None
    return row.result.get("nonce")


def broker_and_storage_agree(facts: Facts) -> Iterator[str]:
    """What the broker says about a run is what the rows say."""
    for run, view in facts.views.items():
        row = facts.run_rows.get(run)
        if row is None or view["state"] != row.status:
            yield f"run {run}: the broker says {view['state']}, the row {row and row.status}"
            continue
        rows = facts.step_rows[run]
        for name, step in view["steps"].items():
            found = rows.get(name)
            if found is None:
                if step["attempt"] or step["state"] not in (Status.PENDING, Status.CANCELLED):
                    yield f"{run}/{name}: the broker says {step['state']}, and there is no row"
                continue
            said = step["state"], step["attempt"], step["result"], step["action"]
            kept = found.status, found.attempt, found.result, found.action
            if said != kept:
                yield f"{run}/{name}: the broker says {said}, the row {kept}"


def events_fit_the_rows(facts: Facts) -> Iterator[str]:
    """What was announced to whoever listens happened. (Events may get lost; they may not be wrong.)"""
    for event in facts.events:
        run = facts.run_rows.get(event["instance_id"])
        if run is None:
            yield f"an event tells of run {event['instance_id']}, which is not in the database"
            continue
        is_replayed = run.instance_id in facts.replayed_runs
        was_so = is_replayed and event.get("state") == "FAILED"  # until it was replayed
        if event["kind"] == "workflow_finished" and event["state"] != run.status and not was_so:
            yield f"run {run.instance_id} was announced as {event['state']}, and is {run.status}"
        if event["kind"] in ("step_finished", "step_skipped", "step_cancelled"):
            row = facts.step_rows[run.instance_id].get(event["step_name"])
            if is_replayed and row is not None and event["attempt"] <= row.attempt:
                continue
            if row is None or row.attempt != event["attempt"] or not row.status.is_terminal:
                yield f"{run.instance_id}/{event['step_name']}: {event['kind']} was announced, the row is {row}"


def queues_are_empty(facts: Facts) -> Iterator[str]:
    """Nothing waits that nobody will fetch: no message is left in any queue but the parked ones."""
    for queue, count in facts.queues.items():
        if count is None:
            yield f"queue {queue} is gone"
        elif count and not queue.endswith(".parked"):
            yield f"queue {queue} still has {count} messages"


def dead_letters_are_explained(facts: Facts) -> Iterator[str]:
    """Each dead letter and parked message is one that the adversary let in, or has a reason that its step allows."""
    for letter in facts.dead:
        if not _is_injected(facts, letter) and letter.reason not in ("expired", "delivery_limit"):
            yield f"dead letter {letter.message_id}: {letter.reason}: {letter.body[:200]!r}"
    for letter in facts.parked:
        if not _is_injected(facts, letter):
            yield f"parked message {letter.message_id}: {letter.reason}: {letter.body[:200]!r}"


def _is_injected(facts: Facts, letter: Letter) -> bool:
    run = (letter.message_id or "").partition("/")[0]  # the report of a forged assignment
    return bool({letter.message_id, letter.mark, run} & facts.injected)


def nothing_leaks(facts: Facts) -> Iterator[str]:
    """No connection, channel, queue, thread or file is left over, and memory is back where it was."""
    yield from facts.leaks


def nobody_complains(facts: Facts) -> Iterator[str]:
    """No process ended by itself, each exit was in order, and work went on after every fault."""
    yield from facts.complaints


def tally(facts: Facts) -> dict[str, int]:
    """What was asked, and what became of it. `duplicated`: attempts that were executed more than once."""
    outcomes: defaultdict[str, int] = defaultdict(int)
    for asked in facts.asked.values():
        outcomes[asked.outcome] += 1
    started: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    for line in facts.executions:
        if line["what"] == "start":
            started[line["run"], line["step"], line["attempt"]] += 1
    acknowledged = {run for run, asked in facts.asked.items() if asked.outcome == "acknowledged"}
    there = facts.run_rows.keys()
    return {
        "attempted": len(facts.asked),
        "acknowledged": outcomes["acknowledged"],
        "failed": outcomes["failed"] + outcomes["refused"],
        "indeterminate": outcomes["indeterminate"],
        "indeterminate, took effect": sum(
            1 for run, asked in facts.asked.items() if asked.outcome == "indeterminate" and run in there
        ),
        "recovered": sum(row.losses for rows in facts.step_rows.values() for row in rows.values()),
        "duplicated": sum(count > 1 for count in started.values()),
        "lost": len(acknowledged - there),
        "hung": sum(row.finished_at is None for row in facts.run_rows.values()),
        "runs": len(facts.runs),
        "steps": len(facts.steps),
        "executions": sum(started.values()),
        "fused": sum(is_fused(facts, line) for line in facts.executions) if facts.fusion_hops else 0,
        "commits": len({change.tx for change in facts.changes}),
        "events": len(facts.events),
        "dead letters": len(facts.dead),
        "parked": len(facts.parked),
    }

"""A run as people see it: a heading, its steps as a tree with what became of each, and how it ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fuseline.cli.graph import as_tree
from fuseline.cli.output import SIGNS, STYLES, duration, moment, short, state_text
from fuseline.model import Cause, RunStatus, RunView, Status, StepView, WorkflowSchema

Names = Mapping[str, str]
"""What to call workers, by worker id; the others go by the end of their id."""


def show_run(run: RunView, schema: WorkflowSchema | None, now: float, workers: Names | None = None) -> Group:
    """Everything about a run."""
    parts: list[RenderableType] = [heading(run, now), steps_table(run, schema, now, workers or {})]
    if run.inputs:
        parts.append(_value("inputs", run.inputs))
    if run.outputs:
        parts.append(_value("outputs", run.outputs))
    if (trouble := ending(run)) is not None:
        parts.append(trouble)
    return Group(*parts)


def heading(run: RunView, now: float) -> Group:
    """Which run, and how it stands."""
    line = Text.assemble(
        (f"{run.workflow_id} {run.workflow_version}", "bold"),
        "  ",
        (run.instance_id, "dim"),
        "  ",
        state_text(run.state),
        f"  {duration((run.finished_at or now) - run.created_at)}",
    )
    return Group(line, counts(run))


def counts(run: RunView) -> Text:
    """How many steps are in each state."""
    found = Counter(step.state for step in run.steps.values())
    text = Text(f"{len(run.steps)} steps: ", style="dim")
    shown = [(state, found[state]) for state in Status if found[state]]
    for position, (state, count) in enumerate(shown):
        text.append(", " if position else "", style="dim")
        text.append(f"{count} {state.value.lower()}", style=STYLES[state])
    return text


def steps_table(
    run: RunView, schema: WorkflowSchema | None, now: float, workers: Names, limit: int | None = None
) -> Table:
    """One row a step. With `limit` only so many: what runs or failed first, then what ended last."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("step", "state"):
        table.add_column(column, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    shown = None if limit is None or len(run.steps) <= limit else _most_telling(run, limit)
    for guides, name in as_tree(list(run.steps), schema):
        step = run.steps.get(name)
        if step is not None and (shown is None or name in shown):
            table.add_row(
                Text.assemble((guides, "dim"), (name, STYLES[step.state])),
                state_text(step.state),
                duration(took(step, now)),
                Text(worker_name(step, workers), style="dim"),
                remark(step, now),
            )
    if shown is not None:
        table.add_row(Text(f"… and {len(run.steps) - len(shown)} more", style="dim"))
    return table


def _most_telling(run: RunView, limit: int) -> set[str]:
    def rank(step: StepView) -> tuple[int, float]:
        if step.state in (Status.RUNNING, Status.FAILED):
            return 0, 0.0
        if step.finished_at is not None:
            return 1, -step.finished_at
        return (2, step.queued_at or 0.0) if step.state is Status.QUEUED else (3, 0.0)

    return {step.name for step in sorted(run.steps.values(), key=rank)[:limit]}


def took(step: StepView, now: float) -> float | None:
    """How long its last attempt has been executed."""
    if step.started_at is None:
        return None
    if step.finished_at is None:
        return now - step.started_at if step.state is Status.RUNNING else None
    return step.finished_at - step.started_at


def worker_name(step: StepView, workers: Names) -> str:
    """Who holds it, or who executed it."""
    if step.worker_id is None:
        return ""
    return workers.get(step.worker_id, step.worker_id[-6:])


def remark(step: StepView, now: float) -> Text:
    """What is out of the ordinary: further attempts, branches taken, errors, waits."""
    said: list[str] = []
    if step.attempt > 1:
        said.append(f"attempt {step.attempt}")
    if step.action not in (None, "default"):
        said.append(f"-> {step.action}")
    # Of a queued or running step `due_at` is when somebody will look after it, which is nobody's concern here.
    if step.state is Status.PENDING and step.due_at is not None:
        said.append(f"next attempt in {duration(step.due_at - now)}")
    if step.error is not None:
        cause = "" if step.error.cause.value == "error" else f"{step.error.cause.value}: "
        said.append(f"{cause}{step.error.type}: {step.error.message}")
    style = "red" if step.state is Status.FAILED else "dim"
    return Text(short("; ".join(said), 160), style=style)


def ending(run: RunView) -> Text | None:
    """Why a run did not succeed; None when it did, or goes on."""
    if run.state in (RunStatus.RUNNING, RunStatus.SUCCEEDED):
        return None
    text = Text(f"{SIGNS[run.state.value]} {run.state.value}", style=STYLES[run.state.value])
    if run.failed_step is not None:
        text.append(f" in step {run.failed_step}")
    if run.error is not None:
        cause = "" if run.error.cause is Cause.ERROR else f" ({run.error.cause.value})"
        text.append(f"{cause}: {run.error.type}: {run.error.message}")
        if run.error.traceback:
            text.append(f"\n{run.error.traceback.rstrip()}", style="dim")
    return text


def change_line(step: StepView, now: float, workers: Names) -> Text:
    """One step's new state as a line of a log, for those who do not watch a terminal."""
    parts = [moment(now)[11:], step.state.value.ljust(9), step.name]
    seconds = took(step, now)
    if step.state.is_terminal and seconds is not None:
        parts.append(f"took {duration(seconds)}")
    if who := worker_name(step, workers):
        parts.append(f"on {who}")
    if note := remark(step, now).plain:
        parts.append(note)
    return Text("  ".join(parts), style=STYLES[step.state] if step.state is Status.FAILED else "")


def _value(name: str, value: object) -> Text:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return Text(f"{name}: ", style="dim") + Text(short(text, 1000), style="")

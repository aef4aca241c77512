"""Whether runs ended as their graphs and their steps say they must."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from fuseline.engine.state import RunRow
from fuseline.model.messages import Cause
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.testing.simulation.semantics import SKIPPED, Graph, Rows


def endings(run: RunRow, rows: Rows, graph: Graph) -> Iterator[tuple[str, str]]:
    """(promise, what broke it) of a run that has ended."""
    i = run.instance_id
    for row in rows.values():
        if not row.status.is_terminal:
            yield "P3", f"run {i} has ended {run.status}, and {row.name} is {row.status}"
    failed = [row for row in rows.values() if row.status is Status.FAILED]
    if run.status is RunStatus.SUCCEEDED:
        for name in graph.steps:
            found = rows.get(name)
            fate = graph.fate(run, rows, name)
            if found is None or found.status is Status.CANCELLED:
                yield "P1", f"run {i} has succeeded without {name}, which by its graph is {fate}"
            elif (fate == SKIPPED) != found.is_unreached:
                yield "P2", f"run {i}: {name} ended {found.status}, attempt {found.attempt}"
        for row in failed:
            if not graph.tolerates(run, rows, row.name):
                yield "P3", f"run {i} has succeeded although {row.name} failed"
    elif run.status is RunStatus.FAILED:
        timed_out = run.error is not None and run.error.cause is Cause.RUN_TIMEOUT
        if run.error is None or not (failed or timed_out):
            yield "P3", f"run {i} has failed, and nothing in it did"


def quiet(
    runs: Mapping[str, Rows], executions: Mapping[tuple[str, str, int], int], spared: Container[str]
) -> Iterator[str]:
    """What must not be where there was no fault: holders that were lost, attempts that were executed twice (P5).

    `spared`: runs that were replayed, which queues a first attempt anew that was gone on with in vain as the run failed;
    and those of which an attempt was executed that was over, by policies that came after it was queued: it may have been
    gone on from, in vain.
    """
    for i, rows in runs.items():
        for row in rows.values():
            if row.losses:
                yield f"{i}/{row.name} lost {row.losses} holders"
    twice = [key for key, count in executions.items() if count > 1 and key[0] not in spared]
    if twice:
        yield f"{twice} were executed more than once"


def retry_budgets(definitions: list[WorkflowSchema]) -> dict[str, tuple[int, int]]:
    """How many attempts of each step may fail, at least and at most, by definitions that differ in their policies."""
    found = {}
    for name in definitions[0].steps:
        allowed = []
        for definition in definitions:
            limits = [p.config["max_retries"] for p in definition.steps[name].policies if p.name == "retry"]
            allowed.append(limits[-1] if limits else 1)
        found[name] = (min(allowed), max(allowed))
    return found

"""Whether an attempt may be executed when it is (P2), also one that its worker goes on with by itself (ADR 0007)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from typing import Any

from fuseline.engine.state import RunRow, StepRow
from fuseline.model.status import Status
from fuseline.testing.simulation.reports import REPORTS
from fuseline.testing.simulation.semantics import Graph

Attempt = tuple[str, str, int]
Rows = Mapping[str, StepRow]


def wrong_with(
    graph: Graph, run: RunRow, rows: Rows, name: str, attempt: int, results: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with executing an attempt of a step with these results, by what is recorded."""
    row = rows.get(name)
    if row is None or row.attempt < attempt:
        yield f"executes attempt {attempt} of {run.instance_id}/{name}, which was never queued"
        return
    if run.replays and attempt < row.attempt:
        # It was over before the replay, and comes once more from a coordinator that slept meanwhile. What it was queued
        # with is not recorded any more, and what it reports does not count.
        return
    wrong = [
        source
        for source, value in results.items()
        if (found := rows.get(source)) is None
        or found.status is not Status.SUCCEEDED
        or found.result != value
    ]
    where = f"executes {(run.instance_id, name, attempt)} with"
    if wrong:
        yield f"{where} results of {wrong} that are not recorded"
    elif run.error is None and graph.is_plain(name):
        wanted = graph.payload(run, rows, name)
        if results != wanted:
            yield f"{where} {dict(results)}, not {wanted}"


class Fused:
    """Executions that saw what their own worker had reported, and that nobody has recorded, or ever will."""

    def __init__(self) -> None:
        self._saw: dict[tuple[str, Attempt], tuple[str, Any]] = {}
        self._all: defaultdict[tuple[str, Attempt], list[Any]] = defaultdict(list)

    def begins(self, worker: str, key: Attempt, source: str, result: Any) -> None:
        """A worker executes an attempt that saw this result of the only step before it."""
        self._saw[worker, key] = (source, result)
        self._all[worker, key].append(result)

    def may_be_vain(self, worker: str, key: Attempt, recorded: StepRow | None) -> bool:
        """Whether a report of this worker may be of an execution that saw another result than the recorded one."""
        result = None if recorded is None else recorded.result
        return any(saw != result for saw in self._all[worker, key])

    def ends(self, worker: str, key: Attempt) -> None:
        """It executes that attempt once more, as it is recorded."""
        self._saw.pop((worker, key), None)

    def wrong_with(self, i: str, row: StepRow, rows: Rows) -> str | None:
        """Whether the outcome of an execution is recorded that saw another result than the recorded one."""
        found = self._saw.get((row.holder or "", (i, row.name, row.attempt)))
        if found is None or row.status is not Status.SUCCEEDED:
            return None
        source, result = found
        before = rows.get(source)
        if before is not None and before.status is Status.SUCCEEDED and before.result == result:
            return None
        return f"{i}/{row.name} is recorded by {row.holder}, and had seen {result} of {source}, which is not recorded"


def goes_on_from(
    graph: Graph,
    worker: str,
    key: Attempt,
    results: Mapping[str, Any],
    said: Mapping[str, Container[str]],
) -> tuple[str, Any] | None:
    """The step before, and its result, if this worker reported that and RabbitMQ has confirmed it.

    `said`: who published a report, by its message id. The report may turn out not to count: the worker cannot know.
    """
    i, name, attempt = key
    sources = graph.steps[name].predecessors
    if attempt != 1 or len(sources) != 1 or results.keys() != set(sources):
        return None
    ((source, value),) = results.items()
    if not isinstance(value, list) or value[0] != source:
        return None
    reports = [f"{i}/{source}/{value[1]}/{what}" for what in REPORTS]
    return (source, value) if any(worker in said[one] for one in reports) else None

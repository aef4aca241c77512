"""The floor's coordinator, which dispatches the work as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from fuseline.bench.failing import BenchFailedError
from fuseline.bench.floor.post import Letter, Post
from fuseline.bench.floor.table import Table
from fuseline.bench.graphs import Graph, fails_first
from fuseline.bench.parent import Parent
from fuseline.bench.works import PAYLOAD, RANDOM_GRAPHS, RESULT_BYTES, WORKS, Shape, Work

PREFETCH = 500
RUNS_AT_ONCE = 200
PAUSE_SECONDS = 0.05
"""Between runs that are done one after the other, so that each meets a system that rests."""


@dataclass(slots=True)
class Run:
    """A run in memory. `waits`: how many finished steps those that were reached by some still wait for."""

    graph: Graph
    left: int
    over: set[int] = field(default_factory=set)
    waits: dict[int, int] = field(default_factory=dict)
    results: dict[int, Any] = field(default_factory=dict)
    reads: dict[int, list[int]] = field(default_factory=dict)


class Floor:
    """Runs one work after the other on one connection and one table."""

    def __init__(self, parent: Parent) -> None:
        job = parent.job
        self._parent = parent
        self._table = Table(job["database_url"], job["table"])
        self._table.create()
        self._queues: list[str] = job["assignments"]
        self._post = Post(job["amqp_url"], [job["reports"]], PREFETCH, self._record, parent.ready)
        self._runs: dict[int, Run] = {}
        self._first_run = self._next_run = 0
        self._done_steps = 0
        self._ended = 0
        self._on_end: Callable[[], None] = lambda: None
        self._work = WORKS["W1"]
        self._graphs: list[Graph] = []

    def run(self) -> None:
        """Do what the parent asks for until it is gone."""
        self._parent.listen(lambda question: self._post.call(lambda: self._asked(question)), self._post.stop)
        try:
            self._post.run()
        finally:
            self._table.drop()
            self._table.close()

    def _asked(self, question: dict[str, Any]) -> None:
        if question["do"] == "count":
            self._parent.tell(
                {
                    "messages": self._post.published,
                    "frames": self._post.frames,
                    "acks": self._post.acks,
                    "sql_statements": self._table.statements,
                    "sql_commits": self._table.commits,
                }
            )
            return
        self._begin(Work.from_json(question["work"]))

    def _begin(self, work: Work) -> None:
        self._work = work
        self._graphs = [work.graph(number) for number in range(RANDOM_GRAPHS)]
        self._runs.clear()
        self._first_run = self._next_run
        self._ended = 0
        if work.serial:
            self._one_by_one()
        else:
            self._all_at_once()

    # ---- a step's way

    def _assignment(self, number: int, run: Run, step: int, attempt: int = 1) -> Letter:
        asked = {"run": number, "step": step, "attempt": attempt, "inputs": PAYLOAD}
        if self._work.shape is Shape.RANDOM:
            asked["size"] = RESULT_BYTES
            asked["inputs"] = {str(one): run.results[one] for one in run.reads.get(step, ())}
            asked["fails"] = attempt == 1 and fails_first(number, step)
        return self._queues[number % len(self._queues)], to_json(asked)

    def _record(self, bodies: list[bytes]) -> Iterator[Letter]:
        reports = [from_json(body) for body in bodies]
        good = [report for report in reports if report["state"] == "done"]
        if good:
            self._table.done([(to_json(one["result"]).decode(), one["run"], one["step"]) for one in good])
        for report in reports:
            yield from self._follow(report)

    def _follow(self, report: dict[str, Any]) -> Iterator[Letter]:
        number, step = report["run"], report["step"]
        run = self._runs.get(number)
        if run is None or step in run.over:
            return  # delivered twice
        if report["state"] == "failed":
            yield self._assignment(number, run, step, report["attempt"] + 1)
            return
        run.over.add(step)
        if self._work.shape is Shape.RANDOM:
            run.results[step] = report["result"]
        for following in run.graph.successors[step]:
            waits = run.waits.get(following, run.graph.requires[following]) - 1
            run.waits[following] = waits
            if self._work.shape is Shape.RANDOM:
                run.reads.setdefault(following, []).append(step)
            if not waits:
                yield self._assignment(number, run, following)
        run.left -= 1
        if not run.left:
            del self._runs[number]
            self._ended += 1
            self._on_end()

    def _dispatch(self, count: int) -> None:
        numbers = range(self._next_run, self._next_run + count)
        self._next_run += count
        for number in numbers:
            graph = self._graphs[(number - self._first_run) % RANDOM_GRAPHS]
            self._runs[number] = Run(graph, len(graph))
        self._table.insert(
            (number, step) for number in numbers for step in range(len(self._runs[number].graph))
        )
        for number in numbers:
            self._post.publish(*self._assignment(number, self._runs[number], 0))

    # ---- the works

    def _all_at_once(self) -> None:
        work = self._work

        def ended() -> None:
            if self._ended == work.runs:
                self._tell(time.perf_counter() - began, dispatched - began)

        self._on_end = ended
        began = time.perf_counter()
        for first in range(0, work.runs, RUNS_AT_ONCE):
            self._dispatch(min(RUNS_AT_ONCE, work.runs - first))
        dispatched = time.perf_counter()

    def _one_by_one(self) -> None:
        taken: list[float] = []
        began = 0.0

        def begin() -> None:
            nonlocal began
            began = time.perf_counter()
            self._dispatch(1)

        def ended() -> None:
            taken.append(time.perf_counter() - began)
            if len(taken) < self._work.runs:
                self._post.call_later(PAUSE_SECONDS, begin)
            else:
                self._tell(sum(taken), None, taken)

        self._on_end = ended
        begin()

    def _tell(
        self, seconds: float, dispatch_seconds: float | None, run_seconds: list[float] | None = None
    ) -> None:
        self._done_steps += self._work.steps
        found = self._table.count_done()
        if found < self._done_steps:
            raise BenchFailedError(f"the floor has lost steps: {found} of {self._done_steps} are recorded")
        self._parent.tell(
            {"seconds": seconds, "dispatch_seconds": dispatch_seconds, "run_seconds": run_seconds or []}
        )

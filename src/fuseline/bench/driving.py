"""Dispatching the runs of a work and seeing them end, over any broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fuseline.bench.failing import BenchFailedError
from fuseline.bench.flows import inputs, workflows
from fuseline.bench.samples import Timing
from fuseline.bench.works import PAYLOAD, Work
from fuseline.broker.base import Broker
from fuseline.model import RunStatus, WorkflowSchema
from fuseline.storage.base import RuntimeStorage

PAUSE_SECONDS: Final = 0.05
"""Between runs that are done one after the other, so that each meets a system that rests."""
_LOOK_SECONDS: Final = (0.05, 0.2)
_LOOK_AFTER: Final = 1.5
"""Of one run after the other each is looked at when so many times have passed that the one before took."""
FOLLOW_SECONDS: Final = 600.0
AT_ONCE: Final = 8
_BEYOND: Final = "g"
"""Ids that are made here are hexadecimal, and so before it: a database may hold other runs, open ones too."""


class Driver:
    """Dispatches through `broker`, with one call all runs of a workflow, and looks into `storage` for the ends.

    The end of a run is the time that its row says, not the time when somebody looked: looking often would be a load of
    its own, and a look at a lone run is in its way. `check` is called while it waits, and raises when there is no point in
    waiting. `calls`: in so many calls at least runs are dispatched, where two works of different numbers of workflows are to
    be compared.
    """

    def __init__(
        self,
        broker: Broker,
        storage: RuntimeStorage,
        *,
        check: Callable[[], None] = lambda: None,
        follow_seconds: float = FOLLOW_SECONDS,
        calls: int = 1,
    ) -> None:
        self._broker = broker
        self._storage = storage
        self._check = check
        self._follow_seconds = follow_seconds
        self._calls = calls

    def do(self, work: Work) -> Timing:
        """All runs of the work. Raises `BenchFailedError` when one fails or does not end."""
        schemas = [flow.to_schema() for flow in workflows(work)]
        return self._one_by_one(work, schemas) if work.serial else self._all_at_once(work, schemas)

    def _all_at_once(self, work: Work, schemas: Sequence[WorkflowSchema]) -> Timing:
        began = time.time()
        # A multiple of the workflows, so that each call is about runs of one.
        turns = len(schemas) * -(-self._calls // len(schemas))
        # A few at a time: one after the other they would come too slowly to keep anybody busy.
        with ThreadPoolExecutor(AT_ONCE if self._calls > 1 else 1) as pool:
            told = pool.map(lambda turn: self._dispatch_many(work, schemas, turn, turns), range(turns))
            ids = [one for many in told for one in many]
        dispatched = time.time()
        for instance_id in ids[-1:] + ids[:1]:
            self._follow(instance_id)
        self._wait_for(lambda: not self._storage.list_runs(state=RunStatus.RUNNING, limit=1, before=_BEYOND))
        return Timing(max(self._ends(ids)) - began, dispatched - began)

    def _one_by_one(self, work: Work, schemas: Sequence[WorkflowSchema]) -> Timing:
        taken: list[float] = []
        for run in range(work.runs):
            began = time.time()
            instance_id = self._dispatch(work, schemas, run)
            self._follow(instance_id, _LOOK_AFTER * taken[-1] if taken else 0.0)
            taken.append(self._ends([instance_id])[0] - began)
            time.sleep(PAUSE_SECONDS)
        return Timing(sum(taken), None, tuple(taken))

    def _dispatch(self, work: Work, schemas: Sequence[WorkflowSchema], run: int) -> str:
        schema = schemas[run % len(schemas)]
        return self._broker.dispatch_workflow(schema, inputs(work, run, PAYLOAD))

    def _dispatch_many(
        self, work: Work, schemas: Sequence[WorkflowSchema], turn: int, turns: int
    ) -> list[str]:
        each = [inputs(work, run, PAYLOAD) for run in range(turn, work.runs, turns)]
        return self._broker.dispatch_many(schemas[turn % len(schemas)], each) if each else []

    def _follow(self, instance_id: str, pause: float = 0.0) -> None:
        def ended() -> bool:
            row = self._storage.read_run_row(instance_id)
            return row is not None and row.status.is_terminal

        self._wait_for(ended, pause)

    def _wait_for(self, ended: Callable[[], bool], pause: float = 0.0) -> None:
        """`pause`: before the first look, where one knows how long it takes."""
        deadline = time.monotonic() + self._follow_seconds
        pause = max(_LOOK_SECONDS[0], pause)
        while True:
            time.sleep(pause)
            if ended():
                return
            self._check()
            if time.monotonic() > deadline:
                raise BenchFailedError(f"the runs did not end within {self._follow_seconds:g} s")
            pause = min(pause * 1.2, _LOOK_SECONDS[1])

    def _ends(self, ids: Sequence[str]) -> list[float]:
        """When each has ended, and that it did so well."""
        ends = []
        wanted = set(ids)
        before = _BEYOND
        while wanted and (rows := self._storage.list_runs(limit=1000, before=before)):
            for row in rows:
                if row.instance_id not in wanted:
                    continue
                wanted.discard(row.instance_id)
                if row.status is not RunStatus.SUCCEEDED or row.finished_at is None:
                    told = "no more is known" if row.error is None else row.error.message
                    raise BenchFailedError(f"run {row.instance_id} {row.status.value}: {told}")
                ends.append(row.finished_at)
            before = rows[-1].instance_id
        if wanted:
            raise BenchFailedError(f"{len(wanted)} of {len(ids)} runs are not recorded")
        return ends

"""What PostgreSQL takes for each statement that a step costs, with many runs in the database, and for deleting them."""

from __future__ import annotations

import time
from typing import Final

from fuseline.storage import PostgresRuntimeStorage
from tests.bench.scale.found import Purge, Statement
from tests.unit.storage.filling import STEPS_A_RUN
from tests.unit.storage.hot import HOT, complaints, explain

TIMES: Final = 20
PURGED: Final = 5_000
_ROWS: Final = 1 + 1 + STEPS_A_RUN + 1
"""Of a run that `fill` makes: itself, its inputs, steps, a join."""


def statements(url: str, runs: int) -> list[Statement]:
    """Each executed some times, and rolled back; the least time, as PostgreSQL itself says it."""
    storage = PostgresRuntimeStorage(url)
    try:
        return [_statement(storage, name, runs) for name in HOT]
    finally:
        storage.close()


def _statement(storage: PostgresRuntimeStorage, name: str, runs: int) -> Statement:
    plans = [explain(storage, name) for _ in range(TIMES)]
    # The last one: the first finds blocks that nobody has read yet, and touches as many.
    blocks = plans[-1]["Plan"]["Shared Hit Blocks"] + plans[-1]["Plan"]["Shared Read Blocks"]
    return Statement(name, runs, min(one["Execution Time"] for one in plans), blocks, complaints(plans[-1]))


def purged(url: str, runs: int) -> Purge:
    """Some runs deleted as `fuseline runs purge` does it, a hundred in a transaction."""
    storage = PostgresRuntimeStorage(url)
    wanted = min(PURGED, runs // 2)
    done = 0
    try:
        began = time.perf_counter()
        while done < wanted and (some := storage.purge_runs(float(runs), 100)):
            done += some
        return Purge(runs, _ROWS, done / (time.perf_counter() - began))
    finally:
        storage.close()

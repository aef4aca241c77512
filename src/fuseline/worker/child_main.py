"""The entry of a worker's processes. Apart from `child`, which knows nothing of workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection

from fuseline.clock import SystemClock
from fuseline.worker import child
from fuseline.worker.reports import Sealer
from fuseline.worker.workflows import WorkflowCatalog


def child_main(pipe: Connection, targets: Sequence[str], max_bytes: int, worker_id: str | None) -> None:
    """Load the workflows that `targets` name, and execute their steps."""

    def load() -> tuple[child.Execute, child.End]:
        catalog = WorkflowCatalog.of(targets, Sealer(SystemClock(), max_bytes, worker_id))
        return catalog.execute, lambda: catalog.end(asyncio.run)

    child.serve(pipe, load)

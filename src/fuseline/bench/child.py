"""`python -m fuseline.bench.child ROLE`: one process of a benchmark, for its parent alone (see `children`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Final

from fuseline.bench import embedded, parties
from fuseline.bench.floor import coordinator, worker
from fuseline.bench.parent import Parent

ROLES: Final[Mapping[str, Callable[[Parent], None]]] = {
    "floor-coordinator": lambda parent: coordinator.Floor(parent).run(),
    "floor-worker": worker.run_worker,
    "coordinator": parties.run_coordinator,
    "worker": parties.run_worker,
    "workers": parties.run_workers,
    "embedded": embedded.run_embedded,
    "local": embedded.run_local,
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # The package pika tells of every connection that it closes.
    logging.getLogger("pika").setLevel(logging.ERROR)
    ROLES[sys.argv[1]](Parent())

"""A million runs in the database: the statements that a step costs touch as little of it as of twenty thousand."""

from __future__ import annotations

import os
import time

import pytest

from fuseline.storage import PostgresRuntimeStorage
from fuseline.testing.servers import PrivatePostgres
from tests.unit.storage.filling import fill
from tests.unit.storage.hot import HOT, complaints, explain, seconds_of

RUNS = int(os.environ.get("FUSELINE_BENCH_RUNS", "1000000"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_hot_statements_at_a_million_runs() -> None:
    with PrivatePostgres(durable=False, timeout_seconds=300) as server:
        url = server.dsn
        storage = PostgresRuntimeStorage(url, upgrade=True)
        began = time.monotonic()
        fill(url, RUNS)
        print(f"\n{RUNS:,} runs, filled in {time.monotonic() - began:.0f} s")
        found = {}
        for name in HOT:
            found[name] = complaints(explain(storage, name))
            print(
                f"{name:<20} {seconds_of(storage, name) * 1000:7.2f} ms  {', '.join(found[name]) or 'by index'}"
            )
        storage.close()
    assert {name: told for name, told in found.items() if told} == {}

"""`fuseline runs purge` on both databases."""

from __future__ import annotations

import pytest

from fuseline.clock import SystemClock
from fuseline.model.status import RunStatus
from fuseline.storage.sql import open_storage, upgrade
from fuseline.testing.storage_cases import keep, run_row, step_row
from tests.integration.cli.harness import Fuseline

DAY = 86400.0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_runs_that_ended_long_ago_are_deleted(
    fuseline: Fuseline, request: pytest.FixtureRequest, kind: str
) -> None:
    url = f"sqlite:///{fuseline.folder}/runs.db"
    if kind == "postgresql":
        url = request.getfixturevalue("fresh_postgres_url")
    upgrade(url)
    storage = open_storage(url)
    now = SystemClock().now()
    keep(
        storage,
        *(run_row(f"old{n}", RunStatus.SUCCEEDED, finished_at=now - 40 * DAY) for n in range(250)),
        run_row("new", RunStatus.FAILED, finished_at=now - 20 * DAY),
        run_row("open", created_at=now - 90 * DAY),
        old0=[step_row("s")],
    )
    purge = ("runs", "purge", "--database-url", url, "--older-than", "30d")

    unsure = fuseline(*purge, stdin="")
    assert unsure.returncode == 2
    assert "--yes" in unsure.stderr
    assert fuseline.json(*purge, "--yes")["deleted"] == 250
    assert {run.instance_id for run in storage.list_runs(limit=10)} == {"new", "open"}
    assert fuseline(*purge, "--yes").stdout.startswith("deleted 0 runs that ended before ")
    storage.close()


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", "soon"])
def test_a_time_that_is_none_is_told(fuseline: Fuseline, text: str) -> None:
    refused = fuseline("runs", "purge", "--yes", f"--older-than={text}")
    assert refused.returncode == 2
    assert "such as 30d" in refused.stderr

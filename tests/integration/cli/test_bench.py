"""`fuseline bench` measures what it says, on real servers, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import psycopg
import pytest

from fuseline.model import RunStatus
from fuseline.storage import PostgresRuntimeStorage
from fuseline.testing.storage_cases import keep, run_row
from tests.integration.cli.harness import Fuseline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

BENCH_SECONDS = 450.0
FIGURES = {
    "W2": {"p50_ms_a_hop"},
    "W3-1000": {"seconds"},
    "W5": {"steps_per_s", "seconds"},
}
TINY = [option for work in FIGURES for option in ("--work", work)] + ["--quick", "--scale", "0.01"]


def benched(program: Fuseline, *options: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with all the time that a busy machine needs."""
    return subprocess.run(
        program._command(("bench", *options)),
        cwd=program.folder,
        env=program._environment({}),
        capture_output=True,
        text=True,
        timeout=BENCH_SECONDS,
        check=False,
    )


def figures(rows: list[dict[str, Any]], system: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["system"] == system:
            assert row["min"] <= row["median"] <= row["max"]
            assert row["median"] > 0
            assert row["fusion"] is False
            assert row["rounds"] == 1
            found.setdefault(row["work"], set()).add(row["metric"])
    return found


@pytest.mark.long
def test_the_floor_and_fuseline_are_measured_on_given_servers(
    fuseline: Fuseline, amqp_url: str, fresh_postgres_url: str
) -> None:
    options = ["--system", "floor", "--system", "fuseline", "--page", "speed.md", *TINY]
    servers = ["--amqp-url", amqp_url, "--database-url", fresh_postgres_url]
    done = benched(fuseline, *options, *servers)
    assert done.returncode == 0, done.stderr
    assert "W5" in done.stdout
    folder = fuseline.folder / "build" / "bench"
    rows = json.loads((folder / "results.json").read_text())
    assert figures(rows, "floor") == FIGURES
    assert figures(rows, "fuseline") == FIGURES
    costs = {
        (one["system"], one["work"]): one
        for one in json.loads((folder / "details.json").read_text())["costs"]
    }
    for (_, work), cost in costs.items():
        assert {"coordinator", "workers"} <= cost["cpu_ms_per_step"].keys()
        # An assignment, and a part of a message of reports; retries, dispatches and their answers come on top.
        assert 1 <= cost["counts_per_step"]["messages"] < 6, work
        assert cost["counts_per_step"]["sql_commits"] > 0
    assert (fuseline.folder / "speed" / "throughput.svg").exists()
    check_that_nothing_is_left(fresh_postgres_url)


def test_as_many_processes_are_measured_as_are_asked_for(fuseline: Fuseline) -> None:
    options = ["--system", "fuseline", "--work", "W4", "--quick", "--scale", "0.01"]
    done = benched(fuseline, *options, "--coordinators", "2", "--workers", "3")
    assert done.returncode == 0, done.stderr
    logs = {log.stem for log in (fuseline.folder / "build" / "bench" / "logs").iterdir()}
    assert logs == {"coordinator", "coordinator-1", "worker-0", "worker-1", "worker-2"}


def check_that_nothing_is_left(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        counted = connection.execute("SELECT count(*) FROM fuseline_runs").fetchone()
        floor = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename ~ 'floor'").fetchone()
    assert counted == (0,)
    assert floor == (0,)


def test_without_servers(fuseline: Fuseline) -> None:
    done = benched(fuseline, "--json", "--embedded-only", *TINY)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert figures(rows, "fuseline-embedded") == FIGURES
    assert figures(rows, "fuseline-local") == FIGURES
    assert figures(rows, "floor") == {}


def test_a_database_with_runs_is_not_touched(fuseline: Fuseline, fresh_postgres_url: str) -> None:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    keep(storage, run_row("mine", RunStatus.SUCCEEDED))
    done = fuseline("bench", "--quick", "--system", "floor", "--database-url", fresh_postgres_url)
    assert done.returncode == 3
    assert "bench_refused: the database holds runs" in done.stderr
    assert storage.read_run_row("mine") is not None
    storage.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--work", "W9"], "there is no work 'W9'"),
        (["--system", "celery"], "there is no 'celery'"),
        (["--scale", "2"], "scale 2: over 0 and up to 1"),
        (["--embedded-only", "--amqp-url", "amqp://localhost/"], "needs no server"),
        (["--embedded-only", "--system", "floor"], "nothing is left"),
        (["--database-url", "sqlite:///x.db"], "postgresql://"),
    ],
)
def test_what_makes_no_sense_is_told(fuseline: Fuseline, options: list[str], told: str) -> None:
    done = fuseline("bench", *options)
    assert done.returncode in (2, 3)
    assert told in done.stderr
    assert not (fuseline.folder / "build").exists()


def test_servers_that_are_not_there_are_told(fuseline: Fuseline, fresh_postgres_url: str) -> None:
    nowhere = ["--amqp-url", "amqp://guest:secret@127.0.0.1:1/", "--database-url", fresh_postgres_url]
    done = fuseline("bench", "--quick", "--work", "W4", *nowhere)
    assert done.returncode == 4
    assert "RabbitMQ cannot be reached" in done.stderr
    assert "secret" not in done.stderr


def test_what_must_be_reached_decides_the_exit_code(fuseline: Fuseline) -> None:
    options = ["--system", "fuseline-embedded", "--work", "W2", "--quick", "--check"]
    done = benched(fuseline, *options)
    missed = "not reached" in done.stdout
    assert done.returncode == (1 if missed else 0), done.stderr

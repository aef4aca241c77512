"""The demonstration does what it says: real files, real processes, the same report after a worker was killed (P1, P3)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from fuseline.examples.stdlib_report.listing import default_roots, list_files
from tests.integration.cli.harness import Fuseline, end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DEMO_SECONDS = 200
# The whole library is analysed once, embedded. Where processes and servers are what is tested, some hundred files will do.
PARTS = (
    "asyncio",
    "distutils",
    "email",
    "encodings",
    "idlelib",
    "json",
    "multiprocessing",
    "unittest",
    "xml",
)
SOME = [
    option
    for name in PARTS
    if (folder := Path(sysconfig.get_path("stdlib"), name)).is_dir()
    for option in ("--root", str(folder))
]
# Enough to be killed in the middle of it: half of the whole. (Distributions may leave this folder out.)
TESTS = Path(sysconfig.get_path("stdlib"), "test")
MORE = ["--root", str(TESTS)] if (TESTS / "test_asyncio").is_dir() else []


def demonstrated(program: Fuseline, *options: str, measured: bool = True) -> dict[str, Any]:
    environment = program._environment({})
    if not measured:
        # What the large runs execute is covered by the small ones; tracing so much analysis would take as long again.
        environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE_PROCESS")}
    result = subprocess.run(
        program._command(("demo", "--json", *options)),
        cwd=program.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def sha256(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "report.html").read_bytes() + (folder / "report.md").read_bytes()
    ).hexdigest()


def processes_of(text: str) -> list[str]:
    listing = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if text in line]


def test_embedded_it_analyses_the_whole_standard_library(fuseline: Fuseline) -> None:
    summary = demonstrated(fuseline, measured=False)
    assert summary["state"] == "SUCCEEDED"
    report = summary["report"]
    assert report["files"] == len(list_files(default_roots())) > 1000
    folder = fuseline.folder / "build" / "demo"
    assert report["html"] == str(folder.resolve() / "report.html")
    assert report["sha256"] == sha256(folder)
    # The run stays, and can be looked at.
    database = f"sqlite:///{folder / 'fuseline.db'}"
    looked = fuseline("runs", "show", summary["instance_id"], "--embedded", "--database-url", database)
    assert looked.returncode == 0, looked.stderr
    assert "analyse_15" in looked.stdout
    assert len(fuseline.json("runs", "list", "--embedded", "--database-url", database)) == 1


def test_it_can_be_repeated_and_pointed_at_other_code(fuseline: Fuseline) -> None:
    code = fuseline.folder / "code"
    code.mkdir()
    (code / "good.py").write_text("x = 1\n")
    for _ in range(2):
        shown = fuseline("demo", "--root", str(code), "--folder", "out")
        assert shown.returncode == 0, shown.stderr
        assert "1 files analysed" in shown.stdout
        assert "0 do not parse" in shown.stdout
    assert "None: every file parses." in (fuseline.folder / "out" / "report.md").read_text()


def test_on_rabbitmq_three_processes_work_and_the_report_is_the_same(
    on_rabbitmq: Fuseline, amqp_url: str, fresh_postgres_url: str
) -> None:
    fuseline = on_rabbitmq
    summary = demonstrated(
        fuseline, "--rabbitmq", "--amqp-url", amqp_url, "--database-url", fresh_postgres_url, *SOME
    )
    assert summary["state"] == "SUCCEEDED"
    # Both workers executed steps; the coordinator, the third, recorded all of them.
    assert len(summary["executed"]) == 2
    assert {name.split()[0] for name in summary["executed"]} == {"worker-1", "worker-2"}
    assert sum(map(len, summary["executed"].values())) == 16 + 4 + 1 + 5
    assert summary["report"]["sha256"] == summary["compared_with"] == sha256(fuseline.folder / "build/demo")
    assert (fuseline.folder / "build/demo/logs/coordinator.log").exists()


@pytest.mark.fault
def test_on_servers_of_its_own_a_worker_is_killed_and_the_report_is_the_same(fuseline: Fuseline) -> None:
    summary = demonstrated(fuseline, "--rabbitmq", "--chaos", *MORE, measured=False)
    assert summary["state"] == "SUCCEEDED"
    assert summary["killed"].startswith("worker-")
    assert summary["held_when_killed"]
    assert summary["report"]["sha256"] == summary["compared_with"]
    survivor = next(name for name in summary["executed"] if name != summary["killed"])
    # What the killed one held was executed by the other.
    assert set(summary["held_when_killed"]) <= set(summary["executed"][survivor])
    assert processes_of(str(fuseline.folder)) == []


@pytest.mark.fault
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_is_ended_nothing_stays_behind(
    on_rabbitmq: Fuseline, amqp_url: str, fresh_postgres_url: str, how: signal.Signals
) -> None:
    fuseline = on_rabbitmq
    demo = fuseline.background(
        "demo", "--rabbitmq", "--amqp-url", amqp_url, "--database-url", fresh_postgres_url, *SOME
    )
    fuseline.wait_for(lambda: "SUCCEEDED" in fuseline.said(demo))
    children = _children(demo.pid)
    assert len(children) >= 3
    code = end(demo, how)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    fuseline.started.remove(demo)
    fuseline.wait_for(lambda: not any(_alive(pid) for pid in children))


def _children(pid: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    return [child for child, parent in rows if parent == pid]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--chaos"], "--chaos, --amqp-url and --database-url go with --rabbitmq"),
        (["--rabbitmq", "--chaos", "--workers", "1"], "--workers 2"),
    ],
)
def test_what_makes_no_sense_is_refused(fuseline: Fuseline, options: list[str], told: str) -> None:
    result = fuseline("demo", *options)
    assert result.returncode == 2
    assert told in result.stderr

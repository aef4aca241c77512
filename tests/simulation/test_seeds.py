"""P1 to P6 on simulated machines, with fresh seeds each time."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest

from fuseline.testing.simulation import simulate
from fuseline.testing.simulation.run import simulate_many

SEEDS = int(os.environ.get("FUSELINE_SEEDS", "5000"))
BASE_SEED = int(os.environ.get("FUSELINE_BASE_SEED") or secrets.randbelow(10**9))
KINDS = (
    "fault: RabbitMQ restarts",
    "fault: SIGTERM",
    "fault: commit answer lost",
    "fault: commit fails",
    "fault: consumer timeout",
    "fault: cut",
    "fault: database away",
    "fault: delete queue",
    "fault: duplicate",
    "fault: full queues",
    "fault: half-open connection",
    "fault: kill",
    "fault: kill at an effect",
    "fault: memory alarm",
    "fault: no quorum",
    "fault: other policies",
    "fault: pause",
    "fault: purge",
    "fault: reorder",
    "fault: slow network",
    "fault: step kills its worker",
    "fault: transient message lost",
    "seen: cancelled run",
    "seen: dead letter: delivery_limit",
    "seen: dead letter: expired",
    "seen: duplicate event",
    "seen: holder lost, next attempt",
    "seen: lease ended under a live worker",
    "seen: publish refused",
    "seen: purge of messages",
    "seen: redelivery",
    "seen: replay of a dead letter",
    "seen: stale event",
    "seen: two versions at once",
)
"""What a simulation that deserves its name has injected, and has seen to bite."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fresh_seeds_pass(record_property: Callable[[str, object], None]) -> None:
    """As a user runs them, in processes of their own: under coverage they would take three times as long."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = ["-m", "fuseline.testing.simulation", "--seeds", f"{SEEDS}", "--base-seed", f"{BASE_SEED}"]
    done = subprocess.run(
        [sys.executable, *command, "--jobs", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.rstrip().rpartition("\n")[2]
    pace = re.search(r"^.* seeds a minute.*$", done.stdout, re.MULTILINE)
    record_property("simulation", f"base seed {BASE_SEED}: {last}, {pace.group() if pace else 'no pace'}")
    assert last == f"{SEEDS} seeds, 0 failed", done.stdout[-3000:] + done.stderr[-2000:]
    missing = [
        kind for kind in KINDS if not re.search(rf"^ +[\d,]+  {kind.partition(': ')[2]}$", done.stdout, re.M)
    ]
    assert SEEDS < 1000 or missing == [], "a vacuous simulation: these never happened"


def test_a_seed_replays_exactly() -> None:
    first, second = (simulate(17, timeline=True) for _ in range(2))
    assert first.timeline == second.timeline
    assert first.counts == second.counts


def test_some_seeds_pass_in_this_process() -> None:
    """For the debugger, and for coverage."""
    summary = simulate_many(range(BASE_SEED, BASE_SEED + 100))
    assert summary.failed == []
    assert summary.seeds == 100

"""A short run of the fault harness: a dozen faults on real servers and processes, and the same judgement as a long one."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from fuseline.testing.servers import ServerUnavailable
from tests.fault import verdict
from tests.fault.options import Options
from tests.fault.running import run_world


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("fault harness")
def test_a_dozen_faults_lose_nothing_and_double_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """P1 to P6, while processes are killed, connections closed and rows locked; the seed is printed."""
    seed = secrets.randbelow(1_000_000)
    options = Options(
        seed,
        seconds=35.0,
        topology="single",
        folder=tmp_path,
        faults=12,
        faults_per_minute=30.0,
        runs_per_second=1.0,
        warm_seconds=3.0,
        is_quick=True,
    )
    try:
        result = run_world(options)
    except ServerUnavailable as error:
        pytest.skip(str(error))
    record_property("faults", verdict.line(result))
    assert result["injected"] >= 3  # on a machine that stalls; a dozen else
    assert result["passed"], f"make fault MINUTES=1 TOPOLOGY=single SEED={seed}\n" + "\n".join(
        result["problems"]
    )

"""What it takes to start: imports, the command's help, an idle worker's memory, the size of what is installed."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fuseline.bench.failing import BenchFailedError
from fuseline.bench.systems import Fuseline, Installation, Place, Setting
from tests.bench.scale.axes import READY_SECONDS, Stage
from tests.bench.scale.meters import resident_mb

ROOT: Final = Path(__file__).parents[3]
PROGRAMS: Final[Mapping[str, Sequence[str]]] = {
    "python -c pass": ("-c", "pass"),
    "import pydantic": ("-c", "import pydantic"),
    "from pydantic import BaseModel": ("-c", "from pydantic import BaseModel"),
    "import fuseline": ("-c", "import fuseline"),
    "fuseline --help": ("-m", "fuseline", "--help"),
}
WORKER: Final = "an idle worker"
WHEEL: Final = "the wheel"
_FLOW: Final = """
from fuseline import Workflow, step

@step
def greet(name: str) -> str:
    return f"hello {name}"

flow = Workflow(outputs=[greet], workflow_id="greeting", version="1")
"""


def started(stage: Stage) -> dict[str, dict[str, float]]:
    """Programs in turn, so that what else the machine does meets all alike; then the worker and the wheel."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(stage.plan.starts + 1):
        for name, arguments in PROGRAMS.items():
            taken[name].append(_run(arguments))
    found = {
        name: {
            "wall_ms": 1000 * min(wall for wall, _ in times[1:]),
            "cpu_ms": 1000 * statistics.median(cpu for _, cpu in times[1:]),
        }
        for name, times in taken.items()  # the first one read the files from the disk
    }
    with stage.where() as place:
        setting = Setting(stage.folder, 0, ready_seconds=READY_SECONDS)
        with Fuseline().started(stage.chains, place, setting) as installation:
            found[WORKER] = {"resident_mb": _worker(place, installation)}
    found[WHEEL] = {"kb": _wheel()}
    return found


def _run(arguments: Sequence[str]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _worker(place: Place, installation: Installation) -> float:
    """Megabytes of `fuseline worker` with one small workflow, when it has said that it executes it."""
    with tempfile.TemporaryDirectory(prefix="fuseline-scale-") as folder:
        (Path(folder) / "greeting.py").write_text(_FLOW)
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "fuseline", "worker", "greeting:flow"],
                cwd=folder,
                stderr=output,
                env=os.environ
                | {
                    "FUSELINE_AMQP_URL": place.amqp_url,
                    "FUSELINE_PREFIX": installation.topology.prefix,
                },
            )
        try:
            deadline = time.monotonic() + READY_SECONDS
            while "executes greeting" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchFailedError(f"the worker does not start: {log.read_text()}")
                time.sleep(0.1)
            time.sleep(12.0)  # the first heartbeat is behind it
            return resident_mb(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _wheel() -> float:
    with tempfile.TemporaryDirectory(prefix="fuseline-scale-") as folder:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.stat().st_size / 1000

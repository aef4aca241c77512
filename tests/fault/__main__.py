"""`python -m tests.fault --minutes 20`: faults on real servers and processes; `make fault MINUTES=20`."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
from pathlib import Path

from tests.fault import verdict
from tests.fault.merging import merge
from tests.fault.running import run_world, worlds


def main(arguments: list[str] | None = None) -> int:
    """Run, and return the exit code: 0 when nothing was lost, doubled or hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long faults are injected, in all")
    parser.add_argument("--seed", type=int, default=None, help="a number; drawn and printed by default")
    parser.add_argument("--topology", choices=("single", "cluster", "both"), default="both")
    parser.add_argument("--fusion-hops", type=int, default=0, help="step fusion in the workers; 0 is off")
    parser.add_argument("--build", type=Path, default=Path("build/fault"), help="where the artefacts go")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    fusion = given.fusion_hops
    folder = given.build / (f"{seed}-fused" if fusion else str(seed))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {seed}, {given.minutes:g} minutes, {given.topology}; artefacts in {folder}", flush=True)
    plans = worlds(seed, given.minutes, given.topology, folder, fusion_hops=fusion)
    results = [run_world(options) for options in plans]
    for result in results:
        print(f"{result['topology']}: {verdict.line(result)}")
    command = f"make fault MINUTES={given.minutes:g} SEED={seed} TOPOLOGY={given.topology}"
    whole = merge(results, f"{command} FUSION={fusion}" if fusion else command)
    verdict.save(whole, folder / "result.json")
    print(verdict.line(whole))
    return 0 if whole["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())

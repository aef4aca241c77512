"""`python -m fuseline.testing.simulation`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from fuseline.testing.simulation.plants import PLANTS
from fuseline.testing.simulation.run import Summary, run_seeds, simulate

PROGRESS_SECONDS = 5.0
LISTED = 20


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m fuseline.testing.simulation",
        description="Run Fuseline on simulated machines, with faults, and check what it promises.",
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (default: 1000)")
    parser.add_argument("--base-seed", type=int, metavar="S", help="the first of them (default: by chance)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this one and print its timeline")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with a known bug, which must be found")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run; returns the exit code: 1 when a seed failed."""
    wanted = parse(args)
    if wanted.replay is not None:
        return replay(wanted.replay, wanted.plant)
    base = wanted.base_seed if wanted.base_seed is not None else secrets.randbelow(10**9)
    say(f"base seed {base}")
    started = told = time.monotonic()

    known = 0

    def progress(summary: Summary) -> None:
        nonlocal told, known
        for seed, violations in summary.failed[known:]:
            say(f"seed {seed} failed: {violations[0]}")
        known = len(summary.failed)
        now = time.monotonic()
        if now - told >= PROGRESS_SECONDS:
            told = now
            pace = 60 * summary.seeds / (now - started)
            say(
                f"{summary.seeds:,} of {wanted.seeds:,} seeds, {len(summary.failed)} failed, {pace:,.0f} a minute"
            )

    summary = run_seeds(range(base, base + wanted.seeds), wanted.jobs, wanted.plant, progress)
    tell(summary, time.monotonic() - started, wanted.plant)
    return 1 if summary.failed else 0


def replay(seed: int, plant: str | None) -> int:
    """One seed, with its timeline."""
    if plant is None:
        result = simulate(seed, timeline=True)
    else:
        with PLANTS[plant]():
            result = simulate(seed, timeline=True)
    say(result.timeline)
    for violation in result.violations:
        say(violation)
    say(f"1 seeds, {1 if result.violations else 0} failed")
    return 1 if result.violations else 0


def tell(summary: Summary, seconds: float, plant: str | None) -> None:
    """The figures; the last line is `N seeds, F failed`."""
    for group in ("fault", "seen"):
        names = sorted(name for name in summary.counts if name.startswith(f"{group}: "))
        say(f"{'faults injected' if group == 'fault' else 'faults seen to bite'}:")
        for name in names:
            say(f"  {summary.counts[name]:>9,}  {name.partition(': ')[2]}")
    say(
        f"virtual seconds from the last fault until all was over: p50 {summary.recovery(0.5):.1f}, "
        f"p99 {summary.recovery(0.99):.1f}, most {summary.recovery(1.0):.1f}"
    )
    say(f"{60 * summary.seeds / max(seconds, 1e-9):,.0f} seeds a minute, {seconds:,.1f} s")
    planted = "" if plant is None else f" --plant {plant}"
    for seed, violations in summary.failed[:LISTED]:
        say(f"seed {seed} failed: {violations[0]}")
        say(f"  python -m fuseline.testing.simulation --replay {seed}{planted}")
    if len(summary.failed) > LISTED:
        say(f"and {len(summary.failed) - LISTED} more")
    say(f"{summary.seeds} seeds, {len(summary.failed)} failed")


def say(text: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def with_fixed_hashes() -> NoReturn:
    """Begin again with string hashes that are the same in every process, as sets of strings have an order by them."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    os.execve(
        sys.executable, [sys.executable, "-m", "fuseline.testing.simulation", *sys.argv[1:]], environment
    )


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        with_fixed_hashes()
    sys.exit(main())

"""`python -m tests.fault.planted > build/planted.json`: seeds of the simulation until each planted bug is found."""

from __future__ import annotations

import argparse
import json
import secrets
import sys

from fuseline.testing.simulation import PLANTS, first_failure

MOST_SEEDS = 2_000


def main(arguments: list[str] | None = None) -> int:
    """Print JSON for the page of evidence; 1 when a bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.planted", description=__doc__)
    parser.add_argument("--base-seed", type=int, default=None, help="drawn by default")
    given = parser.parse_args(arguments)
    base = secrets.randbelow(10**9) if given.base_seed is None else given.base_seed
    plants = {}
    for name in sorted(PLANTS):
        found = first_failure(range(base, base + MOST_SEEDS), name)
        plants[name] = None if found is None else {"seeds": found[0], "seed": found[1].seed}
        print(f"{name}: {plants[name]}", file=sys.stderr)
    json.dump({"base_seed": base, "most_seeds": MOST_SEEDS, "plants": plants}, sys.stdout, indent=1)
    print()
    return 0 if all(plants.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

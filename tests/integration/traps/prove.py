"""python -m tests.integration.traps.prove [NAME...]: take each defence out, and see its test fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.traps.defects import DEFECTS, VARIABLE

TESTS = Path(__file__).parents[2]
FAILED = 1
"""What pytest exits with when a test failed (and not: when it could not be run)."""


def notices(name: str) -> bool:
    """Whether the test of this defect fails with it; prints how."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-x", str(TESTS / DEFECTS[name].test)]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, VARIABLE: name},
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    how = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    print(f"{'noticed' if done.returncode == FAILED else 'NOT NOTICED'}: {name}", *how[-4:], sep="\n    ")
    return done.returncode == FAILED


def main() -> int:
    """0 when every defect was noticed."""
    unnoticed = [name for name in sys.argv[1:] or DEFECTS if not notices(name)]
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())

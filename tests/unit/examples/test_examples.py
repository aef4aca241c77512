"""Every example does what its text says, run as its text says."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"

PRINTED = {
    "hello.py": ["HELLO ADA!"],
    "branches.py": [
        "order 1: 20.00 charged; shipped",
        "order 2: invoice over 5000.00 sent; shipped",
    ],
    "retries.py": ["['digested: fetched at attempt 3', None]", "digest: timeout; tidy_up: SUCCEEDED"],
    "fan_out.py": [
        str(sum(i**2 for i in range(20))),
        "in well under the 4 seconds of one after another: True",
    ],
    "custom_policy.py": ["Ada, found at attempt 2", "there is no such person"],
}


def run(name: str, *arguments: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", PRINTED)
def test_it_prints_what_it_should(name: str, tmp_path: Path) -> None:
    assert run(name, cwd=tmp_path) == PRINTED[name]


def test_the_standard_library_report(tmp_path: Path) -> None:
    code = [str(Path(sysconfig.get_path("stdlib"), name)) for name in ("asyncio", "email", "json")]
    (line,) = run("stdlib_report.py", str(tmp_path), *code, cwd=tmp_path)
    files = int(line.split()[0])
    assert files == sum(1 for folder in code for _ in Path(folder).rglob("*.py")) > 50
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_every_example_is_run_and_listed() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == PRINTED.keys() | {"stdlib_report.py"}
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"]({name})" in readme for name in files)

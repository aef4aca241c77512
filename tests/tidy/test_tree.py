"""House rules that a machine can see. What they keep out has cost somebody a day before."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 450

# One letter of each is in brackets, so that this file does not contain what it looks for.
MACHINE_PATHS = re.compile(r"/[w]ork/|/[r]oot/|/[f]arm/|/tmp/[b]ash_jobs|/[h]ome/\w")
REGISTRY_HOSTS = re.compile(r"[p]ypi\.org|[p]ythonhosted|registry\.[n]pmjs|deb\.[d]ebian\.org")


def tracked_texts() -> list[tuple[str, str]]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    texts = []
    for name in listing.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                texts.append((name, content.decode()))
    return texts


def hits(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def imports_inside_functions(source: str) -> list[int]:
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = (node for function in functions for node in ast.walk(function))
    return sorted({node.lineno for node in inside if isinstance(node, ast.Import | ast.ImportFrom)})


def test_the_search_for_imports_finds_them() -> None:
    assert imports_inside_functions(
        "import a\nclass B:\n    async def f(self):\n        if a:\n            import b\n"
    ) == [5]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_inside_a_function(path: Path) -> None:
    """An import inside a function hides a circle between modules, which the layers forbid."""
    assert imports_inside_functions(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long_to_read(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it by what it does"


def test_no_path_of_a_machine() -> None:
    assert hits(MACHINE_PATHS) == []


def test_no_registry_host() -> None:
    """Where packages come from is the machine's business; pins name packages and hashes only."""
    assert hits(REGISTRY_HOSTS) == []


def test_every_pin_has_a_hash() -> None:
    pins = (ROOT / "requirements" / "dev.txt").read_text().replace("\\\n", " ")
    lines = [line for line in pins.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_pins_cover_what_pyproject_asks_for() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*pyproject["project"]["dependencies"]]
    for group in (
        *pyproject["dependency-groups"].values(),
        *pyproject["project"]["optional-dependencies"].values(),
    ):
        asked += [one for one in group if isinstance(one, str)]
    names = {re.split(r"[\[<>=;! ]", one)[0].lower() for one in asked} - {"fuseline"}
    pinned = set(
        re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    )
    assert names - pinned == set(), "run `make pins`"


def test_every_make_target_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    told = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE))
    assert targets == told == phony
    assert {
        "help",
        "demo",
        "demo-rabbitmq",
        "test",
        "check",
        "fmt",
        "fault",
        "bench",
        "docs",
        "clean",
    } <= targets


def test_help_lists_every_target() -> None:
    printed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE):
        assert target in printed.stdout

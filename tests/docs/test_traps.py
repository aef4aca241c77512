"""The page of known traps names tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "operations" / "traps.md").read_text()
ROWS = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| trap "))
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^(?:    )?(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_trap_has_a_test_that_was_seen_to_fail() -> None:
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 5, row
        assert all(cells), row
        assert re.search(r"`tests/[\w/]+\.py::\w+", cells[2]), row

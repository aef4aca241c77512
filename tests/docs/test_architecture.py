"""The pages that walk through the code name files that are there."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import ROOT

SOURCE = ROOT / "src" / "fuseline"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
    "layers"
]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[a-z_]+/)?[a-z_]+\.py)`", PAGE))))
def test_a_file_that_is_named_exists(name: str) -> None:
    assert (SOURCE / name).is_file()


def test_the_table_of_rooms_has_every_layer() -> None:
    rooms = {name for layer in LAYERS for name in re.findall(r"[a-z_]+", layer)} - {"__main__"}
    told = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    assert {name for line in told for name in re.findall(r"[a-z]+", line)} == rooms


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "index.md").read_text()
    assert [path.name for path in folder.glob("[0-9]*.md") if f"({path.name})" not in index] == []

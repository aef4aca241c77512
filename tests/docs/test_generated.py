"""What is made from the code is up to date, so that the documentation cannot drift from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import generate


@pytest.mark.parametrize(
    "path", sorted(generate.wanted()), ids=lambda path: str(path.relative_to(generate.ROOT))
)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    assert path.exists(), "run scripts/generate.py"
    assert path.read_text() == generate.wanted()[path], "run scripts/generate.py"


def test_every_part_is_used_somewhere() -> None:
    pages = "".join(path.read_text() for path in generate.wanted() if path.suffix == ".md")
    assert {name for name in generate.REGIONS if f"<!-- generated: {name} -->" not in pages} == set()


def test_a_region_is_written_anew_and_nothing_else() -> None:
    page = f"before\n<!-- generated: settings -->\nwhat was here\n{generate.END}\nafter\n"
    new = generate.with_regions(page)
    assert new.startswith("before\n<!-- generated: settings -->\n| variable |")
    assert new.endswith(f"{generate.END}\nafter\n")
    assert "what was here" not in new
    assert generate.with_regions(new) == new


def test_a_region_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        generate.with_regions(f"<!-- generated: nonsense -->\n{generate.END}\n")


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert generate.table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |\n"

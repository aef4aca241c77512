"""Parts of pages that are written by what was measured: each between two marks."""

from __future__ import annotations

from pathlib import Path


def marks(name: str) -> tuple[str, str]:
    """Where the part begins and ends."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def write(page: Path, name: str, text: str) -> None:
    """Put it there, and leave what people wrote around it. Raises `SystemExit` where a page has no such marks."""
    begin, end = marks(name)
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{page} has no {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")

"""The page on the database tells all of its tables, and has people type nothing that would change them by hand."""

from __future__ import annotations

import re

from fuseline.storage.sql.tables import VERSION_TABLE, metadata
from tests.docs.pages import ROOT, read_page

PAGE = ROOT / "docs" / "operations" / "database.md"


def test_every_table_is_told() -> None:
    told = set(re.findall(r"^\| `(fuseline_[a-z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert told == {*metadata.tables, VERSION_TABLE}


def test_no_table_is_changed_by_hand() -> None:
    statements = [snippet.text for snippet in read_page(PAGE) if snippet.language == "sql"]
    assert statements
    assert not [text for text in statements if re.search(r"\b(DELETE|UPDATE|INSERT|ALTER)\b", text)]

"""What is written as an array's literal is what PostgreSQL reads from it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from contextlib import closing
from random import Random
from typing import Any

import psycopg
import pytest

from fuseline.errors import CallerError
from fuseline.storage.sql.arrays import to_array

AWKWARD = [
    "",
    " ",
    " a b ",
    "null",
    "NULL",
    "true",
    "NaN",
    "Infinity",
    "{",
    "}",
    "{}",
    "[1, 2]",
    ",",
    "a,b",
    '"',
    '""',
    "\\",
    "\\\\",
    '\\"',
    "\\n",
    "\n",
    "\t\r\b\f\x1b\x7f",
    "\\\n",
    "\\u0041",
    '{"a": "\\"\\n\\u00fc"}',
    "ü",
    "\u2028",
    "🧵",
    "'",
    "$1",
    "%s",
]


def read_back(url: str, kind: str, values: Sequence[Any]) -> list[Any]:
    literal = to_array(values)
    text = literal.decode("ascii") if isinstance(literal, bytes) else literal
    with closing(psycopg.connect(url)) as connection:
        row = connection.execute(f"SELECT %s::{kind}[]", (text,)).fetchone()
    assert row is not None
    return list(row[0])


def test_texts_come_back_as_they_are(postgres_url: str) -> None:
    values = [*AWKWARD, None]
    assert read_back(postgres_url, "text", values) == values


@pytest.mark.parametrize("text", AWKWARD)
def test_a_text_comes_back_alone_and_after_another(postgres_url: str, text: str) -> None:
    """One that has to be written down in another way is not found by what lies beside it."""
    assert read_back(postgres_url, "text", [text]) == [text]
    assert read_back(postgres_url, "text", ['a "b" \\ c', text]) == ['a "b" \\ c', text]


def test_texts_at_random_come_back(postgres_url: str) -> None:
    random = Random(4)
    letters = string.printable + '\\\\\\"""{}' + "ü🧵"
    for _ in range(200):
        values = [
            "".join(random.choices(letters, k=random.randrange(8))) for _ in range(random.randrange(1, 6))
        ]
        assert read_back(postgres_url, "text", values) == values


def test_numbers_come_back_as_they_are(postgres_url: str) -> None:
    times = [1764000000.25, 0.1 + 0.2, -0.0, 1e22, 5e-324, 1.7976931348623157e308, None]
    assert read_back(postgres_url, "double precision", times) == times
    assert read_back(postgres_url, "integer", [0, -1, 2**31 - 1, None]) == [0, -1, 2**31 - 1, None]
    assert read_back(postgres_url, "boolean", [True, False, None]) == [True, False, None]


def test_a_list_of_nothing_comes_back(postgres_url: str) -> None:
    assert read_back(postgres_url, "text", []) == []


@pytest.mark.parametrize("beside", [None, "a", "ü", "a\nb"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float, beside: str | None) -> None:
    """P7: PostgreSQL would take it, and JSON has none for who reads it."""
    with pytest.raises(CallerError, match="cannot hold: it is not finite"):
        to_array([beside, number])


def test_what_is_plain_is_ready_to_be_sent() -> None:
    """A result is JSON in ASCII: whatever is in it, nothing has to be looked at letter by letter."""
    assert (
        to_array(['{"a": "\\u00fc\\n"}', "NaN", None, 1.5])
        == b'{"{\\"a\\": \\"\\\\u00fc\\\\n\\"}","NaN",null,1.5}'
    )

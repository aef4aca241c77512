"""What is written as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.errors import CallerError
from fuseline.storage.sql.rows import MAX_NESTING, dumps, loads


def nested(depth: int, core: Any = 0) -> Any:
    for _ in range(depth):
        core = [core]
    return core


def test_json_is_ascii_without_spaces() -> None:
    assert dumps({"ü": ["\0", "\ud800"], "b": 1.5}) == '{"\\u00fc":["\\u0000","\\ud800"],"b":1.5}'


def test_only_what_nests_too_deep_is_refused() -> None:
    assert loads(dumps(nested(MAX_NESTING))) == nested(MAX_NESTING)
    with pytest.raises(CallerError, match="nests deeper than 500"):
        dumps(nested(MAX_NESTING + 1))
    with pytest.raises(CallerError, match="nests deeper than 500"):
        dumps(nested(100_000))


def test_brackets_side_by_side_or_in_texts_do_not_count() -> None:
    values: list[Any] = [[[]] * 1000, ["[[{" * 1000], ['\\"[' * 1000], [{"a": {}}] * 600]
    for value in values:
        assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("-inf"), {1}, {(1, 2): 3}, 10**5000],
    ids=["nan", "inf", "set", "tuple", "huge"],
)
def test_what_json_cannot_express_is_refused(value: Any) -> None:
    with pytest.raises(CallerError, match="not JSON"):
        dumps(value)


def test_what_refers_to_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(CallerError, match="nests deeper than 500"):
        dumps(value)

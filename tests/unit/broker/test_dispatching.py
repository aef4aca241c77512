"""Many runs as commands of bounded size."""

from __future__ import annotations

import pytest

from fuseline.broker.dispatching import BYTES_AT_ONCE, RUNS_AT_ONCE, runs_at_once
from fuseline.errors import CallerError, InvalidInputsError, InvalidSchemaError
from fuseline.testing.flows import graph

SCHEMA = graph("many", {"a": []})


def ids(count: int) -> list[str]:
    return [f"run-{number}" for number in range(count)]


def test_a_command_holds_a_bounded_number_of_runs() -> None:
    """P6."""
    count = 2 * RUNS_AT_ONCE + 1
    parts = runs_at_once(SCHEMA, [{"n": number} for number in range(count)], ids(count))
    assert [len(part) for part in parts] == [RUNS_AT_ONCE, RUNS_AT_ONCE, 1]
    assert [run for part in parts for run in part] == [(f"run-{n}", {"n": n}) for n in range(count)]


def test_a_command_holds_a_bounded_size_of_inputs() -> None:
    """P6: one run's alone may be larger, for it cannot be cut."""
    half, large = {"text": "x" * (BYTES_AT_ONCE // 2)}, {"text": "x" * (2 * BYTES_AT_ONCE)}
    parts = runs_at_once(SCHEMA, [half, None, large, half, None], ids(5))
    assert [[run for run, _ in part] for part in parts] == [["run-0", "run-1"], ["run-2"], ["run-3", "run-4"]]


def test_which_run_is_wrong_and_where_is_said() -> None:
    """P7."""
    with pytest.raises(InvalidInputsError, match=r"run 1 of 2: .*deep\[0\]"):
        runs_at_once(SCHEMA, [{}, {"deep": [object()]}], ids(2))


def test_each_run_has_an_id() -> None:
    with pytest.raises(CallerError, match="2 inputs and 1 instance ids"):
        runs_at_once(SCHEMA, [{}, {}], ids(1))


@pytest.mark.parametrize("wrong", ["", " ", "line\n", "x" * 121])
def test_an_id_that_can_be_none_is_named_before_anything_is_sent(wrong: str) -> None:
    """P7: a coordinator would say so when those before it have begun, and name its place in its command."""
    count = 2 * RUNS_AT_ONCE
    with pytest.raises(InvalidSchemaError, match=f"run {count} of {count + 1}: instance_id"):
        runs_at_once(SCHEMA, [None] * (count + 1), [*ids(count), wrong])

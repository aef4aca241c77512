"""Many runs as commands of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from fuseline.amqp.codec import MAX_NESTING, UNBOUNDED, encode
from fuseline.amqp.wire import Command, read
from fuseline.broker.dispatching import BYTES_AT_ONCE, RUNS_AT_ONCE, checked_inputs, runs_at_once
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


def nested(levels: int) -> dict[str, Any]:
    """Inputs that nest so deep."""
    value: Any = 0
    for _ in range(levels - 1):
        value = [value]
    return {"deep": value}


@pytest.mark.parametrize("beside", [{}, {"text": "x" * BYTES_AT_ONCE}], ids=["together", "one by one"])
def test_inputs_nest_as_deep_as_their_command_can_be_read(beside: dict[str, Any]) -> None:
    """P7: what lies around them counts too, and the coordinator could not say which run it was."""
    deepest = MAX_NESTING - 4
    (*_, part) = runs_at_once(SCHEMA, [beside, nested(deepest)], ids(2))
    body = encode(Command(name="dispatch_many", args={"runs": part}), nesting=UNBOUNDED)
    assert read(Command, body).args["runs"][-1] == ["run-1", nested(deepest)]
    with pytest.raises(InvalidInputsError, match=r"run 1 of 2: inputs of workflow 'many'.*recursion limit"):
        runs_at_once(SCHEMA, [beside, nested(deepest + 1)], ids(2))


def test_inputs_that_are_looked_at_together_come_out_as_one_by_one() -> None:
    given: list[Any] = [{"n": 1, "when": date(2026, 1, 2)}, None, {"t": (1, None, 2.5, "ü")}, {}]
    (together,) = runs_at_once(SCHEMA, given, ids(4))
    alone = [run for one, i in zip(given, ids(4), strict=True) for (run,) in runs_at_once(SCHEMA, [one], [i])]
    assert together == alone
    assert together[0] == ("run-0", {"n": 1, "when": "2026-01-02"})


@pytest.mark.parametrize("wrong", [[1], {"n": float("nan")}, {"n": "\ud800"}, {"n": float("inf")}])
def test_one_of_many_that_is_wrong_is_named(wrong: Any) -> None:
    """P7."""
    with pytest.raises(InvalidInputsError, match="run 2 of 4: "):
        runs_at_once(SCHEMA, [{}, {}, wrong, {}], ids(4))


@pytest.mark.parametrize("beside", ["", "x" * BYTES_AT_ONCE], ids=["small", "large"])
@pytest.mark.parametrize("lazy", [lambda: (n for n in (1, 2, 3)), lambda: map(int, "123")])
def test_what_is_there_once_is_taken_once(beside: str, lazy: Callable[[], Any]) -> None:
    """P7: they would begin with empty lists, and nobody would know."""
    inputs: list[Any] = [{"rows": lazy(), "beside": beside} for _ in range(2)]
    runs = [run for part in runs_at_once(SCHEMA, inputs, ids(2)) for run in part]
    assert [given["rows"] for _, given in runs] == [[1, 2, 3]] * 2


def test_any_sequence_will_do() -> None:
    runs: Any = deque([{}, {"n": 1}])
    ((_, second),) = runs_at_once(SCHEMA, runs, ids(2))
    assert second == ("run-1", {"n": 1})


def test_one_run_may_nest_as_deep_as_its_own_command_can_be_read() -> None:
    deepest = MAX_NESTING - 2
    args = {"instance_id": "i", "inputs": checked_inputs(SCHEMA, nested(deepest))}
    assert read(Command, encode(Command(name="dispatch", args=args))).args == args
    with pytest.raises(InvalidInputsError, match="recursion limit"):
        checked_inputs(SCHEMA, nested(deepest + 1))

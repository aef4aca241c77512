"""Names of steps: given, or the function's or class's in snake_case, unique, and independent of position."""

from __future__ import annotations

import itertools

import pytest

from fuseline import Depends, FunctionStep, InvalidSchemaError, Step, Workflow, step
from fuseline.workflow.naming import Naming, Origin, snake_case, unique_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fetch", "fetch"),
        ("FetchPage", "fetch_page"),
        ("HTTPServer", "http_server"),
        ("ParseHTML", "parse_html"),
        ("parse2HTML", "parse2_html"),
        ("_private", "private"),
        ("<lambda>", "lambda"),
        ("prüfe", "prüfe"),
        ("__", "step"),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_a_step_is_named_by_name_or_after_its_function_or_class() -> None:
    @step(name="Any Name, really")
    def given() -> int:
        return 1

    @step
    def fetchPage() -> int:  # noqa: N802 - its name is what is tested
        return 2

    class ParsePage(Step):
        def run_step(self) -> int:
            return 3

    workflow = Workflow(outputs=[given, fetchPage, ParsePage])
    assert list(workflow.outputs) == ["Any Name, really", "fetch_page", "parse_page"]


def load(name: str) -> Step:
    @step
    def work() -> str:
        return name

    return work


def names(*steps: Step) -> dict[str, str]:
    """Name by what the step returns."""
    workflow = Workflow(outputs=list(steps))
    values = workflow.run()
    return dict(zip(values if isinstance(values, list) else [values], workflow.outputs, strict=True))


def test_names_are_unique_within_the_workflow() -> None:
    a, b, c = load("a"), load("b"), load("c")
    assert names(a, b, c) == {"a": "work", "b": "work_2", "c": "work_3"}


def test_names_do_not_depend_on_position() -> None:
    steps = [load("a"), load("b"), load("c")]
    expected = names(*steps)
    for order in itertools.permutations(steps):
        assert names(*order) == expected


def test_adding_a_step_renames_no_other() -> None:
    a, b = load("a"), load("b")
    before = names(a, b)

    @step
    def other() -> str:
        return "other"

    added = load("c")
    other >> a
    after = names(a, b, other, added)
    assert before.items() <= after.items()


def test_steps_of_one_name_are_named_after_their_modules_or_surroundings_too() -> None:
    def naming(module: str, qualname: str, number: int = 0, explicit: str | None = None) -> Naming:
        return Naming(explicit, "load", Origin(module, qualname, 1, number))

    expected = {
        naming("other.users", "load", 4): "load",
        naming("other.users", "load", 5): "load_2",
        naming("shop.orders", "load"): "orders_load",
        naming("shop.orders", "outer.<locals>.load"): "shop_orders_load",
        naming("shop.users", "load"): "users_load",
    }
    for order in itertools.permutations(expected):
        assert dict(zip(order, unique_names(order), strict=True)) == expected


def test_a_given_name_is_kept_and_one_that_is_not_given_makes_way() -> None:
    @step(name="work")
    def given() -> str:
        return "given"

    assert names(load("auto"), given) == {"given": "work", "auto": "load_work"}


def test_two_steps_that_were_given_one_name_are_refused() -> None:
    @step(name="same")
    def one() -> int:
        return 1

    @step(name="same")
    def two() -> int:
        return 1

    with pytest.raises(InvalidSchemaError, match="two steps are named 'same'"):
        Workflow(outputs=[one, two])


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "is empty"), ("a[1]", "bracket"), ("a\nb", "control character"), ("x" * 121, "over 120 bytes")],
)
def test_a_name_that_cannot_be_one_is_refused_where_it_is_given(name: str, problem: str) -> None:
    with pytest.raises(InvalidSchemaError, match=problem):
        step(name=name)(lambda: 1)


def test_a_callable_object_is_named_after_its_class() -> None:
    class ReadFile:
        def __call__(self) -> int:
            return 1

    def after(n: int = Depends(ReadFile())) -> int:
        return n

    assert set(Workflow(outputs=[after]).steps) == {"read_file", "after"}
    assert repr(FunctionStep(after)) == "<step after>"
    assert repr(step(name="x")(after)) == "<step x>"

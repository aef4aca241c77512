"""Where the values of parameters come from, and how annotations convert and check them."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from fuseline import (
    Branch,
    Computed,
    Depends,
    InvalidInputsError,
    InvalidSchemaError,
    RetryPolicy,
    RunFailed,
    Step,
    StepContext,
    TriggerPolicy,
    Workflow,
    step,
    workflow_from_functions,
)
from fuseline.model import Cause

if TYPE_CHECKING:
    from fractions import Fraction


class Page(BaseModel):
    url: str
    words: int


@dataclass
class Report:
    title: str
    pages: list[Page]


def failure(workflow: Workflow, inputs: dict[str, Any] | None = None) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        workflow.run(inputs)
    return caught.value


# ---- Depends


def test_a_parameter_whose_default_is_depends_receives_the_result_of_a_step_a_function_or_a_class() -> None:
    @step
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    class Three(Step):
        def run_step(self) -> int:
            return 3

    @step
    def total(a: int = Depends(one), b: int = Depends(two), c: int = Depends(Three)) -> list[int]:
        return [a, b, c]

    assert Workflow(outputs=[total]).run() == [1, 2, 3]


def test_a_plain_function_or_a_class_becomes_one_step_of_the_workflow_however_many_depend_on_it() -> None:
    calls: list[str] = []

    def source() -> int:
        calls.append("source")
        return 1

    class Other(Step):
        def run_step(self) -> int:
            calls.append("other")
            return 2

    def left(x: int = Depends(source), y: int = Depends(Other)) -> int:
        return x + y

    def right(x: int = Depends(source), y: int = Depends(Other)) -> int:
        return x * y

    workflow = Workflow(outputs=[left, right])
    assert workflow.run() == [3, 2]
    assert sorted(calls) == ["other", "source"]
    assert set(workflow.steps) == {"source", "other", "left", "right"}


@pytest.mark.parametrize("as_list", [False, True])
def test_depends_on_several_is_an_or_group_supplied_by_the_one_that_was_taken(as_list: bool) -> None:
    @step
    def judge(score: int) -> Branch:
        return Branch("high" if score > 5 else "low", score)

    @step
    def praise(score: int = Depends(judge)) -> str:
        return f"praise {score}"

    @step
    def comfort(score: int = Depends(judge)) -> str:
        return f"comfort {score}"

    (judge - "high") >> praise
    (judge - "low") >> comfort

    @step
    def say(words: str = Depends([praise, comfort]) if as_list else Depends(praise, comfort)) -> str:
        return words

    workflow = Workflow(outputs=[say])
    assert workflow.to_schema().steps["say"].or_groups == {"words": ["praise", "comfort"]}
    assert workflow.run({"score": 9}) == "praise 9"
    assert workflow.run({"score": 1}) == "comfort 1"


def test_an_or_group_starts_with_the_first_that_finishes() -> None:
    started: list[str] = []

    @step
    async def quick() -> str:
        return "quick"

    @step
    def slow(ctx: StepContext) -> str:
        ctx.wait_cancelled(20)
        return "slow"

    @step
    def first(value: str = Depends(slow, quick)) -> str:
        started.append(value)
        raise ValueError("ends the run, and with it the slow one")

    assert failure(Workflow(outputs=[first])).step == "first"
    assert started == ["quick"]


def test_depends_says_what_is_wrong_with_its_arguments() -> None:
    with pytest.raises(TypeError, match="needs a step"):
        Depends()
    with pytest.raises(TypeError, match="'fetch' is no step"):
        Depends("fetch")  # type: ignore[arg-type]  # what a user does by mistake
    with pytest.raises(TypeError, match="is no step"):
        Depends(int)
    with pytest.raises(TypeError, match="a condition is a Condition or a callable"):
        Depends(print, condition=3)  # type: ignore[arg-type]  # what a user does by mistake


def test_computed_is_an_annotation_that_means_its_argument() -> None:
    def one() -> str:
        return "1"

    def plus(n: Computed[int] = Depends(one)) -> int:
        return n + 1

    assert workflow_from_functions(outputs=[plus]).run() == 2


def test_without_a_value_a_parameter_is_none() -> None:
    @step
    def never() -> int:
        return 1

    @step
    def skipped(n: int = Depends(never, condition=lambda _n: False)) -> int:
        return n

    @step
    def after(n: int | None = Depends(skipped), m: int = Depends(skipped)) -> list[Any]:
        return [n, m]

    assert Workflow(outputs=[after]).run() == [None, None]


def test_without_a_value_a_parameter_of_a_declared_default_has_that() -> None:
    @step
    def skipped(n: int = Depends(lambda: 1, condition=lambda _n: False)) -> int:
        return n

    @step
    def after(n: Annotated[int, Depends(skipped)] = 7) -> int:
        return n

    assert Workflow(outputs=[after]).run() == 7


def test_the_annotated_form_depends_like_the_other() -> None:
    def one() -> int:
        return 1

    @step
    def plus(n: Annotated[int, Depends(one)]) -> int:
        return n + 1

    assert Workflow(outputs=[plus]).run() == 2


def test_a_failed_requirement_of_a_cleanup_step_supplies_none() -> None:
    seen: list[Any] = []

    @step
    def fails() -> int:
        raise ValueError("of no use")

    @step(policies=[TriggerPolicy("all_done")])
    def clean_up(n: int | None = Depends(fails)) -> None:
        seen.append(n)

    assert failure(Workflow(outputs=[clean_up])).step == "fails"
    assert seen == [None]


# ---- inputs


def test_other_parameters_are_taken_from_the_inputs_by_name() -> None:
    @step
    def first(a: int, b: str = "default") -> str:
        return f"{a} {b}"

    @step
    def second(a: int, /, text: str = Depends(first), *, b: str = "other") -> str:
        return f"{text}, {a} {b}"

    workflow = Workflow(outputs=[second])
    assert workflow.run({"a": 1}) == "1 default, 1 other"
    assert workflow.run({"a": 1, "b": "x"}) == "1 x, 1 x"


def test_a_function_may_take_all_inputs_that_no_other_parameter_takes() -> None:
    @step
    def everything(a: int, **rest: int) -> dict[str, int]:
        return {"a": a, **rest}

    workflow = Workflow(outputs=[everything])
    assert workflow.run({"a": 1, "b": "2"}) == {"a": 1, "b": 2}
    assert "additionalProperties" not in (workflow.to_schema().inputs_schema or {})


def test_a_parameter_without_a_name_to_take_a_value_by_is_refused() -> None:
    def strange(*values: int) -> int:
        return sum(values)

    with pytest.raises(InvalidSchemaError, match=r"step 'strange': parameter 'values': \*values"):
        Workflow(outputs=[strange])


# ---- conversion


class Colour(Enum):
    RED = "red"


class Row(TypedDict):
    id: int


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    day: dt.date
    pair: tuple[int, int]


class Aliased(BaseModel):
    camel_case: int = Field(alias="camelCase")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Page, Page(url="a", words=1)),
        (Report, Report("t", [Page(url="a", words=1)])),
        (Colour, Colour.RED),
        (Path, Path("a/b")),
        (Decimal, Decimal("1.50")),
        (dt.datetime, dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)),
        (dt.timedelta, dt.timedelta(seconds=3)),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (dict[int, Page], {3: Page(url="a", words=1)}),
        (bytes, b"abc"),
        (Row, {"id": 1}),
        (Strict, Strict(day=dt.date(2024, 5, 1), pair=(1, 2))),
        (Aliased, Aliased(camelCase=3)),
        (Page | None, None),
        (Literal["a", "b"], "b"),
        (int | str, "7"),
        (list[Any], [1, {"a": None}]),
    ],
    ids=str,
)
def test_results_travel_as_json_and_come_out_by_annotation(annotation: Any, value: Any) -> None:
    received: list[Any] = []

    def source():  # type: ignore[no-untyped-def]  # its annotation is set below
        return value

    def target(x):  # type: ignore[no-untyped-def]  # as above
        received.append(x)
        return x

    source.__annotations__ = {"return": annotation}
    target.__annotations__ = {"x": annotation, "return": annotation}
    target.__defaults__ = (Depends(source),)
    assert Workflow(outputs=[target]).run() == value
    assert received == [value]
    assert type(received[0]) is type(value)


def test_a_model_is_supplied_to_whoever_wants_plain_json() -> None:
    def source() -> Page:
        return Page(url="a", words=1)

    def target(page: dict[str, Any] = Depends(source)) -> object:
        return page

    assert Workflow(outputs=[target]).run() == {"url": "a", "words": 1}


def test_the_value_of_an_output_is_what_its_annotation_wants() -> None:
    def untyped():  # type: ignore[no-untyped-def]  # without an annotation it is JSON
        return Page(url="a", words=1)

    def typed() -> Page:
        return Page(url="a", words=1)

    assert Workflow(outputs=[typed]).run() == Page(url="a", words=1)
    assert Workflow(outputs=[untyped]).run() == {"url": "a", "words": 1}


def test_a_result_is_converted_by_its_annotation() -> None:
    def lazy() -> list[int]:
        return (n * n for n in range(4))  # type: ignore[return-value]  # pydantic makes the list

    def target(numbers: Any = Depends(lazy)) -> object:
        return numbers

    assert Workflow(outputs=[target]).run() == [0, 1, 4, 9]


def test_a_mismatch_fails_the_step_with_an_error_that_names_the_parameter_and_the_place() -> None:
    def source():  # type: ignore[no-untyped-def]  # so that nothing is said about it
        return {"title": "t", "pages": [{"url": "a", "words": 1}, {"url": "b", "words": "many"}]}

    def target(report: Report = Depends(source)) -> str:
        return report.title

    failed = failure(Workflow(outputs=[target]))
    assert failed.step == "target"
    assert "step 'target': parameter 'report' (of step 'source'): pages[1].words: Input should be" in str(
        failed
    )
    view: Any = failed.run
    assert view.steps["target"].error.cause is Cause.INVALID


def test_a_mismatch_is_not_tried_again() -> None:
    started: list[int] = []

    def source() -> str:
        return "many"

    @step(policies=[RetryPolicy(3)])
    def target(n: int = Depends(source)) -> int:
        started.append(n)
        return n

    view: Any = failure(Workflow(outputs=[target])).run
    assert view.steps["target"].attempt == 1
    assert started == []


def test_inputs_are_converted_too_and_a_mismatch_is_named_before_anything_is_done() -> None:
    calls: list[int] = []

    @step
    def describe(url: str, limit: int = 10) -> str:
        calls.append(limit)
        return f"{url} {limit}"

    workflow = Workflow(outputs=[describe], workflow_id="pages")
    assert workflow.run({"url": "a", "limit": "7"}) == "a 7"
    with pytest.raises(
        InvalidInputsError, match="workflow 'pages': input 'limit': Input should be a valid integer"
    ):
        workflow.run({"url": "a", "limit": "many"})
    with pytest.raises(InvalidInputsError, match=r"input 'url' is missing \(step 'describe'\)"):
        workflow.run({})
    with pytest.raises(InvalidInputsError, match=r"input 'limt' is unknown \(known: limit, url\)"):
        workflow.run({"url": "a", "limt": 7})
    with pytest.raises(InvalidInputsError, match="are not an object"):
        workflow.run([1])  # type: ignore[arg-type]  # what a user does by mistake
    with pytest.raises(InvalidInputsError, match="the name of an input is a string, not 1"):
        workflow.run({1: 2})  # type: ignore[dict-item]  # what a user does by mistake
    with pytest.raises(InvalidInputsError, match=r"input 'url' is of type object, which has no JSON form"):
        workflow.run({"url": object()})
    assert calls == [7]


def test_inputs_may_be_objects_that_have_a_json_form() -> None:
    @step
    def describe(page: Page, day: dt.date, where: Path) -> str:
        return f"{page.url} {day.year} {where.name}"

    inputs = {"page": Page(url="a", words=1), "day": dt.date(2024, 5, 1), "where": Path("x/y")}
    assert Workflow(outputs=[describe]).run(inputs) == "a 2024 y"


# ---- annotations


def test_annotations_may_name_what_is_defined_around_the_step() -> None:
    class Local(BaseModel):
        n: int

    @step
    def source() -> Local:
        return Local(n=3)

    class Target(Step):
        def run_step(self, x: Local = Depends(source)) -> int:
            return x.n

    assert Workflow(outputs=[Target]).run() == 3


def test_an_annotation_that_cannot_be_resolved_is_named_when_the_workflow_is_made() -> None:
    @step
    def half(x: Fraction) -> str:
        return str(x / 2)

    with pytest.raises(
        InvalidSchemaError, match="step 'half': parameter 'x': its annotation 'Fraction' cannot be resolved"
    ):
        Workflow(outputs=[half])


def test_a_type_that_no_json_can_become_is_named_when_the_workflow_is_made() -> None:
    class Connection:
        pass

    @step
    def query(connection: Connection) -> int:
        return 1

    with pytest.raises(
        InvalidSchemaError, match="step 'query': parameter 'connection': no JSON value can become"
    ):
        Workflow(outputs=[query])


def test_decorated_functions_keep_their_annotations() -> None:
    def loud(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return function(*args, **kwargs).upper()

        return wrapper

    @step
    @loud
    def shout(page: Page) -> str:
        return page.url

    assert Workflow(outputs=[shout]).run({"page": {"url": "a", "words": 1}}) == "A"

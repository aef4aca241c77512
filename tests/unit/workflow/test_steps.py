"""Steps: functions and classes, plain and async, with hooks; definitions that executing never changes."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, assert_type

import pytest

from fuseline import Depends, FunctionStep, InvalidSchemaError, RunFailed, Step, Workflow, step
from fuseline.errors import PolicyError
from fuseline.workflow import RetryPolicy, StepPolicy


def test_a_step_is_a_function_under_the_decorator() -> None:
    @step
    def fetch(url: str) -> str:
        return f"page of {url}"

    @step(name="words", policies=[RetryPolicy(2)], description="Counts")
    def count(page: str = Depends(fetch)) -> int:
        return len(page.split())

    workflow = Workflow(outputs=[count])
    assert workflow.run({"url": "a"}) == 3
    schema = workflow.to_schema().steps["words"]
    assert [policy.name for policy in schema.policies] == ["retry"]
    assert schema.description == "Counts"


def test_a_decorated_function_can_still_be_called_and_keeps_its_types() -> None:
    @step
    def fetch(url: str) -> str:
        """Get a page."""
        return f"page of {url}"

    assert assert_type(fetch("a"), str) == "page of a"
    assert isinstance(fetch, FunctionStep)
    assert fetch.__doc__ == "Get a page."
    assert vars(fetch)["__name__"] == "fetch"


def test_a_step_is_a_class_with_run_step() -> None:
    @step
    def fetch() -> str:
        return "a b"

    class Parse(Step):
        """Split it.

        And more that is not the summary.
        """

        def run_step(self, page: str = Depends(fetch)) -> list[str]:
            return page.split()

    workflow = Workflow(outputs=[Parse])
    assert workflow.run() == ["a", "b"]
    assert workflow.to_schema().steps["parse"].description == "Split it."


def test_a_class_may_be_configured_by_attributes_and_by_arguments() -> None:
    class Parse(Step):
        name = "parser"
        policies = (RetryPolicy(4),)
        description = "of the class"

        def run_step(self) -> int:
            return 1

    class Other(Step):
        def __init__(self, answer: int) -> None:  # does not call Step.__init__
            self.answer = answer

        def run_step(self) -> int:
            return self.answer

    schema = Workflow(outputs=[Parse, Parse(name="second", policies=[], description="mine"), Other(7)])
    steps = schema.to_schema().steps
    assert set(steps) == {"parser", "second", "other"}
    assert steps["parser"].policies[0].config["max_retries"] == 4
    assert steps["parser"].description == "of the class"
    assert steps["second"].policies == []
    assert steps["second"].description == "mine"
    assert schema.run() == [1, 1, 7]


def test_bodies_may_be_plain_or_async() -> None:
    @step
    def plain() -> str:
        return threading.current_thread().name

    @step
    async def waiting(name: str = Depends(plain)) -> list[str]:
        await asyncio.sleep(0)
        return [name, threading.current_thread().name]

    class Waiting(Step):
        async def run_step(self, names: list[str] = Depends(waiting)) -> int:
            await asyncio.sleep(0)
            return len(names)

    assert Workflow(outputs=[Waiting]).run() == 2


def hooked(is_async: bool) -> tuple[type[Step], list[str]]:
    calls: list[str] = []

    class Plain(Step):
        def before_all(self, shared: dict[str, Any]) -> None:
            calls.append("before_all")
            shared["number"] = 1

        def setup(self, shared: dict[str, Any]) -> str:
            calls.append("setup")
            return f"resource {shared['number']}"

        def run_step(self, setup_res):  # type: ignore[no-untyped-def]  # what receives the value of setup has no types
            calls.append(f"run {setup_res}")
            return "result"

        def teardown(self, shared: dict[str, Any], setup_result: str, result: str) -> None:
            calls.append(f"teardown {setup_result} {result}")

        def after_all(self, shared: dict[str, Any]) -> None:
            calls.append(f"after_all {shared['number']}")

    class Async(Step):
        async def before_all(self, shared: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            calls.append("before_all")
            shared["number"] = 1

        async def setup(self, shared: dict[str, Any]) -> str:
            await asyncio.sleep(0)
            calls.append("setup")
            return f"resource {shared['number']}"

        async def run_step(self, setup_res):  # type: ignore[no-untyped-def]  # as above
            await asyncio.sleep(0)
            calls.append(f"run {setup_res}")
            return "result"

        async def teardown(self, shared: dict[str, Any], setup_result: str, result: str) -> None:
            await asyncio.sleep(0)
            calls.append(f"teardown {setup_result} {result}")

        async def after_all(self, shared: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            calls.append(f"after_all {shared['number']}")

    return (Async if is_async else Plain), calls


@pytest.mark.parametrize("is_async", [False, True])
def test_class_hooks_go_around_run_step_which_receives_what_setup_returned(is_async: bool) -> None:
    kind, calls = hooked(is_async)
    assert Workflow(outputs=[kind]).run() == "result"
    assert calls == [
        "before_all",
        "setup",
        "run resource 1",
        "teardown resource 1 result",
        "after_all 1",
    ]


def test_hooks_may_be_async_around_a_plain_body_which_then_blocks_no_loop() -> None:
    threads: list[threading.Thread] = []

    class Mixed(Step):
        async def setup(self, shared: dict[str, Any]) -> str:
            threads.append(threading.current_thread())
            return "resource"

        def run_step(self, resource):  # type: ignore[no-untyped-def]  # as above
            threads.append(threading.current_thread())
            return resource

    assert Workflow(outputs=[Mixed]).run() == "resource"
    assert threads[0] is not threads[1]


def test_a_plain_body_among_async_hooks_that_runs_out_of_items_fails() -> None:
    """P1: asyncio keeps no StopIteration, and the run waited for ever."""

    class Empty(Step):
        async def setup(self, shared: dict[str, Any]) -> None:
            await asyncio.sleep(0)

        def run_step(self, resource):  # type: ignore[no-untyped-def]  # as above
            return next(iter([]))

    with pytest.raises(RunFailed, match="StopIteration"):
        Workflow(outputs=[Empty]).run()


def test_a_run_step_with_typed_parameters_does_not_receive_what_setup_returned() -> None:
    class Typed(Step):
        def setup(self, shared: dict[str, Any]) -> str:
            return "resource"

        def run_step(self, url: str) -> str:
            return url

    assert Workflow(outputs=[Typed]).run({"url": "a"}) == "a"


def test_what_setup_returned_may_go_to_a_positional_only_parameter() -> None:
    class Odd(Step):
        def setup(self, shared: dict[str, Any]) -> str:
            return "resource"

        def run_step(self, resource, /, other=3):  # type: ignore[no-untyped-def]  # as above
            return [resource, other]

    assert Workflow(outputs=[Odd]).run() == ["resource", 3]


@pytest.mark.parametrize("is_async", [False, True])
def test_teardown_is_called_with_none_when_the_body_fails(is_async: bool) -> None:
    seen: list[Any] = []

    class Plain(Step):
        def run_step(self) -> Any:
            raise ValueError("of no use")

        def teardown(self, shared: dict[str, Any], setup_result: None, result: None) -> None:
            seen.append(result)

    class Async(Plain):
        async def run_step(self) -> None:
            raise ValueError("of no use")

    with pytest.raises(RunFailed, match="of no use"):
        Workflow(outputs=[Async if is_async else Plain]).run()
    assert seen == [None]


def test_a_teardown_that_fails_fails_the_step() -> None:
    class Leaky(Step):
        def run_step(self) -> int:
            return 1

        def teardown(self, shared: dict[str, Any], setup_result: None, result: int) -> None:
            raise OSError("cannot close")

    with pytest.raises(RunFailed, match="cannot close"):
        Workflow(outputs=[Leaky]).run()


@pytest.mark.parametrize("is_async", [False, True])
def test_before_all_and_after_all_are_called_once_a_run_however_often_the_step_is(is_async: bool) -> None:
    calls: list[str] = []

    class Plain(Step):
        def before_all(self, shared: dict[str, Any]) -> None:
            calls.append("before_all")

        def run_step(self) -> None:
            calls.append("run")
            if calls.count("run") < 3:
                raise ValueError("not yet")

        def after_all(self, shared: dict[str, Any]) -> None:
            calls.append("after_all")

    class Async(Plain):
        async def before_all(self, shared: dict[str, Any]) -> None:  # type: ignore[override]  # async is tested
            calls.append("before_all")

    kind = Async if is_async else Plain
    workflow = Workflow(outputs=[kind(policies=[RetryPolicy(3)])])
    workflow.run()
    assert calls == ["before_all", "run", "run", "run", "after_all"]
    workflow.run()
    assert calls[5:] == ["before_all", "run", "after_all"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_before_all_that_fails_is_tried_again_with_the_next_attempt(is_async: bool) -> None:
    calls: list[str] = []

    class Plain(Step):
        def before_all(self, shared: dict[str, Any]) -> Any:
            calls.append("before_all")
            if len(calls) == 1:
                raise ConnectionError("away")

        def run_step(self) -> str:
            return "done"

    class Async(Plain):
        async def before_all(self, shared: dict[str, Any]) -> Any:
            return super().before_all(shared)

    kind = Async if is_async else Plain
    assert Workflow(outputs=[kind(policies=[RetryPolicy(2)])]).run() == "done"
    assert calls == ["before_all", "before_all"]


def test_an_after_all_that_fails_is_logged_and_keeps_no_other_from_being_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    class First(Step):
        def run_step(self) -> int:
            return 1

        def after_all(self, shared: dict[str, Any]) -> None:
            calls.append("first")

    class Second(Step):
        def run_step(self, one: int = Depends(First)) -> int:
            return one

        def after_all(self, shared: dict[str, Any]) -> None:
            raise OSError("cannot close the pool")

    assert Workflow(outputs=[Second]).run() == 1
    assert calls == ["first"]
    assert "cannot close the pool" in caplog.text


def test_steps_of_a_run_share_a_dictionary_and_runs_do_not() -> None:
    class Count(Step):
        def setup(self, shared: dict[str, Any]) -> int:
            shared["count"] = shared.get("count", 0) + 1
            return int(shared["count"])

        def run_step(self, count):  # type: ignore[no-untyped-def]  # receives the value of setup
            return count

    first, second = Count(name="first"), Count(name="second")
    first >> second
    workflow = Workflow(outputs=[first, second])
    assert workflow.run() == [1, 2]
    assert workflow.run() == [1, 2]


def test_executing_a_step_never_changes_it() -> None:
    class Store(Step):
        def run_step(self, items: list[int]) -> list[int]:
            items.append(1)
            return items

    store = Store()
    workflow = Workflow(outputs=[store])
    before = copy.copy(vars(store))
    inputs: dict[str, Any] = {"items": []}
    assert workflow.run(inputs) == [1]
    assert workflow.run(inputs) == [1]
    assert inputs == {"items": []}
    assert vars(store) == before


def test_a_step_that_changes_what_it_receives_changes_it_for_nobody_else() -> None:
    @step
    def source() -> Any:
        return {"rows": [1, [2]]}

    @step
    def greedy(data: Any = Depends(source)) -> Any:
        data["rows"][1].append(3)
        return data

    @step
    def after(data: Any = Depends(source), changed: Any = Depends(greedy)) -> Any:
        return [data, changed]

    assert Workflow(outputs=[after]).run() == [{"rows": [1, [2]]}, {"rows": [1, [2, 3]]}]


def test_one_step_runs_many_times_at_once() -> None:
    gate = threading.Barrier(3, timeout=20)

    @step
    def meet(name: str) -> str:
        gate.wait()
        return name

    workflow = Workflow(outputs=[meet])
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(workflow.run({"name": name})))
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["a", "b", "c"]


def test_what_is_no_step_is_refused_where_it_is_written() -> None:
    class Empty(Step):
        pass

    class Wanting(Step):
        def __init__(self, what: str) -> None:
            super().__init__()

        def run_step(self) -> None: ...

    with pytest.raises(InvalidSchemaError, match="class Empty has no run_step"):
        Workflow(outputs=[Empty])
    with pytest.raises(InvalidSchemaError, match=r"Wanting cannot be made without arguments.*'what'"):
        Workflow(outputs=[Wanting])
    with pytest.raises(TypeError, match="a class such as Wanting subclasses Step"):
        step(Wanting)
    with pytest.raises(TypeError, match="is no step"):
        Workflow(outputs=[3])  # type: ignore[list-item]  # what a user does by mistake
    with pytest.raises(TypeError, match="is no step"):
        Workflow(outputs="fetch")  # type: ignore[arg-type]  # what a user does by mistake
    with pytest.raises(InvalidSchemaError, match="at least one output"):
        Workflow(outputs=[])
    with pytest.raises(TypeError, match="made of a function"):
        FunctionStep(3)  # type: ignore[arg-type]  # what a user does by mistake


def test_a_policy_that_is_none_is_refused_where_it_is_written() -> None:
    class Mine(StepPolicy):
        name = "test_steps_mine"

    with pytest.raises(PolicyError, match=r"Mine is a class; give an instance"):
        step(policies=[Mine])(print)  # type: ignore[list-item]  # what a user does by mistake
    with pytest.raises(PolicyError, match=r"3 is not a StepPolicy"):
        step(policies=[3])(print)  # type: ignore[list-item]  # what a user does by mistake


def test_a_coroutine_that_nobody_awaited_is_named() -> None:
    async def inner() -> int:
        return 1

    def forgets() -> Awaitable[int]:
        return inner()

    with pytest.raises(RunFailed, match="is a coroutine that nobody awaited"):
        Workflow(outputs=[forgets]).run()


def test_partials_and_callable_objects_are_functions_too() -> None:
    class Adder:
        def __init__(self, number: int) -> None:
            self.number = number

        async def __call__(self, value: int) -> int:
            return self.number + value

    def power(base: int, exponent: int) -> int:
        return int(base**exponent)

    from_partial: Callable[..., Any] = functools.partial(power, exponent=2)
    workflow = Workflow(outputs=[Adder(4), from_partial])
    assert list(workflow.steps) in (["adder", "power"], ["power", "adder"])
    assert workflow.run({"value": 3, "base": 5}) == [7, 25]

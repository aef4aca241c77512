"""Conditions: a value that does not hold skips the step by its own condition, and its successors go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fuseline import Condition, Depends, RunFailed, Step, Workflow, step
from fuseline.model import RunView, Status


def view_of(workflow: Workflow, inputs: dict[str, Any]) -> RunView:
    """The view of a run that is made to fail at its end, which is how a local run shows it."""

    class Stop(Step):
        def run_step(self) -> None:
            raise ValueError("end")

    stop = Stop()
    for name in workflow.outputs:
        workflow.steps[name] >> stop
    with pytest.raises(RunFailed) as caught:
        Workflow(outputs=[stop]).run(inputs)
    assert isinstance(caught.value.run, RunView)
    return caught.value.run


@step
def count(text: str) -> int:
    return len(text.split())


def test_a_condition_is_a_callable_of_the_converted_value() -> None:
    @step
    def publish(
        words: float = Depends(count, condition=lambda words: words.is_integer() and words > 2),
    ) -> str:
        return f"published {words}"

    workflow = Workflow(outputs=[publish])
    assert workflow.run({"text": "a b c"}) == "published 3.0"
    assert workflow.run({"text": "a"}) is None


def test_a_false_condition_skips_the_step_and_its_successors_go_on() -> None:
    @step
    def publish(words: int = Depends(count, condition=lambda words: words > 2)) -> str:
        return "published"

    @step
    def note(published: str | None = Depends(publish)) -> str:
        return f"note: {published}"

    workflow = Workflow(outputs=[note])
    assert workflow.run({"text": "a"}) == "note: None"
    steps = view_of(workflow, {"text": "a"}).steps
    assert steps["publish"].state is Status.SKIPPED
    assert steps["note"].state is Status.SUCCEEDED


class Longer(Condition):
    def __init__(self, than: int = 2) -> None:
        self.than = than
        self.sources: list[Step] = []

    def __call__(self, value: int, step: Step) -> bool:
        self.sources.append(step)
        return value > self.than


def test_a_condition_is_an_instance_or_a_class_called_with_the_value_and_the_source_step() -> None:
    condition = Longer(3)

    @step
    def by_instance(words: int = Depends(count, condition=condition)) -> int:
        return words

    @step
    def by_class(words: int = Depends(count, condition=Longer)) -> int:
        return words

    workflow = Workflow(outputs=[by_instance, by_class])
    assert workflow.run({"text": "a b c"}) == [None, 3]
    assert condition.sources == [count]


def test_the_source_of_an_or_group_is_the_one_that_supplied_the_value() -> None:
    condition = Longer(0)

    @step
    def one(n: int = Depends(count, condition=lambda _n: True)) -> int:
        return n

    @step
    def other(n: int = Depends(count)) -> int:
        raise ValueError("never mind")

    @step
    def either(n: int = Depends(other, one, condition=condition)) -> int:
        return n

    assert Workflow(outputs=[either]).run({"text": "a b"}) == 2
    assert condition.sources == [one]


def test_a_condition_may_be_async() -> None:
    async def long(words: int) -> bool:
        await asyncio.sleep(0)
        return words > 2

    class Long(Condition):
        async def __call__(self, value: int, step: Step) -> bool:
            await asyncio.sleep(0)
            return value > 2

    @step
    def by_function(words: int = Depends(count, condition=long)) -> int:
        return words

    @step
    async def by_object(words: int = Depends(count, condition=Long)) -> int:
        return words

    workflow = Workflow(outputs=[by_function, by_object])
    assert workflow.run({"text": "a b c"}) == [3, 3]
    assert workflow.run({"text": "a"}) == [None, None]


def test_no_value_does_not_hold() -> None:
    asked: list[Any] = []

    def ask(words: Any) -> bool:
        asked.append(words)
        return True

    @step
    def skipped(words: int = Depends(count, condition=lambda _n: False)) -> int:
        return words

    @step
    def after(words: int = Depends(skipped, condition=ask)) -> int:
        return words

    assert Workflow(outputs=[after]).run({"text": "a"}) is None
    assert asked == []


def test_all_conditions_have_to_hold() -> None:
    calls: list[int] = []

    @step
    def both(
        a: int = Depends(count, condition=lambda n: n > 0), b: int = Depends(count, condition=lambda n: n > 1)
    ) -> int:
        calls.append(a)
        return a

    workflow = Workflow(outputs=[both])
    assert [workflow.run({"text": text}) for text in ("", "a", "a b")] == [None, None, 2]
    assert calls == [2]


def test_a_condition_that_raises_fails_the_step() -> None:
    def odd(words: int) -> bool:
        raise LookupError("no such limit")

    @step
    def publish(words: int = Depends(count, condition=odd)) -> int:
        return words

    with pytest.raises(RunFailed, match="step 'publish': LookupError: no such limit"):
        Workflow(outputs=[publish]).run({"text": "a"})

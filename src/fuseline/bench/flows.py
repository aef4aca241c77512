"""The works as workflows, written as their authors would write them."""

from __future__ import annotations

import functools
from typing import Any

from fuseline.bench.graphs import FAILING_PERCENT, Node, Role, fails_first, goes_left
from fuseline.bench.works import RANDOM_GRAPHS, RESULT_BYTES, Shape, Work
from fuseline.workflow import Branch, Depends, RetryPolicy, Step, StepContext, Workflow, step

assert FAILING_PERCENT < 100  # a step that always failed would end its run


@functools.cache
def workflows(work: Work) -> list[Workflow]:
    """All that the runs of `work` are of."""
    if work.shape is Shape.CHAIN:
        return [chain_flow(work.size, number) for number in range(work.flows)]
    if work.shape is Shape.FAN:
        return [fan_flow(work.size)]
    return [random_flow(work, number) for number in range(RANDOM_GRAPHS)]


def inputs(work: Work, run: int, payload: dict[str, Any]) -> dict[str, Any]:
    """What run number `run` begins with."""
    return {"run": run} if work.shape is Shape.RANDOM else {"payload": payload}


# ---- a chain


def _hop(number: int, before: Step | None) -> Step:
    if before is None:

        @step(name="step_0")
        async def first(payload: dict[str, Any]) -> dict[str, Any]:
            return payload

        return first

    @step(name=f"step_{number}")
    async def hop(payload: dict[str, Any] = Depends(before)) -> dict[str, Any]:
        return payload

    return hop


def chain_flow(length: int, which: int = 0) -> Workflow:
    """One step after the other; each hands on what it got. `which`: of several that are alike."""
    last: Step | None = None
    for number in range(length):
        last = _hop(number, last)
    assert last is not None
    of_many = f"-{which}" if which else ""
    return Workflow(outputs=[last], workflow_id=f"bench-chain-{length}{of_many}", version="1")


# ---- a fan


def _part(number: int, before: Step) -> Step:
    @step(name=f"part_{number}")
    async def part(payload: dict[str, Any] = Depends(before)) -> dict[str, Any]:
        return payload

    return part


def fan_flow(width: int) -> Workflow:
    """One step, `width` parallel ones that get its result, and one that waits for them all."""
    first = _hop(0, None)

    @step(name="join")
    async def join(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    for number in range(width):
        _part(number, first) >> join
    return Workflow(outputs=[join], workflow_id=f"bench-fan-{width}", version="1")


# ---- a random graph

_RETRIES = RetryPolicy(max_retries=3, wait=0.0)


def _work(run: int, number: int, context: StepContext) -> str:
    if context.attempt == 1 and fails_first(run, number):
        raise ConnectionError("the first attempt fails, to be repeated")
    return "r" * RESULT_BYTES


def _choice(number: int, read: Step) -> Step:
    @step(name=f"step_{number}", policies=[_RETRIES])
    async def choose(run: int, ctx: StepContext, before: str = Depends(read)) -> Branch:
        return Branch("left" if goes_left(run, number) else "right", _work(run, number, ctx))

    return choose


def _either(number: int, left: Step, right: Step) -> Step:
    @step(name=f"step_{number}", policies=[_RETRIES])
    async def either(run: int, ctx: StepContext, before: str = Depends(left, right)) -> str:
        return _work(run, number, ctx)

    return either


def _plain(number: int, reads: list[Step]) -> Step:
    name, policies = f"step_{number}", [_RETRIES]
    if not reads:

        @step(name=name, policies=policies)
        async def begin(run: int, ctx: StepContext) -> str:
            return _work(run, number, ctx)

        return begin
    if len(reads) == 1:

        @step(name=name, policies=policies)
        async def one(run: int, ctx: StepContext, first: str = Depends(reads[0])) -> str:
            return _work(run, number, ctx)

        return one
    if len(reads) == 2:

        @step(name=name, policies=policies)
        async def two(
            run: int, ctx: StepContext, first: str = Depends(reads[0]), second: str = Depends(reads[1])
        ) -> str:
            return _work(run, number, ctx)

        return two

    @step(name=name, policies=policies)
    async def three(
        run: int,
        ctx: StepContext,
        first: str = Depends(reads[0]),
        second: str = Depends(reads[1]),
        third: str = Depends(reads[2]),
    ) -> str:
        return _work(run, number, ctx)

    return three


def _made(number: int, node: Node, steps: list[Step]) -> Step:
    reads = [steps[one] for one in node.reads]
    if node.role is Role.CHOOSES:
        return _choice(number, reads[0])
    if node.role is Role.EITHER:
        return _either(number, *reads)
    made = _plain(number, reads)
    if node.role in (Role.LEFT, Role.RIGHT):
        (reads[0] - node.role.value) >> made
    return made


def random_flow(work: Work, number: int) -> Workflow:
    """Random graph `number` of the work."""
    graph = work.random_graph(number)
    steps: list[Step] = []
    for index, node in enumerate(graph.nodes):
        steps.append(_made(index, node, steps))
    return Workflow(
        outputs=[steps[sink] for sink in graph.sinks],
        workflow_id=f"bench-random-{graph.size}-{number}",
        version="1",
    )

"""Coroutines, many at once: twenty waits of a fifth of a second take about a fifth of a second.

python examples/fan_out.py
"""

from __future__ import annotations

import asyncio
import time

from fuseline import Depends, Step, Workflow, step

WIDTH = 20


@step
def plan(base: int = 0) -> list[int]:
    return [base + index for index in range(WIDTH)]


def fetching(index: int) -> Step:
    """The graph is fixed before a run begins, so that its steps can be made by a loop."""

    @step(name=f"fetch_{index:02}")
    async def fetch(numbers: list[int] = Depends(plan)) -> int:
        await asyncio.sleep(0.2)
        return numbers[index] ** 2

    return fetch


def adding(name: str, left: Step, right: Step) -> Step:
    @step(name=name)
    async def add(a: int = Depends(left), b: int = Depends(right)) -> int:
        return a + b

    return add


# A sum in pairs: 20 -> 10 -> 5 -> 3 -> 2 -> 1.
level, stage = [fetching(index) for index in range(WIDTH)], 0
while len(level) > 1:
    stage += 1
    pairs = list(zip(level[::2], level[1::2], strict=False))
    left_over = level[len(pairs) * 2 :]
    level = [adding(f"add_{stage}_{i}", a, b) for i, (a, b) in enumerate(pairs)] + left_over

squares = Workflow(outputs=level, workflow_id="squares", version="1")

if __name__ == "__main__":
    began = time.monotonic()
    print(squares.run({"base": 0}))
    print("in well under the 4 seconds of one after another:", time.monotonic() - began < 2)

"""1 -> 2,000 -> 1, as its author writes it."""

from __future__ import annotations

from fuseline import Depends, Step, Workflow, step

WIDTH = 2_000


@step
def split(factor: int) -> int:
    return factor


def _part(index: int) -> Step:
    @step(name=f"part_{index:04}")
    def part(factor: int = Depends(split)) -> int:
        return factor * index

    return part


@step
def join() -> str:
    return "joined"


parts = [_part(index) for index in range(WIDTH)]
for one in parts:
    one >> join

wide = Workflow(outputs=[join], workflow_id="wide", version="1")

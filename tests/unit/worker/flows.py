"""Workflows of this module, as users write them: named as module:attribute, and importable by processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from fuseline.workflow import Depends, Step, Workflow, step


@step
def double(value: int) -> int:
    return 2 * value


@step
def whereabouts() -> int:
    return os.getpid()


@step
def vanish() -> None:
    os._exit(5)


@step
def leave() -> None:
    raise SystemExit(4)


@step
async def greet() -> str:
    return "hello"


@step
def strange() -> object:
    return object()


@step
def linger(path: str) -> str:
    """Says that it runs, and ends when somebody puts a second file there."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(path + ".go"):
        time.sleep(0.01)
    return "lingered"


class Hooked(Step):
    """Writes down its hooks; those that have to be awaited among them."""

    def before_all(self, shared: dict[str, Any]) -> None:
        shared["path"] = os.environ["HOOKED_PATH"]
        self._note(shared, "before")

    def run_step(self) -> str:
        return "hooked"

    def after_all(self, shared: dict[str, Any]) -> None:
        self._note(shared, "after")

    @staticmethod
    def _note(shared: dict[str, Any], what: str) -> None:
        with open(shared["path"], "a") as file:
            file.write(what + "\n")


class HookedAsync(Step):
    """What it makes belongs to the loop that it was made on."""

    async def before_all(self, shared: dict[str, Any]) -> None:
        shared["loop"] = asyncio.get_running_loop()

    async def run_step(self) -> bool:
        return True

    async def after_all(self, shared: dict[str, Any]) -> None:
        same = shared["loop"] is asyncio.get_running_loop()
        with open(os.environ["HOOKED_PATH"], "a") as file:
            file.write(f"same loop: {same}\n")


@step
def first(value: int) -> int:
    return value + 1


@step
async def second(one: int = Depends(first)) -> int:
    return 10 * one


@step
def third(a: int = Depends(first), b: int = Depends(second)) -> dict[str, int]:
    return {"a": a, "b": b, "pid": os.getpid()}


hooked = Workflow(outputs=[Hooked(name="hooked"), HookedAsync(name="hooked_async")], workflow_id="hooked")
chain = Workflow(outputs=[third], workflow_id="chain")
flow = Workflow(
    outputs=[double, whereabouts, vanish, leave, greet, strange, linger], workflow_id="flow", version="1"
)
both = [flow]
number = 3

"""What the executions of a workflow's steps share: the `shared` dictionary, and `before_all` having been called once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from fuseline.workflow.step import Step

log = logging.getLogger(__name__)


class Shared:
    """One per run in `Workflow.run`, one per process and workflow in a worker. Thread-safe; `values` is the user's."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._begun: dict[Step, Future[None]] = {}

    def begin(self, step: Step) -> None:
        """Call `before_all` of the step, unless that was done; who comes meanwhile waits. Raises what it raises."""
        future, is_first = self._enter(step)
        if not is_first:
            future.result()
            return
        try:
            step.before_all(self.values)
        except BaseException as error:
            self._failed(step, future, error)
            raise
        future.set_result(None)

    async def begin_async(self, step: Step) -> None:
        """`begin`, for a step with `async` hooks."""
        future, is_first = self._enter(step)
        if not is_first:
            await asyncio.shield(
                asyncio.wrap_future(future)
            )  # a waiter that is cancelled cancels nobody else
            return
        try:
            answer = step.before_all(self.values)
            if inspect.isawaitable(answer):
                await answer
        except BaseException as error:
            self._failed(step, future, error)
            raise
        future.set_result(None)

    def end(self, run: Callable[[Coroutine[Any, Any, Any]], object] = asyncio.run) -> None:
        """Call `after_all` of each step that began, the last one first; what one raises is logged. `run` awaits."""
        with self._lock:
            begun = [step for step, future in self._begun.items() if future.done()]
            self._begun.clear()
        for step in reversed(begun):
            try:
                answer = step.after_all(self.values)
                if inspect.iscoroutine(answer):
                    run(answer)
            except Exception:
                log.exception("after_all of %r failed", step)
        self.values.clear()

    def _enter(self, step: Step) -> tuple[Future[None], bool]:
        with self._lock:
            future = self._begun.get(step)
            if future is not None:
                return future, False
            future = self._begun[step] = Future()
            return future, True

    def _failed(self, step: Step, future: Future[None], error: BaseException) -> None:
        """The next attempt tries again."""
        with self._lock:
            self._begun.pop(step, None)
        future.set_exception(error)

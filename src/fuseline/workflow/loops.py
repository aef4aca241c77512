"""The event loop of a run in this process: driven by the thread that waits for it, or else on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Begins on the thread that made it, which drives it while it waits, and stays there until `let_go`.

    All methods but `wake` are for that thread. `is_here`: it has not been let go. `is_quiet`: nothing is left in it that
    would go on if it were driven, so that it may stand still for as long as you like.
    """

    def __init__(self) -> None:
        self.is_here = True
        self.is_quiet = True
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(self._make_task)

    # ---- while it is here

    def begin(self, coroutine: Coroutine[Any, Any, T], context: contextvars.Context) -> asyncio.Task[T]:
        """A task that has been executed until it waited for something for the first time, or to its end."""
        task = asyncio.Task(coroutine, loop=self.loop, context=context)
        self._turn()
        if not task.done():
            self.is_quiet = False
        return task

    def drive(self, is_over: Callable[[], bool]) -> None:
        """Run until `is_over`; it is asked whenever somebody has called `pause`, or `wake`."""
        self.is_quiet = False
        while not is_over():
            # A task of a body's own that raises it ends no more than itself; who awaits that task is told.
            with contextlib.suppress(SystemExit):
                self.loop.run_forever()

    def pause(self) -> None:
        """On the loop: let `drive` look."""
        if self.is_here:
            self.loop.stop()

    def wake(self) -> None:
        """From another thread: let `drive` look."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self.pause)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and wait for it."""
        if self.is_here:
            return self.loop.run_until_complete(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    # ---- leaving

    def let_go(self) -> None:
        """From here on it runs on a daemon thread."""
        if self.is_here:
            self.is_here = False
            threading.Thread(target=self._run, name="fuseline steps' loop", daemon=True).start()

    def close(self) -> None:
        """Cancel what still runs, and end when that has ended; nobody waits for it."""
        if not self.is_here:
            self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._end()))
            return
        end = asyncio.Task(self._end(), loop=self.loop)
        if self.is_quiet:
            self._turn()
        if end.done():
            self.loop.close()
        else:
            self.let_go()

    async def _end(self) -> None:
        if not self.is_quiet:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        await self.loop.shutdown_asyncgens()
        self.loop.stop()

    # ---- inside

    def _turn(self) -> None:
        """Everything that can be done at once, without waiting."""
        self.loop.stop()
        try:  # noqa: SIM105 - every step goes through here, and `suppress` is slow
            self.loop.run_forever()
        except SystemExit:  # as in `drive`
            pass

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        **options: Any,
    ) -> asyncio.Task[T]:
        self.is_quiet = False
        return asyncio.Task(coroutine, loop=loop, **options)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

"""The event loop of a run in this process: driven by the thread that waits for it, or else on a thread of its own.

To open a loop and to close it costs as much as a step does, so one that a run left as it was when it was new is kept for the
next run, on whatever thread.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import atexit
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sized
from typing import Any, Final, TypeVar

T = TypeVar("T")

MAX_KEPT: Final = 8
"""Loops that wait for a run, at most: as many as there are threads that have runs at the same time, as a rule."""


class OwnLoop:
    """Begins on the thread that asked for it, which drives it while it waits, and stays there until `let_go`.

    All methods but `wake` are for that thread. `is_here`: it has not been let go. `is_quiet`: nothing is left in it that
    would go on if it were driven, so that it may stand still for as long as you like.
    """

    def __init__(self) -> None:
        self.is_here = True
        self.is_quiet = True
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(self._make_task)
        self._new = _State.of(self.loop)

    @classmethod
    def take(cls) -> OwnLoop:
        """One that was kept, or a new one."""
        while _kept:
            kept = _kept.pop()
            if kept._new is not None and kept._new.policy is _policy():
                return kept
            kept.loop.close()  # somebody wants other loops than this from now on
        return cls()

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
        if self.is_here and self.is_quiet and self._new is not None and self._new.is_that_of(self.loop):
            if len(_kept) < MAX_KEPT:
                _kept.append(self)
            else:
                self.loop.close()
            return
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


class _State:
    """What a loop was when it was new: every attribute, and how much is in what holds something.

    Timers, readers, signal handlers, open generators, an executor, debugging: a run that leaves any such thing, or any
    attribute of its own, has had the loop for itself.
    """

    __slots__ = ("_attributes", "_sizes", "policy")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.policy = _policy()
        self._attributes = dict(vars(loop))
        held = [one for one in self._attributes.values() if isinstance(one, Sized)]
        self._sizes = [(one, len(one)) for one in [*held, self._attributes["_selector"].get_map()]]

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _State | None:
        """None for one that does not show it."""
        return cls(loop) if isinstance(loop, asyncio.SelectorEventLoop) else None

    def is_that_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is as it was."""
        return vars(loop) == self._attributes and all(len(one) == size for one, size in self._sizes)


_kept: deque[OwnLoop] = deque()
_of_parent: list[OwnLoop] = []


def _policy() -> object:
    # Not by its function, which warns from Python 3.14 on.
    return getattr(asyncio.events, "_event_loop_policy", None)


def _close_kept() -> None:
    while _kept:
        _kept.pop().loop.close()


def _leave_to_parent() -> None:
    """In a forked process: to close one here would take the parent's out of its own selector."""
    _of_parent.extend(_kept)
    _kept.clear()


atexit.register(_close_kept)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)

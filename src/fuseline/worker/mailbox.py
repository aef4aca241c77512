"""From any thread to a loop, many at a time: a busy worker pays one wake-up for all outcomes that came together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """`post` is for any thread; `take` gets the items on `loop`, in order, then `on_batch_end` is called once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Item], None],
        on_batch_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._take_one = take
        self._on_batch_end = on_batch_end
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._is_woken = False
        self._is_closed = False

    def post(self, item: Item) -> None:
        """Have `item` taken soon; dropped once the mailbox is closed."""
        with self._lock:
            if self._is_closed:
                return
            self._items.append(item)
            if not self._is_woken:
                self._is_woken = True
                # Under the lock, so that `close` cannot come between: a closed loop refuses the call.
                self._loop.call_soon_threadsafe(self._take)

    def close(self) -> None:
        """Take no more; call it before the loop is closed."""
        with self._lock:
            self._is_closed = True
            self._items.clear()

    def _take(self) -> None:
        with self._lock:
            self._is_woken = False
            items, self._items = self._items, deque()
        for item in items:
            self._take_one(item)
        if items:
            self._on_batch_end()

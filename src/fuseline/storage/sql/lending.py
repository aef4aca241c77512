"""Connections to PostgreSQL between two uses: the last one is taken again without asking the pool.

A lone report's statement takes the server as long as the pool, its queue, its proxies and their finalizers take a
coordinator that has just woken up. So what is given back stays lent by the pool, as long as nobody waits for the pool.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Engine, Pool, event

from fuseline.storage.sql.pipelining import Prepared, is_unused

IDLE_SECONDS: Final = 1.0
"""A connection that was not used for so long is tried before it is used."""


class Lent:
    """A connection, the pool that it is of, and what is prepared on it."""

    __slots__ = ("driver", "pool", "prepared", "proxy", "used_at")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.proxy = proxy = pool.connect()
        self.driver = cast("psycopg.Connection[Any]", proxy.driver_connection)
        if not self.driver.autocommit:
            self.driver.autocommit = True
        self.prepared: Prepared = proxy.info.setdefault("prepared", Prepared())
        self.used_at: float | None = proxy.info.get("used_at")

    def end(self) -> None:
        """It is used no more, by nobody."""
        self.proxy.invalidate()
        self.proxy.close()

    def go_home(self) -> None:
        """Somebody waits for it at the pool."""
        self.proxy.info["used_at"] = self.used_at
        self.proxy.close()


class Lending:
    """The connections of an engine, as many as its pool has. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Python's search for garbage may end an abandoned transaction, and so give back, wherever this thread is.
        self._lock = threading.RLock()
        self._idle: list[Lent] = []
        self._waiting = 0
        self._is_closed = False
        event.listen(engine, "checkin", _end_unless_unused)

    def take(self) -> Lent:
        """One that nobody uses. Raises the driver's errors, and SQLAlchemy's `TimeoutError` when all are in use for long."""
        lent = self._next()
        if lent.used_at is not None and time.monotonic() - lent.used_at > IDLE_SECONDS:
            try:
                lent.driver.execute("SELECT 1")
            except psycopg.OperationalError:
                self._lost(lent)
                return self._next()
        return lent

    def give_back(self, lent: Lent) -> None:
        """It is not used any more."""
        if lent.driver.closed:
            self._lost(lent)
            return
        if not is_unused(lent.driver):  # who was to leave it so was interrupted
            lent.end()
            return
        lent.used_at = time.monotonic()
        with self._lock:
            # One of a pool that was given up would be one more than there may be.
            is_welcome = not self._is_closed and lent.pool is self._engine.pool
            if is_welcome and not self._waiting:
                self._idle.append(lent)
                return
        if is_welcome:
            lent.go_home()
        else:
            lent.end()

    def close(self) -> None:
        """End what is idle; the others are ended when they are given back."""
        with self._lock:
            self._is_closed = True
        self._forget()

    def _next(self) -> Lent:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            # Under the same lock: what is given back from now on goes to the pool, where this one waits.
            self._waiting += 1
        try:
            return Lent(self._engine.pool)
        finally:
            with self._lock:
                self._waiting -= 1

    def _lost(self, lent: Lent) -> None:
        """The others are as old: none of them is tried."""
        lent.end()
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.end()
        self._engine.dispose()


def _end_unless_unused(driver: Any, record: Any) -> None:
    """The pool takes back what nobody gave back, too: of one who was interrupted (Ctrl-C), say, in the middle of anything.

    What he wrote would be committed by who uses the connection next, who would read the answers that were for him.
    """
    if driver is not None and (driver.closed or not is_unused(driver)):
        record.invalidate()

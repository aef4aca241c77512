"""SQLite: one file, one coordinator."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import URL, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from fuseline.errors import (
    CallerError,
    FatalError,
    FuselineError,
    MigrationError,
    SecondCoordinatorError,
    StorageUnavailableError,
)
from fuseline.storage.sql.migrating import bring_up_to_date
from fuseline.storage.sql.remembered import Remembered, RememberingTransaction
from fuseline.storage.sql.session import Row, Session
from fuseline.storage.sql.statements import SqliteStatements, Statement
from fuseline.storage.sql.storage import SqlRuntimeStorage
from fuseline.storage.sql.wal import ROOM_AFTER_COMMITS, make_room
from fuseline.storage.transaction import Transaction

BUSY_SECONDS = 10.0
"""How long a transaction waits for another one to end."""
POOL_SIZE = 16

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process has been writing to it for too long",
    sqlite3.SQLITE_LOCKED: "another process has been writing to it for too long",
    sqlite3.SQLITE_FULL: "make room on the disk; nothing of this transaction was written",
    sqlite3.SQLITE_READONLY: "the file or its folder may not be written to: correct their owner or mode",
    sqlite3.SQLITE_CANTOPEN: "it, or a file beside it, cannot be opened: look at the folder and its mode",
    sqlite3.SQLITE_IOERR: "look at the disk",
    sqlite3.SQLITE_CONSTRAINT: "another transaction wrote the same at the same time",
}


class SqliteRuntimeStorage(SqlRuntimeStorage):
    """Runs in an SQLite file, which is made, and brought up to date, when it is opened.

    `path` is a path or an `sqlite:///` URL; `:memory:` is a database of this object alone. One process at a time may
    work on a file as its coordinator (`claim_coordinator`); others may read. Thread-safe: writers take turns, readers see
    the last commit. A commit is on disk when it returns (WAL, synchronous FULL).

    Raises `CallerError` for a path that cannot be one, `MigrationError` for a file of a newer Fuseline,
    `StorageUnavailableError`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        url = sqlite_url(path)
        engine = sqlite_engine(url)
        super().__init__(engine, _statements())
        self._is_shared = is_memory(url)
        self._turn = threading.Lock()
        self._remembered = Remembered()
        self._writer: PoolProxiedConnection | None = None
        self._has_room = False
        self._lock_path = None if self._is_shared else _lock_path(url)
        self._lock_file: IO[str] | None = None
        try:
            with explained(url):
                bring_file_up_to_date(engine)
        except BaseException:
            engine.dispose()
            raise

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        if self._is_shared:
            with self._writing() as session:
                yield session
            return
        with self._session("BEGIN") as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if self._is_shared:
            with super().transaction() as unit:
                yield unit
            return
        with self._alone():
            try:
                with self._on(self._writer_connection(), "BEGIN IMMEDIATE") as session:
                    self._remembered.check(session.data_version())
                    if self.commits >= ROOM_AFTER_COMMITS and not self._has_room:
                        self._make_room()
                    unit = RememberingTransaction(session, self._sql, self._remembered)
                    yield unit
                self.commits += 1
                unit.committed()
            except BaseException as error:
                # It may be committed all the same: whoever is interrupted has not written down that it is.
                self._remembered.forget()
                if isinstance(error.__cause__, sqlite3.Error):
                    self._close_writer()
                raise

    def _make_room(self) -> None:
        """For who writes much and alone, within his transaction."""
        if self._lock_file is not None and self.engine.url.database is not None:
            self._has_room = True
            make_room(self.engine.url.database)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._alone():
            self._remembered.forget()
            with self._session("BEGIN IMMEDIATE") as session:
                yield session
            self.commits += 1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # SQLite has one writer; waiting for a lock of ours is fair and does not poll, waiting for SQLite's does.
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise StorageUnavailableError(
                f"another thread's transaction has not ended within {BUSY_SECONDS:g} s"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _writer_connection(self) -> Any:
        """One connection for all transactions, of which SQLite tells whether any other has written meanwhile."""
        self._check_open()
        if self._writer is None:
            with explained(self.engine.url):
                self._writer = self.engine.raw_connection()
            self._remembered.forget()
        return self._writer.driver_connection

    def _close_writer(self) -> None:
        self._remembered.forget()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.invalidate()

    @contextmanager
    def _session(self, begin: str) -> Iterator[_SqliteSession]:
        self._check_open()
        with explained(self.engine.url):
            connection = self.engine.raw_connection()
        try:
            with self._on(connection.driver_connection, begin) as session:
                yield session
        finally:
            with explained(self.engine.url):
                connection.close()

    @contextmanager
    def _on(self, driver: Any, begin: str) -> Iterator[_SqliteSession]:
        with explained(self.engine.url):
            session = _SqliteSession(driver)
            try:
                # In here: Ctrl-C while it waits is raised when it has begun.
                driver.execute(begin)
                yield session
                driver.execute("COMMIT")
            except BaseException:
                if driver.in_transaction:  # SQLite has ended it by itself after some errors
                    driver.execute("ROLLBACK")
                raise
            finally:
                self.statements += session.executed

    def claim_coordinator(self, coordinator_id: str) -> None:
        """SQLite admits one coordinator: the lock goes with its process. Raises `SecondCoordinatorError`."""
        if self._lock_path is None or self._lock_file is not None:
            return
        try:
            file = open(self._lock_path, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as the lock is held
        except OSError as error:
            raise StorageUnavailableError(f"{self._lock_path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise SecondCoordinatorError(
                f"a coordinator ({holder}) has this SQLite database already; use PostgreSQL for several"
            ) from error
        file.truncate(0)
        file.write(f"{coordinator_id}, pid {os.getpid()}")
        file.flush()
        self._lock_file = file

    def close(self) -> None:
        with self._turn:
            self._close_writer()
        super().close()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


class _SqliteSession(Session):
    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def data_version(self) -> int:
        """Another one when another connection has committed since the last time; its own commits do not count."""
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def all(self, statement: Statement, **parameters: Any) -> list[Row]:
        return self._execute(statement, parameters).fetchall()

    def run(self, statement: Statement, **parameters: Any) -> int:
        return self._execute(statement, parameters).rowcount

    def of_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> list[Row]:
        pairs = list(keys)
        if statement.for_one is not None and len(pairs) == 1:
            parameters: dict[str, Any] = dict(zip(("first", "second"), pairs[0], strict=True))
            return self._execute(statement.for_one, parameters).fetchall()
        return self._execute(statement, {"keys": pairs}).fetchall()

    def _execute(self, statement: Statement, parameters: dict[str, Any]) -> sqlite3.Cursor:
        self.executed += 1
        ids = parameters.get("ids")
        if ids is not None and statement.for_one is not None and len(ids) == 1:
            statement, parameters = statement.for_one, {"ids": ids[0]}
        values = []
        for name in statement.names:
            value = parameters[name] if name in parameters else statement.fixed[name]
            values.append(json.dumps(value) if isinstance(value, list) else value)
        try:
            return self._connection.execute(statement.text, values)
        except (UnicodeEncodeError, OverflowError) as error:
            raise CallerError(f"what SQLite cannot hold: {error}") from error

    def write(self, statement: Statement, rows: Sequence[Row]) -> None:
        self._write(statement, rows)

    def write_one(self, statement: Statement, row: Row) -> bool:
        return self._write(statement, [row]) > 0

    def _write(self, statement: Statement, rows: Sequence[Row]) -> int:
        self.executed += 1
        if statement.names != statement.columns:
            places = [statement.columns.index(name) for name in statement.names]
            rows = [[row[place] for place in places] for row in rows]
        try:
            return self._connection.executemany(statement.text, rows).rowcount
        except (UnicodeEncodeError, OverflowError) as error:
            raise CallerError(f"what SQLite cannot hold: {error}") from error


@cache
def _statements() -> SqliteStatements:
    return SqliteStatements()


def sqlite_url(path: str | os.PathLike[str]) -> URL:
    """A path, or a URL, as a URL."""
    text = os.fspath(path)
    if text.startswith("sqlite:"):
        return make_url(text)
    return URL.create("sqlite", database=text)


def is_memory(url: URL) -> bool:
    """Whether there is no file."""
    return url.database in (None, "", ":memory:")


def sqlite_engine(url: URL, *, for_one: bool = False) -> Engine:
    """An engine whose transactions begin when they are told to. `for_one`: keeps no connection.

    Raises `CallerError` for a file that cannot be.
    """
    pool: type[StaticPool | NullPool | QueuePool] = NullPool if for_one else QueuePool
    sizes: dict[str, Any] = (
        {} if for_one else {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
    )
    if is_memory(url):
        pool, sizes = StaticPool, {}
    else:
        _check_place(Path(url.database or ""))
    engine = create_engine(
        url,
        connect_args={
            "timeout": BUSY_SECONDS,
            "check_same_thread": False,
            "isolation_level": None,
            "cached_statements": 256,
        },
        poolclass=pool,
        pool_reset_on_return=None,
        **sizes,
    )
    event.listen(engine, "connect", _prepare)
    return engine


def _check_place(file: Path) -> None:
    if file.is_dir():
        raise CallerError(f"the database {file} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise CallerError(f"the folder of the database {file} does not exist: mkdir -p {file.parent}")


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def bring_file_up_to_date(engine: Engine) -> None:
    """Make its tables or migrate them, but never under a coordinator that works with those of before.

    Raises `MigrationError`.
    """
    alone = nullcontext if is_memory(engine.url) else partial(_without_coordinator, engine.url)
    bring_up_to_date(engine, alone)


@contextmanager
def _without_coordinator(url: URL) -> Iterator[None]:
    """Keep every coordinator out meanwhile, by the lock that each of them holds for as long as it lives."""
    with open(_lock_path(url), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise MigrationError(
                f"the tables of {url.database} are older than this version, and a coordinator ({holder}) works with"
                " them: stop it, then fuseline db upgrade"
            ) from None
        yield


def _lock_path(url: URL) -> str:
    return f"{url.database}.coordinator"


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """The driver's and the pool's errors as what they mean."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, url) from error
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        raise _explain(error.orig, url) from error
    except PoolTimeoutError as error:
        raise StorageUnavailableError(f"all {POOL_SIZE} connections to the database are in use") from error


def _explain(error: sqlite3.Error, url: URL) -> FuselineError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return FatalError(f"the database {url.database} is damaged, or none of SQLite's: {error}")
    if isinstance(error, sqlite3.DataError):
        return CallerError(f"what SQLite cannot hold: {error}")
    advice = _ADVICE.get(primary or 0)
    return StorageUnavailableError(f"the database {url.database}: {error}{f': {advice}' if advice else ''}")

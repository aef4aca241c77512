"""PostgreSQL by psycopg: several coordinators."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any

import psycopg
from psycopg import errors
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from fuseline.engine.state import StepRow
from fuseline.errors import CallerError, FatalError, FuselineError, MigrationError, StorageUnavailableError
from fuseline.storage.recollection import Beginning, RecalledTransaction, Recollection, Swap
from fuseline.storage.sql.arrays import to_array
from fuseline.storage.sql.lending import Lending
from fuseline.storage.sql.migrating import bring_up_to_date, check_revision, find_revision
from fuseline.storage.sql.pipelining import Answer, Pipeline
from fuseline.storage.sql.session import Row, Session
from fuseline.storage.sql.statements import Statement
from fuseline.storage.sql.storage import SqlRuntimeStorage
from fuseline.storage.sql.swapping import (
    NotingTransaction,
    SwappingStatements,
    new_rows,
    values_of,
    values_to_begin,
)
from fuseline.storage.transaction import Loaded, NotRemembered, Transaction

log = logging.getLogger(__name__)

POOL_SECONDS = 10.0
STATEMENT_BYTES = 16 * 1024 * 1024
"""Rows that one statement writes, written down: it must end in time, and no message to PostgreSQL may have a gigabyte."""

# Every statement here has an index to go by. The planner, asked while the tables are small, would read them whole, and a
# prepared statement keeps its plan while they grow; whole tables cost too much then, and so does compiling (jit) for the
# cost that it assigns to what is turned off.
_PLANNER = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
_SESSION = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    # A process that is stopped in a transaction must not keep its runs from the others for ever.
    "idle_in_transaction_session_timeout": "30s",
    "default_transaction_isolation": r"read\ committed",
    "array_nulls": "on",  # a row of a batch is written as arrays: without, what is not there would be the text "null"
}
_KEEPALIVE = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class PostgresRuntimeStorage(SqlRuntimeStorage):
    """Runs in a PostgreSQL database, which several coordinators may share.

    Its tables must be those of this version (`fuseline db upgrade`): `MigrationError` says so where they are not. With
    `upgrade` the constructor brings them up to date, which takes the right to create tables. Thread-safe, with up to
    `pool_size` connections. A coordinator uses up to two at a time, where there are two.

    Raises `CallerError` for a URL that is none, `MigrationError`, `StorageUnavailableError`.
    """

    def __init__(self, url: str, *, upgrade: bool = False, pool_size: int = 10) -> None:
        if upgrade:
            upgrading = postgres_engine(make_url(url), for_one=True)
            with explained():
                bring_up_to_date(upgrading)
        engine = postgres_engine(make_url(url), pool_size=pool_size)
        super().__init__(engine, _statements())
        self.lending = Lending(engine)
        # A subclass that has its own transactions, such as with rows of its own in them, writes until their end.
        self._is_ours = type(self).transaction is PostgresRuntimeStorage.transaction
        self.may_leave_commits = self._is_ours and pool_size > 1
        self._recollection = Recollection()
        try:
            with explained(), engine.connect() as connection:
                check_revision(find_revision(connection))
        except BaseException:
            engine.dispose()
            raise

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._session(begin=False) as (session, pipeline):
            yield session
            pipeline.finish()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._session(begin=True) as (session, pipeline):
            yield session
            if not pipeline.commit(session.meanwhile):
                raise StorageUnavailableError("the database did not commit")
        self.commits += 1

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._writing() as session:
            unit = NotingTransaction(session, self._sql)
            yield unit
            session.meanwhile = unit.meanwhile
        for changes in unit.saved:
            self._recollection.wrote(changes, unit.read)

    @contextmanager
    def beginning(self) -> Iterator[Transaction]:
        """See `RuntimeStorage.beginning`: likewise."""
        if not self._is_ours:
            raise NotRemembered
        unit = RecalledTransaction(self._recollection)
        yield unit
        one = unit.beginning()
        with self._session(begin=False) as (session, pipeline):
            is_done = session.begin_run(one)
            pipeline.finish()
        if not is_done:  # it is there
            raise NotRemembered
        self.commits += 1
        self._recollection.wrote(one.changes, Loaded())

    @contextmanager
    def recalled(self) -> Iterator[Transaction]:
        """See `RuntimeStorage.recalled`: one statement (`swapping`)."""
        if not self._is_ours or self._recollection.is_paused():
            raise NotRemembered
        unit = RecalledTransaction(self._recollection)
        yield unit
        swap = unit.swap()
        i = swap.seen_run.instance_id
        try:
            with self._session(begin=False) as (session, pipeline):
                chars = session.swap(swap)
                pipeline.finish()
        except BaseException:
            self._recollection.forget(i)
            raise
        if chars is None:
            self._recollection.missed(i)
            raise NotRemembered
        self.commits += 1
        self._recollection.swapped(swap, chars)

    def catch_up(self) -> None:
        """See `RuntimeStorage.catch_up`."""
        self._recollection.catch_up()

    def _session(self, *, begin: bool) -> _Use:
        self._check_open()
        return _Use(self, begin)

    def close(self) -> None:
        super().close()
        self.lending.close()

    def now(self) -> float:
        """The server's clock."""
        with self._reading() as session:
            return float(session.all(self._sql.now)[0][0])


class _Use:
    """A session on a connection of its own, which goes back at the end. Raises the driver's errors as what they mean.

    Not made of generators: three of them, one within the other, cost a lone report more than what they did.
    """

    __slots__ = ("_begin", "_lent", "_pipeline", "_session", "_storage")

    def __init__(self, storage: PostgresRuntimeStorage, begin: bool) -> None:
        self._storage = storage
        self._begin = begin

    def __enter__(self) -> tuple[_PostgresSession, Pipeline]:
        lending = self._storage.lending
        try:
            self._lent = lent = lending.take()
        except Exception as error:
            raise_what_it_means(error)
            raise
        try:
            self._pipeline = Pipeline(lent.driver, lent.prepared, begin=self._begin)
        except Exception as error:
            lending.give_back(lent)
            raise_what_it_means(error)
            raise
        self._session = _PostgresSession(self._pipeline, self._storage.may_leave_commits)
        return self._session, self._pipeline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                _roll_back(self._lent.driver, self._pipeline)
        finally:
            self._storage.statements += self._session.executed
            self._storage.lending.give_back(self._lent)
        if isinstance(error, Exception):
            raise_what_it_means(error)


def _roll_back(driver: psycopg.Connection[Any], pipeline: Pipeline) -> None:
    if driver.closed:
        return
    try:
        pipeline.abandon()
        driver.rollback()
    except psycopg.Error as error:
        log.debug("a connection is given up: %s", error)
        driver.close()


class _PostgresSession(Session):
    """Sends what is executed with the next statement whose answer is looked at, and waits then for all of them.

    `may_be_left`: there are connections for another one, before this one ends.
    """

    def __init__(self, pipeline: Pipeline, may_be_left: bool) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._may_be_left = may_be_left

    def begin_commit(self) -> bool:
        if self._may_be_left:
            self._pipeline.begin_commit()
        return self._may_be_left

    def all(self, statement: Statement, **parameters: Any) -> list[Row]:
        return self._execute(statement, parameters).rows()

    def of_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> list[Row]:
        return self._execute(statement, _keys(keys)).rows()

    def ask(self, statement: Statement, **parameters: Any) -> Callable[[], list[Row]]:
        return self._execute(statement, parameters).rows

    def ask_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> Callable[[], list[Row]]:
        return self._execute(statement, _keys(keys)).rows

    def run(self, statement: Statement, **parameters: Any) -> int:
        return self._execute(statement, parameters).count

    def write(self, statement: Statement, rows: Sequence[Row]) -> None:
        arrays = _arrays(statement, rows)
        if len(rows) > 1 and sum(map(len, arrays.values())) > STATEMENT_BYTES:
            half = len(rows) // 2
            self.write(statement, rows[:half])
            self.write(statement, rows[half:])
        else:
            self._execute(statement, arrays)

    def write_one(self, statement: Statement, row: Row) -> bool:
        return self._execute(statement, _arrays(statement, [row])).count > 0

    def swap(self, swap: Swap) -> int | None:
        """Write it where the rows are as they were seen: of how many characters its result is. None: they are not."""
        statement = _statements().swap_steps if swap.run is None else _statements().swap_all
        values = values_of(swap, _new(statement, swap.seen_run.instance_id, swap.new))
        return len(values["set_result"] or "") if self._execute(statement, values).count else None

    def begin_run(self, one: Beginning) -> bool:
        """Whether there was none of this id; then it is written."""
        statement = _statements().begin_run
        values = values_to_begin(one, _new(statement, one.run.instance_id, one.steps))
        return self._execute(statement, values).count > 0

    def _execute(self, statement: Statement, parameters: dict[str, Any]) -> Answer:
        self.executed += 1
        return self._pipeline.execute(statement, parameters)


def _keys(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    pairs = list(keys)
    return {"firsts": [pair[0] for pair in pairs], "seconds": [pair[1] for pair in pairs]}


def _new(statement: Statement, instance_id: str, steps: Sequence[StepRow]) -> str:
    return _text(statement, new_rows(instance_id, steps)) if steps else "[]"


def _arrays(statement: Statement, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        name: to_array(values)
        for name, values in zip(statement.columns, zip(*rows, strict=True), strict=True)
    }


def _text(statement: Statement, values: Sequence[Row]) -> str:
    # A key that is not there is NULL: half of a step's columns are, and each costs the server its reading.
    columns = statement.columns
    return _dumps([{k: v for k, v in zip(columns, row, strict=True) if v is not None} for row in values])


def _dumps(rows: list[dict[str, Any]]) -> str:
    """ASCII, for a database that has another encoding than UTF-8."""
    try:
        text = to_json(rows, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError):  # a lone surrogate
        text = b"\xff"
    if text.isascii() and b"NaN" not in text and b"Infinity" not in text:
        return text.decode("ascii")
    try:
        return json.dumps(rows, allow_nan=False)
    except ValueError as error:
        raise CallerError(f"a number that PostgreSQL cannot hold: {error}") from error


@cache
def _statements() -> SwappingStatements:
    return SwappingStatements()


def postgres_engine(url: URL, *, for_one: bool = False, pool_size: int = 10) -> Engine:
    """An engine. `for_one`: keeps no connection, and bounds no statement, as a migration may take long."""
    ours = _SESSION | _PLANNER if not for_one else {}
    # What the URL asks for comes last and wins.
    asked = url.query.get("options", "")
    options = " ".join([*(f"-c {name}={value}" for name, value in ours.items()), str(asked)]).strip()
    plain = url.difference_update_query(["options"])
    defaults = {name: value for name, value in _KEEPALIVE.items() if name not in url.query}
    if "application_name" not in url.query:
        defaults["application_name"] = "fuseline"  # type: ignore[assignment]
    sizes: dict[str, Any] = (
        {"poolclass": NullPool}
        if for_one
        else {
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": POOL_SECONDS,
            "pool_reset_on_return": None,  # what is given back is in no transaction
        }
    )
    return create_engine(
        plain.set(drivername="postgresql+psycopg"),
        # Once psycopg has prepared a statement by itself, its first rollback says DEALLOCATE ALL, to our statements too.
        connect_args={**defaults, "options": options, "prepare_threshold": None},
        **sizes,
    )


_UNFIT = (errors.UndefinedTable, errors.UndefinedColumn)
_WRONG = (psycopg.DataError, psycopg.ProgrammingError, errors.NotNullViolation)


@contextmanager
def explained() -> Iterator[None]:
    """The driver's and the pool's errors as what they mean."""
    try:
        yield
    except Exception as error:
        raise_what_it_means(error)
        raise


def raise_what_it_means(error: Exception) -> None:
    """Raise an error of the driver, or of the pool, as one of ours; nothing for any other."""
    if isinstance(error, psycopg.Error):
        raise _explain(error) from error
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        raise _explain(error.orig) from error
    if isinstance(error, PoolTimeoutError):
        raise StorageUnavailableError("all connections to the database are in use") from error


def _explain(error: psycopg.Error) -> FuselineError:
    told = " ".join(str(error).split())
    if isinstance(error, _UNFIT):
        return MigrationError(
            f"the database's tables are not those of this version: {told}: fuseline db upgrade"
        )
    if isinstance(error, errors.UniqueViolation):
        return StorageUnavailableError(
            f"another transaction wrote the same at the same time: {told}", is_conflict=True
        )
    if isinstance(error, errors.InvalidSqlStatementName):
        return StorageUnavailableError(f"somebody took away what was prepared on the connection: {told}")
    if isinstance(error, errors.InsufficientPrivilege):
        return FatalError(f"the database's user lacks a right: {told}")
    if isinstance(error, _WRONG):
        return CallerError(f"what PostgreSQL cannot hold: {told}")
    return StorageUnavailableError(f"the database cannot be used: {told}")

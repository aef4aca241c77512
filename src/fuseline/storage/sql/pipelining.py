"""PostgreSQL in few round trips: statements go out together, and their answers are waited for together.

psycopg's own pipeline looks at the socket for each statement, which costs as much processor time as the statement; here
they gather in libpq's buffer until somebody needs an answer (ADR 0006).
"""

from __future__ import annotations

import re
import select
from collections import deque
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from fuseline.errors import CallerError
from fuseline.storage.sql.arrays import to_array
from fuseline.storage.sql.session import Row
from fuseline.storage.sql.statements import Statement

_PARAMETER: Final = re.compile(r"%\((\w+)\)s|%%")
_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED, ExecStatus.BAD_RESPONSE)


class Prepared:
    """What is prepared on one connection, by the statement's text."""

    def __init__(self) -> None:
        self.names: dict[str, bytes] = {}
        self._made = 0

    def new_name(self, query: bytes) -> bytes:
        """A name that was never used here: one of a transaction that failed may exist or not.

        It is the query's own: a pooler may hand us a connection on which somebody else has prepared as many.
        """
        self._made += 1
        return b"fuseline_%d_%s" % (self._made, blake2b(query, digest_size=8).hexdigest().encode())


class Answer:
    """Of one statement: its rows, or how many it changed, when they are asked for."""

    __slots__ = ("_pipeline", "result")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.result: PGresult | None = None

    def _got(self) -> PGresult:
        if self.result is None:
            self._pipeline.receive()
        assert self.result is not None
        return self.result

    def rows(self) -> list[Row]:
        """The rows found. Raises the driver's error of this statement, or of one before it."""
        result = self._got()
        reader = self._pipeline.reader
        reader.set_pgresult(result)
        rows: list[Row] = reader.load_rows(0, result.ntuples, tuple)
        return rows

    @property
    def count(self) -> int:
        """How many rows it changed. Raises likewise."""
        return self._got().command_tuples or 0


class Pipeline:
    """What is executed on `connection`, which nobody else uses meanwhile; end it with `commit`, `finish` or `abandon`.

    With `begin` all of it is one transaction. Without, it is for reads, each of which sees what is committed by then, or for
    one statement that writes, and is committed with its answer.
    """

    def __init__(self, connection: psycopg.Connection[Any], prepared: Prepared, *, begin: bool) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._encoding = connection.info.encoding
        self._prepared = prepared
        self._fresh: dict[str, bytes] = {}
        self._waiting: deque[Answer | None] = deque()
        self._syncs = 0  # sent, and not come back
        self._has_begun = begin
        self._committed: Answer | None = None
        self.reader = Transformer(connection)
        self._pg.enter_pipeline_mode()
        if begin:
            self._send_command(b"BEGIN", None)

    def execute(self, statement: Statement, parameters: dict[str, Any]) -> Answer:
        """Send it behind the others, sooner or later. Raises `CallerError` for a text that PostgreSQL cannot hold."""
        if self._committed is not None:  # its answer would never come
            raise RuntimeError("the transaction is being committed: nothing more can be done in it")
        query, names = _numbered(statement.text)
        encoding = self._encoding
        values = [None if (value := parameters[name]) is None else _dumped(value, encoding) for name in names]
        name = self._prepared.names.get(statement.text) or self._fresh.get(statement.text)
        if name is None:
            name = self._fresh[statement.text] = self._prepared.new_name(query)
            self._pg.send_prepare(name, query)
            self._waiting.append(None)
        self._pg.send_query_prepared(name, values)
        answer = Answer(self)
        self._waiting.append(answer)
        return answer

    def receive(self) -> None:
        """Wait for the answers to all that was executed. Raises the driver's first error."""
        if self._has_begun:
            self._pg.send_flush_request()
            self._connection.wait(self._receive())
        else:
            self._synchronise()

    def begin_commit(self) -> None:
        """Have the server end the transaction by itself, whatever becomes of us; `commit` waits for it."""
        self._send_commit()
        self._connection.wait(generators.send(self._pg))

    def commit(self, meanwhile: Callable[[], bool] | None = None) -> bool:
        """End the transaction; False when the server has not committed it. Raises the driver's first error.

        `meanwhile` is called while the server has work to do, until it answers or that returns False.
        """
        committed = self._committed or self._send_commit()
        if meanwhile is not None:
            self._connection.wait(generators.send(self._pg))
            while not self._has_answered() and meanwhile():
                pass
        self._come_to_the_end()
        self._leave()
        return committed.result is not None and committed.result.command_status == b"COMMIT"

    def finish(self) -> None:
        """End what was no transaction. Raises the driver's first error."""
        if self._waiting:
            self._synchronise()
        self._leave()

    def abandon(self) -> None:
        """Leave the transaction, if it is one, to be rolled back. Raises the driver's error when the connection is lost."""
        if self._pg.pipeline_status == PipelineStatus.OFF:
            return
        if not self._syncs:
            self._send_sync()
        self._connection.wait(self._come_back())
        self._pg.exit_pipeline_mode()

    def _leave(self) -> None:
        self._pg.exit_pipeline_mode()
        self._prepared.names.update(self._fresh)
        self._committed = None  # each knows the other: Python would find that in a search for garbage only

    def _send_commit(self) -> Answer:
        self._committed = answer = Answer(self)
        self._send_command(b"COMMIT", answer)
        self._send_sync()
        return answer

    def _send_command(self, command: bytes, answer: Answer | None) -> None:
        self._pg.send_query_params(command, None)
        self._waiting.append(answer)

    def _send_sync(self) -> None:
        self._pg.pipeline_sync()
        self._syncs += 1

    def _has_answered(self) -> bool:
        """Whether there is something to read, here or at the socket."""
        if not self._pg.is_busy():
            return True
        poll = select.poll()
        poll.register(self._pg.socket, select.POLLIN)
        return bool(poll.poll(0))

    def _synchronise(self) -> None:
        self._send_sync()
        self._come_to_the_end()

    def _come_to_the_end(self) -> None:
        """Wait for all that was sent before the last sync."""
        self._connection.wait(self._receive())
        failed = self._connection.wait(self._come_back())
        if failed is not None:
            # Where there was no BEGIN it is here that the server commits: after the statement's own answer.
            raise error_from_result(failed, encoding=self._encoding)

    def _receive(self) -> PQGen[None]:
        yield from generators.send(self._pg)
        while self._waiting:
            result = yield from self._next()
            if result.status in _FAILED:
                error = error_from_result(result, encoding=self._encoding)
                if isinstance(
                    error, InvalidSqlStatementName
                ):  # DEALLOCATE ALL, DISCARD ALL: by a pooler, say
                    self._prepared.names.clear()
                raise error
            if (answer := self._waiting.popleft()) is not None:
                answer.result = result

    def _come_back(self) -> PQGen[PGresult | None]:
        """Past whatever else is under way, to the end of what was sent; what failed on the way, if anything did."""
        failed = None
        yield from generators.send(self._pg)
        while self._syncs:
            result = yield from self._next()
            if result.status == ExecStatus.PIPELINE_SYNC:
                self._syncs -= 1
            elif result.status in _FAILED:
                failed = failed or result
        return failed

    def _next(self) -> PQGen[PGresult]:
        for _ in range(2):  # a wait that was interrupted may have left the end of an answer
            results: list[PGresult] = yield from generators.fetch_many(self._pg)
            if results:
                return results[-1]
        raise psycopg.OperationalError("the database's server gave no answer")


def is_unused(connection: psycopg.Connection[Any]) -> bool:
    """Whether nothing is under way: it is out of the pipeline, and in no transaction."""
    pg = connection.pgconn
    is_out: bool = pg.pipeline_status == PipelineStatus.OFF
    return is_out and pg.transaction_status == TransactionStatus.IDLE


@cache
def _numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with its parameters by number, and their names in that order."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PARAMETER.sub(number, text).encode(), tuple(names)


def _dumped(value: Any, encoding: str) -> bytes:
    if isinstance(value, list):
        value = to_array(value)
    if isinstance(value, bytes):  # an array, in ASCII
        return value
    if not isinstance(value, str):
        value = repr(value)  # a number
    if "\x00" in value:
        raise CallerError("a text that PostgreSQL cannot hold: it has a NUL")
    try:
        encoded: bytes = value.encode(encoding)
    except UnicodeEncodeError as error:
        raise CallerError(f"a text that PostgreSQL cannot hold: {error}") from error
    # Python writes a yen sign as a backslash in Japanese encodings, which would end an array's element elsewhere.
    if encoding != "utf-8" and not value.isascii() and encoded.decode(encoding) != value:
        raise CallerError(f"a text that PostgreSQL cannot hold: {encoding} has not each of its letters")
    return encoded

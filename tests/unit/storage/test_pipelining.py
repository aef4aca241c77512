"""Statements that go out together: what one of them breaks, and what is left of the connection then."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Verdict
from fuseline.engine.events import StepReported
from fuseline.errors import CallerError
from fuseline.ledger import Dispatch, Ledger, Occurrence
from fuseline.model import Status
from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.sql.pipelining import Pipeline, Prepared, is_unused
from fuseline.storage.sql.statements import Statement
from fuseline.storage.transaction import Changes, Wanted
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import run_row


def sql(text: str) -> Statement:
    return Statement(text, (), {})


ECHO = sql("SELECT t.x FROM unnest(%(texts)s::VARCHAR[]) AS t(x)")
DIVIDE = sql("SELECT 6 / %(by)s::INTEGER, %(by)s::INTEGER, 7 %% 4")
PUT = sql("INSERT INTO kept SELECT %(n)s::INTEGER WHERE %(n)s::INTEGER > 0")
READ = sql("SELECT n FROM kept ORDER BY n")


@pytest.fixture
def connection(fresh_postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One to a database with a table."""
    with psycopg.connect(fresh_postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n INTEGER CHECK (n < 100))")
        yield connection


@pytest.fixture
def prepared() -> Prepared:
    """Of that connection."""
    return Prepared()


@pytest.mark.parametrize("begin", [True, False], ids=["transaction", "reads"])
def test_each_statement_gets_its_own_answer(
    connection: psycopg.Connection[Any], prepared: Prepared, begin: bool
) -> None:
    for _ in range(2):  # prepared anew, and prepared already
        pipeline = Pipeline(connection, prepared, begin=begin)
        first, second = pipeline.execute(ECHO, {"texts": ["a", "b"]}), pipeline.execute(DIVIDE, {"by": 3})
        assert second.rows() == [(2, 3, 3)]
        assert first.rows() == [("a",), ("b",)]
        assert pipeline.execute(ECHO, {"texts": []}).rows() == []
        if begin:
            assert pipeline.commit()
        else:
            pipeline.finish()
        assert is_unused(connection)


def test_what_somebody_took_away_is_prepared_again(
    connection: psycopg.Connection[Any], prepared: Prepared
) -> None:
    """P1: a pooler, or psycopg itself, may say DEALLOCATE ALL on the connection."""
    Pipeline(connection, prepared, begin=True).commit()
    for _ in range(2):
        pipeline = Pipeline(connection, prepared, begin=True)
        assert pipeline.execute(ECHO, {"texts": ["a"]}).rows() == [("a",)]
        assert pipeline.commit()
        connection.execute("DEALLOCATE ALL")
        pipeline = Pipeline(connection, prepared, begin=True)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            pipeline.execute(ECHO, {"texts": ["a"]}).rows()
        pipeline.abandon()
        connection.execute("ROLLBACK")
        assert is_unused(connection)


def test_on_a_connection_that_somebody_else_has_prepared_nothing_of_his_is_executed(
    connection: psycopg.Connection[Any], fresh_postgres_url: str
) -> None:
    """P3, P7: a pooler that gives each transaction another of its connections gives an error, not his statement."""
    mine, his = Prepared(), Prepared()
    with psycopg.connect(fresh_postgres_url, autocommit=True) as other:
        for session, prepared, what in ((connection, mine, 1), (other, his, 2)):
            pipeline = Pipeline(session, prepared, begin=False)
            assert pipeline.execute(sql(f"SELECT {what}"), {}).rows() == [(what,)]
            pipeline.finish()
        pipeline = Pipeline(other, mine, begin=False)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            pipeline.execute(sql("SELECT 1"), {}).rows()
        pipeline.abandon()


def test_while_a_commit_is_awaited_other_work_is_done_until_the_answer_is_there(
    connection: psycopg.Connection[Any], prepared: Prepared
) -> None:
    work = itertools.count(1)
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.execute(sql("SELECT pg_sleep(0.2)"), {})
    assert pipeline.commit(lambda: next(work) > 0)  # there is always more
    assert next(work) > 1
    assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert is_unused(connection)


def test_when_all_other_work_is_done_the_commit_is_waited_for(
    connection: psycopg.Connection[Any], prepared: Prepared
) -> None:
    """And one that fails says so (P3), whatever was done in the meantime."""
    left = [True, True, False]
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.execute(sql("SELECT pg_sleep(0.2)"), {})
    pipeline.execute(PUT, {"n": 100})
    with pytest.raises(psycopg.errors.CheckViolation):
        pipeline.commit(lambda: left.pop(0))
    assert not left
    pipeline.abandon()
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT n FROM kept").fetchall() == []


def test_a_commit_that_is_begun_is_made_without_us(
    connection: psycopg.Connection[Any], prepared: Prepared, fresh_postgres_url: str
) -> None:
    """P4: it is the server's, whatever becomes of who began it. What waits for its rows waits for no process of ours."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.execute(sql("SELECT pg_sleep(0.2)"), {})
    pipeline.begin_commit()
    with psycopg.connect(fresh_postgres_url, autocommit=True) as other, other.transaction():
        other.execute("LOCK TABLE kept")  # granted when the first one has ended
        assert other.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert pipeline.commit()
    assert is_unused(connection)


def test_nothing_is_executed_behind_a_commit(connection: psycopg.Connection[Any], prepared: Prepared) -> None:
    """P7: its answer would never come."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.begin_commit()
    with pytest.raises(RuntimeError, match="being committed"):
        pipeline.execute(PUT, {"n": 2})
    assert pipeline.commit()
    assert is_unused(connection)


@pytest.mark.parametrize("waits", [True, False], ids=["and waited for", "and abandoned"])
def test_a_commit_that_is_begun_and_fails_is_an_error_at_its_end(
    connection: psycopg.Connection[Any], prepared: Prepared, waits: bool
) -> None:
    """P3: and it holds nothing until then, so that who begins something else cannot wait for himself."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.execute(PUT, {"n": 100})
    pipeline.begin_commit()
    if waits:
        with pytest.raises(psycopg.errors.CheckViolation):
            pipeline.commit()
    pipeline.abandon()
    connection.rollback()
    assert is_unused(connection)
    assert connection.execute("SELECT n FROM kept").fetchall() == []


def test_what_is_committed_leaves_nothing_for_the_search_for_garbage(
    connection: psycopg.Connection[Any], prepared: Prepared
) -> None:
    """A coordinator searches seldom: what a batch has read would stay until then."""
    for begin_first in (True, False):
        pipeline = Pipeline(connection, prepared, begin=True)
        answer = pipeline.execute(ECHO, {"texts": ["a"]})
        if begin_first:
            pipeline.begin_commit()
        assert pipeline.commit()
        gone = weakref.ref(pipeline)
        gc.disable()
        try:
            del pipeline, answer
            assert gone() is None
        finally:
            gc.enable()


def test_every_text_comes_back_as_it_was(connection: psycopg.Connection[Any], prepared: Prepared) -> None:
    texts = ["", "null", "NULL", '"', "\\", "{a,b}", "a,b", " ", "ü€😀", "\n", '\\"{},"']
    pipeline = Pipeline(connection, prepared, begin=False)
    assert pipeline.execute(ECHO, {"texts": texts}).rows() == [(text,) for text in texts]
    pipeline.finish()


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"], ids=["NUL", "a lone surrogate"])
def test_a_text_that_cannot_be_sent_is_refused_before_it_is_cut(
    connection: psycopg.Connection[Any], prepared: Prepared, text: str
) -> None:
    """P7: libpq would take a NUL for the end."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    with pytest.raises(CallerError, match="PostgreSQL cannot hold"):
        pipeline.execute(ECHO, {"texts": [text]})
    pipeline.abandon()
    connection.rollback()
    assert is_unused(connection)
    assert connection.execute("SELECT n FROM kept").fetchall() == []


@pytest.mark.parametrize("looks", [True, False], ids=["an answer is looked at", "only the commit"])
def test_a_statement_that_fails_undoes_all_and_leaves_the_connection_usable(
    connection: psycopg.Connection[Any], prepared: Prepared, looks: bool
) -> None:
    """P3, P4: nothing is committed when one of them fails, whenever it is noticed."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1})
    pipeline.execute(PUT, {"n": 100})
    last = pipeline.execute(READ, {})
    with pytest.raises(psycopg.errors.CheckViolation):
        last.rows() if looks else pipeline.commit()
    pipeline.abandon()
    connection.rollback()
    assert is_unused(connection)
    again = Pipeline(connection, prepared, begin=True)
    assert again.execute(PUT, {"n": 2}).count == 1
    assert again.execute(PUT, {"n": 0}).count == 0
    assert again.commit()
    assert connection.execute("SELECT n FROM kept").fetchall() == [(2,)]


@pytest.mark.parametrize("looks", [True, False], ids=["an answer is looked at", "only the end"])
def test_what_fails_when_the_server_commits_is_an_error(
    connection: psycopg.Connection[Any], prepared: Prepared, looks: bool
) -> None:
    """P4: a statement that is its own transaction has its answer before it is committed, and that may fail still."""
    connection.execute("ALTER TABLE kept ADD CONSTRAINT alone UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
    connection.execute("INSERT INTO kept VALUES (1)")
    pipeline = Pipeline(connection, prepared, begin=False)
    answer = pipeline.execute(PUT, {"n": 1})
    with pytest.raises(psycopg.errors.UniqueViolation):
        answer.rows() if looks else pipeline.finish()
    pipeline.abandon()
    assert is_unused(connection)
    assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_a_read_that_fails_leaves_the_connection_usable(
    connection: psycopg.Connection[Any], prepared: Prepared
) -> None:
    pipeline = Pipeline(connection, prepared, begin=False)
    pipeline.execute(ECHO, {"texts": ["a"]})
    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline.execute(DIVIDE, {"by": 0}).rows()
    pipeline.abandon()
    assert is_unused(connection)


def test_a_connection_that_is_lost_is_an_error_and_no_endless_wait(
    connection: psycopg.Connection[Any], prepared: Prepared, fresh_postgres_url: str
) -> None:
    """P7."""
    pipeline = Pipeline(connection, prepared, begin=True)
    pipeline.execute(PUT, {"n": 1}).count  # noqa: B018 - so that it is at the server
    with psycopg.connect(fresh_postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    pipeline.execute(PUT, {"n": 2})
    with pytest.raises(psycopg.OperationalError):
        pipeline.commit()
    with pytest.raises(psycopg.OperationalError):
        pipeline.abandon()


def test_a_lone_report_takes_one_round_trip_or_two(
    fresh_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hop waits for each. Of a run that this coordinator knows it is one statement, committed with its answer; of
    another what it needs is asked for at once, and what it changes goes out with the commit.
    """
    trips: list[str] = []
    come_to_the_end, receive, commit = Pipeline._come_to_the_end, Pipeline.receive, Pipeline.commit

    def counted_end(self: Pipeline) -> None:
        trips.append("end")
        come_to_the_end(self)

    def counted_receive(self: Pipeline) -> None:
        trips.append("receive")
        receive(self)

    def counted_commit(self: Pipeline, meanwhile: Callable[[], bool] | None = None) -> bool:
        trips.append("commit")
        return commit(self, meanwhile)

    monkeypatch.setattr(Pipeline, "_come_to_the_end", counted_end)
    monkeypatch.setattr(Pipeline, "receive", counted_receive)
    monkeypatch.setattr(Pipeline, "commit", counted_commit)
    with closing(PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)) as storage:
        ledger = Ledger(storage, ManualClock())
        ledger.register([graph("chain", {"a": ["b"], "b": ["c"], "c": []})])
        ledger.apply([Dispatch("chain", "1", "run")])
        storage._recollection.forget("run")
        for name, expected in (
            ("a", ["receive", "commit", "end"]),
            ("b", ["receive", "end"]),
            ("c", ["receive", "end"]),
        ):
            trips.clear()
            event = StepReported(name, 1, Status.SUCCEEDED, result=1, holder="w")
            (outcome,) = ledger.apply([Occurrence("run", event, "chain")])
            assert outcome.verdict is Verdict.ACCEPTED
            assert trips == expected


def save_in_vain(storage: PostgresRuntimeStorage) -> None:
    with storage.transaction() as tx:
        tx.load(Wanted({"nobody"}))
        tx.save(Changes([run_row("undone")]))
        tx.load(Wanted({"nobody"}))
        tx.save(Changes([run_row("undone, too")]))
        raise ZeroDivisionError


@pytest.mark.parametrize("where", ["abandon", "rollback"])
def test_who_is_interrupted_again_while_he_leaves_gives_no_half_used_connection_back(
    fresh_postgres_url: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """P3, P4: what was given up would be committed with the next one, and its answers taken for those of the next one."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with closing(PostgresRuntimeStorage(fresh_postgres_url, upgrade=True, pool_size=1)) as storage:
        with monkeypatch.context() as patched:
            patched.setattr(Pipeline if where == "abandon" else psycopg.Connection, where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save_in_vain(storage)
        ledger = Ledger(storage, ManualClock())
        ledger.register([graph("single", {"a": []})])
        ledger.apply([Dispatch("single", "1", "i1")])
        assert [row.instance_id for row in storage.list_runs()] == ["i1"]

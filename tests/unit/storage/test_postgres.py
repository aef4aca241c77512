"""PostgreSQL: how it is opened, and what its errors mean."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from fuseline.clock import SystemClock
from fuseline.errors import CallerError, FatalError, MigrationError, StorageUnavailableError
from fuseline.model import Status
from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.sql import lending, open_storage, postgres, upgrade
from fuseline.storage.transaction import Changes, Wanted
from fuseline.testing.storage_cases import keep, run_row, step_row


@pytest.fixture
def storage(postgres_url: str) -> Iterator[PostgresRuntimeStorage]:
    storage = PostgresRuntimeStorage(postgres_url, upgrade=True, pool_size=2)
    yield storage
    storage.close()


@pytest.fixture
def instance_id() -> str:
    """Of a run in a database that is shared."""
    return SystemClock().new_id()


def ask(storage: PostgresRuntimeStorage, question: str) -> str:
    connection = storage.engine.raw_connection()
    cursor = connection.cursor()
    cursor.execute(question)
    (answer,) = cursor.fetchone() or ("",)
    connection.close()
    return str(answer)


def test_an_empty_database_is_upgraded_only_when_asked(fresh_postgres_url: str) -> None:
    for opening in (PostgresRuntimeStorage, open_storage):
        with pytest.raises(MigrationError, match="fuseline db upgrade"):
            opening(fresh_postgres_url)
    PostgresRuntimeStorage(fresh_postgres_url, upgrade=True).close()
    PostgresRuntimeStorage(fresh_postgres_url).close()


def test_tables_that_are_not_ours_are_told(fresh_postgres_url: str) -> None:
    upgrade(fresh_postgres_url)
    storage = PostgresRuntimeStorage(fresh_postgres_url)
    with psycopg.connect(fresh_postgres_url) as connection:
        connection.execute("ALTER TABLE fuseline_runs DROP COLUMN due_at")
    with pytest.raises(MigrationError, match="fuseline db upgrade"):
        storage.next_due()
    storage.close()


def test_a_user_without_rights_is_told(fresh_postgres_url: str) -> None:
    upgrade(fresh_postgres_url)
    role = f"reader_{fresh_postgres_url[-6:]}"
    with psycopg.connect(fresh_postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        storage = PostgresRuntimeStorage(fresh_postgres_url.replace("postgres@", f"{role}@"))
        try:
            assert storage.list_runs() == []
            with pytest.raises(FatalError, match="lacks a right"):
                keep(storage, run_row("i"))
        finally:
            storage.close()
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


def test_every_session_is_bounded_and_plans_by_index(storage: PostgresRuntimeStorage) -> None:
    """P7: nothing waits for ever."""
    for setting, value in {
        "statement_timeout": "10s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "30s",
        "transaction_isolation": "read committed",
        "enable_seqscan": "off",
        "jit": "off",
        "application_name": "fuseline",
    }.items():
        assert ask(storage, f"SHOW {setting}") == value


def test_what_the_url_asks_for_wins(postgres_url: str, storage: PostgresRuntimeStorage) -> None:
    asked = f"{postgres_url}?application_name=mine&options=-c%20lock_timeout%3D7s"
    mine = PostgresRuntimeStorage(asked)
    assert ask(mine, "SHOW application_name") == "mine"
    assert ask(mine, "SHOW lock_timeout") == "7s"
    assert ask(mine, "SHOW statement_timeout") == "10s"
    mine.close()


def test_a_connection_that_broke_while_it_was_idle_is_replaced_unseen(
    storage: PostgresRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "IDLE_SECONDS", 0.0)
    assert storage.now()
    cut(storage)
    assert storage.now()
    with storage.transaction() as tx:
        assert not tx.load(Wanted({"nobody"})).runs


def test_a_connection_that_breaks_in_use_is_told_and_replaced(
    storage: PostgresRuntimeStorage, instance_id: str
) -> None:
    def break_in_between() -> None:
        with storage.transaction() as tx:
            tx.load(Wanted({"nobody"}))
            cut(storage)
            tx.load(Wanted({"nobody"}))

    with pytest.raises(StorageUnavailableError, match="cannot be used"):
        break_in_between()
    keep(storage, run_row(instance_id))
    assert storage.read_run_row(instance_id) is not None


def test_a_connection_that_was_closed_by_somebody_is_told_as_what_it_means(
    storage: PostgresRuntimeStorage,
) -> None:
    storage.now()
    storage.lending._idle[-1].driver.close()
    with pytest.raises(StorageUnavailableError, match="cannot be used"):
        storage.now()
    assert storage.now()


def _interrupted_after_it(real: Callable[..., Any]) -> Callable[..., Any]:
    def whole(use: object, *_: object) -> None:
        real(use)
        raise KeyboardInterrupt

    return whole


def _interrupted_before_it(_real: Callable[..., Any]) -> Callable[..., Any]:
    def whole(*_: object) -> None:
        raise KeyboardInterrupt

    return whole


@pytest.mark.parametrize(
    ("place", "interrupted"), [("__enter__", _interrupted_after_it), ("__exit__", _interrupted_before_it)]
)
def test_what_was_interrupted_leaves_nothing_for_the_next(
    postgres_url: str,
    instance_id: str,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    interrupted: Callable[[Any], Any],
) -> None:
    """P3: with one connection, wherever Ctrl-C falls."""
    storage = PostgresRuntimeStorage(postgres_url, pool_size=1)

    def write() -> None:
        with storage.transaction() as tx:
            tx.save(Changes(runs=[run_row(instance_id)]))
            tx.load(Wanted({"nobody"}))
            raise ValueError("nothing of it may stay")

    with monkeypatch.context() as patch:
        patch.setattr(postgres._Use, place, interrupted(getattr(postgres._Use, place)))
        with pytest.raises(KeyboardInterrupt):
            write()
    gc.collect()
    keep(storage, run_row(SystemClock().new_id()))
    assert storage.now() > 0
    assert storage.read_run(instance_id) is None
    storage.close()


def cut(storage: PostgresRuntimeStorage) -> None:
    """End every connection to the storage's database but the one that says so."""
    url = storage.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_what_was_prepared_outlives_a_rollback(storage: PostgresRuntimeStorage, instance_id: str) -> None:
    """P1: psycopg says DEALLOCATE ALL at a rollback, once it has prepared anything itself, and a coordinator ended by it."""
    keep(storage, run_row(instance_id))
    held = [storage.lending.take() for _ in range(2)]
    for lent in held:
        driver = lent.driver
        for _ in range(10):
            driver.execute("SELECT %s::INTEGER", (1,))
        with pytest.raises(psycopg.errors.DivisionByZero):
            driver.execute("BEGIN; SELECT 1 / 0")
        driver.execute("ROLLBACK")
        driver.execute("SELECT 1")  # with which it would go out
        storage.lending.give_back(lent)
    for name in ("a", "b"):
        keep(storage, **{instance_id: [step_row(name)]})


def test_prepared_statements_that_are_gone_are_a_reason_to_try_again() -> None:
    error = psycopg.errors.InvalidSqlStatementName('prepared statement "fuseline_1" does not exist')
    with pytest.raises(StorageUnavailableError, match="prepared"), postgres.explained():
        raise error


def test_a_pool_that_is_used_up_is_told(
    postgres_url: str, storage: PostgresRuntimeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "POOL_SECONDS", 0.05)
    small = PostgresRuntimeStorage(postgres_url, pool_size=1)
    with small.transaction(), pytest.raises(StorageUnavailableError, match="in use"):
        small.now()
    small.close()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"], ids=["NUL", "surrogate"])
def test_a_name_that_is_no_text_is_refused(
    storage: PostgresRuntimeStorage, instance_id: str, name: str
) -> None:
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row(instance_id), **{instance_id: [step_row("s", action=name)]})
    with pytest.raises(CallerError, match="cannot hold"):
        storage.list_runs(workflow_id=name)
    assert storage.read_run(instance_id) is None


def test_a_letter_that_an_encoding_has_another_for_is_refused(
    fresh_postgres_url: str, instance_id: str
) -> None:
    """P3: Python writes a yen sign as a backslash in it, which would move what stands behind it to another run's row."""
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    storage.close()
    storage = PostgresRuntimeStorage(f"{fresh_postgres_url}?client_encoding=sjis")
    written = {
        instance_id: [step_row("s", action="\u00a5")],
        "other": [step_row("s", action=", yours\u00a5")],
    }
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row(instance_id), **written)
    with pytest.raises(CallerError, match="cannot hold"):
        storage.read_run("\u00a5")
    keep(storage, run_row(instance_id), **{instance_id: [step_row("s", action="\u65e5\\")]})
    stored = storage.read_run(instance_id)
    storage.close()
    assert stored is not None
    assert stored.steps["s"].action == "\u65e5\\"


def test_nothing_stays_nothing_where_a_database_has_arrays_without_nulls(
    fresh_postgres_url: str, instance_id: str
) -> None:
    """P7: PostgreSQL would read the text "null", or no number, where a row has nothing."""
    with psycopg.connect(fresh_postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET array_nulls = off")
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    row = run_row(instance_id, due_at=1.0, finished_at=2.0)
    keep(storage, row, **{instance_id: [step_row("s")]})
    stored = storage.read_run(instance_id)
    storage.close()
    assert stored is not None
    assert (stored.run, stored.steps["s"]) == (row, step_row("s"))


def test_a_row_without_what_it_must_have_is_refused(
    storage: PostgresRuntimeStorage, instance_id: str
) -> None:
    """P1: it is wrong tomorrow, too; tried again and again it would keep all that came with it."""
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row(instance_id, version=cast("str", None)))


def test_a_time_that_is_no_number_is_refused(storage: PostgresRuntimeStorage, instance_id: str) -> None:
    with pytest.raises(CallerError, match="cannot hold"):
        keep(storage, run_row(instance_id, due_at=float("nan")))


def test_many_rows_are_written_in_statements_of_a_bounded_size(
    storage: PostgresRuntimeStorage, instance_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: what took longer than a statement may, or had a gigabyte, would be tried again for ever."""
    monkeypatch.setattr(postgres, "STATEMENT_BYTES", 1_000)
    steps = [step_row(f"s{number}", Status.SUCCEEDED, result="x" * 600) for number in range(5)]
    before = storage.statements
    keep(storage, run_row(instance_id), **{instance_id: steps})
    assert storage.statements - before >= len(steps)
    stored = storage.read_run(instance_id)
    assert stored is not None
    assert {name: len(step.result) for name, step in stored.steps.items()} == {f"s{n}": 600 for n in range(5)}


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StorageUnavailableError) as told:
        open_storage("postgresql://postgres:secret@127.0.0.1:1/x")
    assert "secret" not in str(told.value)


def test_the_hot_statements_go_by_an_index_however_small_the_tables_were(
    fresh_postgres_url: str,
) -> None:
    """A plan that was made while a table was empty must not read it whole when it is large."""
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    s = storage._sql
    arrays = {"ids": ["x"], "firsts": ["x"], "seconds": ["y"]}
    values = {
        "now": 1.0,
        "limit": 5,
        "workflow_id": "w",
        "instance_id": "i",
        "after_id": "",
        "after_name": "",
    }
    hot = ["load_runs_locked", "load_steps", "load_joins", "load_inputs", "load_all_steps", "lock_due_runs"]
    hot += ["lock_due_steps", "due_steps", "take_queued", "list_queued", "next_due", "count_runs"]
    with storage._reading() as session:
        for name in hot:
            statement = getattr(s, name)
            plan = session.all(replace(statement, text=f"EXPLAIN {statement.text}"), **arrays | values)
            text = "\n".join(line for (line,) in plan)
            assert "Seq Scan" not in text, text
            assert "Hash Join" not in text, text
    storage.close()


@pytest.mark.parametrize("text", ["plain", "ü", "\ud800", "NaN", "Infinity and \x00"])
def test_rows_are_written_down_in_ascii_whatever_is_in_them(text: str) -> None:
    """The database may have another encoding than UTF-8."""
    written = postgres._dumps([{"a": text, "b": 1764000000.25, "c": None}])
    assert written.isascii()
    assert "\x00" not in written
    assert json.loads(written) == [{"a": text, "b": 1764000000.25, "c": None}]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(number: float) -> None:
    """P7."""
    with pytest.raises(CallerError, match="number"):
        postgres._dumps([{"a": 1, "b": number}])

"""From a database URL to a storage, and the state of its tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from fuseline.errors import CallerError
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.memory import MemoryRuntimeStorage
from fuseline.storage.sql import sqlite
from fuseline.storage.sql.migrating import bring_up_to_date, check_revision, find_revision


class _Opened(NamedTuple):
    engine: Engine
    explained: Any
    """A context that turns the driver's errors into ours."""


def open_storage(url: str) -> RuntimeStorage:
    """The storage at `url`; `memory:` is one in this process.

    A SQLite file is made and brought up to date as needed; a PostgreSQL database must be up to date. Raises
    `CallerError` for a URL that is none, `MigrationError`, `StorageUnavailableError`.
    """
    if url.startswith("memory:"):
        return MemoryRuntimeStorage()
    if _is_sqlite(_parse(url)):
        return sqlite.SqliteRuntimeStorage(url)
    storage: RuntimeStorage = _postgres().PostgresRuntimeStorage(url)
    return storage


def upgrade(url: str) -> None:
    """Bring the tables to this version's revision, all or nothing; safe to run twice, also at the same time."""
    engine, explained = _open(url)
    migrate = sqlite.bring_file_up_to_date if _is_sqlite(engine.url) else bring_up_to_date
    with explained:
        migrate(engine)


def current(url: str) -> str | None:
    """The revision of the tables; None when there are none."""
    parsed = _parse(url)
    if _is_sqlite(parsed) and not Path(parsed.database or "").exists():
        return None
    engine, explained = _open(url)
    with explained, engine.connect() as connection:
        return find_revision(connection)


def check(url: str) -> None:
    """Raise `MigrationError` unless the tables are those of this version."""
    check_revision(current(url))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise CallerError(
            f"{url!r} is no database URL: sqlite:///path or postgresql://user@host/database"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise CallerError(
            f"database {parsed.get_backend_name()!r} is not supported: use sqlite or postgresql"
        )
    return parsed


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _open(url: str) -> _Opened:
    """An engine for one connection, so that nothing is left to be closed."""
    parsed = _parse(url)
    if _is_sqlite(parsed):
        return _Opened(sqlite.sqlite_engine(parsed, for_one=True), sqlite.explained(parsed))
    postgres = _postgres()
    return _Opened(postgres.postgres_engine(parsed, for_one=True), postgres.explained())


def _postgres() -> Any:
    """The module, whose driver is an extra."""
    try:
        return importlib.import_module("fuseline.storage.sql.postgres")
    except ModuleNotFoundError as error:
        raise CallerError("PostgreSQL needs its driver: pip install 'fuseline[postgres]'") from error

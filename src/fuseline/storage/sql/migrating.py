"""Which migration a database has, and bringing it to this version's.

Alembic is imported only where there is something to migrate: it costs a start more than all else here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Connection, Engine, inspect

from fuseline.errors import MigrationError
from fuseline.storage.sql.tables import REVISION, VERSION_TABLE

_UPGRADE_LOCK = 0x46555345


def find_revision(connection: Connection) -> str | None:
    """The migration that the tables have; None without tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    return found


def check_revision(found: str | None) -> None:
    """Raise `MigrationError` unless that is this version's."""
    _refuse_newer(found)
    if found != REVISION:
        has = "no tables yet" if found is None else f"revision {found}"
        raise MigrationError(f"the database has {has}, this version needs {REVISION}: fuseline db upgrade")


def bring_up_to_date(engine: Engine, alone: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
    """Migrate to this version's tables, in one transaction; two at once take turns. Raises `MigrationError`.

    `alone`: entered while tables that are there already are changed; it raises when somebody works with them.
    """
    with engine.connect() as connection:
        found = find_revision(connection)
        connection.rollback()
        if found == REVISION:
            return
        _refuse_newer(found)
        with nullcontext() if found is None else alone():
            _migrate(connection)


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
    found = find_revision(connection)  # another one may have been first
    _refuse_newer(found)
    if found is None and inspect(connection).has_table("fuseline_revision"):
        raise MigrationError(
            "the tables are of a Fuseline before its first release: begin with an empty database"
        )
    if found != REVISION:
        running = importlib.import_module("fuseline.storage.migrations.running")
        if found is not None and found not in running.revisions():
            raise MigrationError(
                f"the database has revision {found}, which no version of Fuseline made: is it the right database?"
            )
        running.migrate(connection)
    connection.commit()


def _refuse_newer(found: str | None) -> None:
    if found is not None and found > REVISION:
        raise MigrationError(
            f"the database has revision {found}, newer than this version's {REVISION}: upgrade Fuseline"
        )

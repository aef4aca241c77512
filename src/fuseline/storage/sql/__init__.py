"""Storages on SQLite and PostgreSQL."""

from fuseline.storage.sql.opening import check, current, open_storage, upgrade
from fuseline.storage.sql.sqlite import SqliteRuntimeStorage
from fuseline.storage.sql.storage import SqlRuntimeStorage

__all__ = [
    "SqlRuntimeStorage",
    "SqliteRuntimeStorage",
    "check",
    "current",
    "open_storage",
    "upgrade",
]

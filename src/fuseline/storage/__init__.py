"""Where runs live: in memory, in SQLite, in PostgreSQL."""

from typing import TYPE_CHECKING

from fuseline.lazily import imported_on_demand
from fuseline.storage.base import (
    Changes,
    Due,
    Loaded,
    RuntimeStorage,
    StoredRun,
    StoredSchema,
    Transaction,
    Wanted,
)
from fuseline.storage.memory import MemoryRuntimeStorage

if TYPE_CHECKING:
    from fuseline.storage.sql.opening import open_storage
    from fuseline.storage.sql.postgres import PostgresRuntimeStorage
    from fuseline.storage.sql.sqlite import SqliteRuntimeStorage

__all__ = [
    "Changes",
    "Due",
    "Loaded",
    "MemoryRuntimeStorage",
    "PostgresRuntimeStorage",
    "RuntimeStorage",
    "SqliteRuntimeStorage",
    "StoredRun",
    "StoredSchema",
    "Transaction",
    "Wanted",
    "open_storage",
]

# SQLAlchemy is imported by whoever uses it: this package is imported by every `import fuseline`, which it would treble.
__getattr__ = imported_on_demand(
    __name__,
    {
        "PostgresRuntimeStorage": "fuseline.storage.sql.postgres",
        "SqliteRuntimeStorage": "fuseline.storage.sql.sqlite",
        "open_storage": "fuseline.storage.sql.opening",
    },
)

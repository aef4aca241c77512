"""What Alembic executes around the revisions. The connection, within its transaction, comes from `sql.migrating`."""

from __future__ import annotations

from alembic import context

from fuseline.storage.sql.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()

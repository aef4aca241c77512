"""Alembic, run from here: no alembic.ini, and on a connection that is given."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def migrate(connection: Connection) -> None:
    """Execute the revisions that the database lacks, within the transaction that the connection is in."""
    command.upgrade(config(connection), "head")


def revisions() -> set[str]:
    """All that there are."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def config(connection: Connection | None = None) -> Config:
    """Where the revisions are, and what to execute them on."""
    made = Config()
    # A percent sign begins a reference in a configuration file.
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made

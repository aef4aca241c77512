"""The tables, as the newest migration leaves them.

Steps' results, errors, inputs and definitions are JSON texts in ASCII, so that a NUL or a lone surrogate in them can be
stored. There are no foreign keys: only this package writes, under the run's lock, and a check for each row would cost as
much as the row.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text

from fuseline.model.status import Status

REVISION = "0002"
"""The migration that this version of Fuseline works with: the newest in `migrations/versions`. They are numbered."""

VERSION_TABLE = "fuseline_version"
"""Where Alembic keeps which migration a database has."""

metadata = MetaData()

runs = Table(
    "fuseline_runs",
    metadata,
    Column("instance_id", String, primary_key=True),
    Column("workflow_id", String, nullable=False),
    Column("version", String, nullable=False),
    Column("status", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("open_steps", Integer, nullable=False),
    Column("failed_step", String),
    Column("error", Text),
    Column("due_at", Double),
    Column("finished_at", Double),
    Column("replays", Integer, nullable=False, server_default="0"),
)
inputs = Table(
    "fuseline_inputs",
    metadata,
    Column("instance_id", String, primary_key=True),
    Column("body", Text, nullable=False),
)
steps = Table(
    "fuseline_steps",
    metadata,
    Column("instance_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("status", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("holder", String),
    Column("queued_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("due_at", Double),
    Column("action", String),
    Column("result", Text),
    Column("error", Text),
)
joins = Table(
    "fuseline_joins",
    metadata,
    Column("instance_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("unresolved", Integer, nullable=False),
    Column("met", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("fired", Boolean, nullable=False),
    Column("groups", Text, nullable=False),
)
dead_letters = Table(
    "fuseline_dead_letters",
    metadata,
    Column("instance_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("letter_id", String, nullable=False),
    Column("workflow_id", String, nullable=False),
    Column("version", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("error", Text, nullable=False),
    Column("died_at", Double, nullable=False),
    Column("state", String, nullable=False),
    Column("settled_at", Double),
    Column("next_attempt", Integer),
)
schemas = Table(
    "fuseline_schemas",
    metadata,
    Column("workflow_id", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("registered_at", Double, nullable=False),
    Column("body", Text, nullable=False),
)
workers = Table(
    "fuseline_workers",
    metadata,
    Column("worker_id", String, primary_key=True),
    Column("last_seen_at", Double, nullable=False),
    Column("body", Text, nullable=False),
)


def _partial(name: str, *columns: Column[object], where: object) -> None:
    Index(name, *columns, postgresql_where=where, sqlite_where=where)


_partial("fuseline_runs_due", runs.c.due_at, where=runs.c.due_at.is_not(None))
_partial("fuseline_runs_finished", runs.c.finished_at, where=runs.c.finished_at.is_not(None))
Index("fuseline_runs_workflow", runs.c.workflow_id, runs.c.instance_id)
Index("fuseline_runs_status", runs.c.status, runs.c.instance_id)
Index("fuseline_dead_letters_id", dead_letters.c.letter_id, unique=True)
Index("fuseline_dead_letters_workflow", dead_letters.c.workflow_id, dead_letters.c.letter_id)
Index("fuseline_dead_letters_state", dead_letters.c.state, dead_letters.c.reason, dead_letters.c.letter_id)
_partial("fuseline_steps_due", steps.c.due_at, where=steps.c.due_at.is_not(None))
_partial(
    "fuseline_steps_queued",
    steps.c.instance_id,
    steps.c.name,
    where=steps.c.status == Status.QUEUED.value,
)

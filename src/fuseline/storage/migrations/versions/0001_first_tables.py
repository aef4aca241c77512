"""The first tables.

Written out, not taken from `sql.tables`: those are always the newest, this stays what it was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    op.create_table(
        "fuseline_runs",
        sa.Column("instance_id", sa.String, primary_key=True),
        sa.Column("workflow_id", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("open_steps", sa.Integer, nullable=False),
        sa.Column("failed_step", sa.String),
        sa.Column("error", sa.Text),
        sa.Column("due_at", sa.Double),
        sa.Column("finished_at", sa.Double),
    )
    op.create_table(
        "fuseline_inputs",
        sa.Column("instance_id", sa.String, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "fuseline_steps",
        sa.Column("instance_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("holder", sa.String),
        sa.Column("queued_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("due_at", sa.Double),
        sa.Column("action", sa.String),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "fuseline_joins",
        sa.Column("instance_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("unresolved", sa.Integer, nullable=False),
        sa.Column("met", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("fired", sa.Boolean, nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
    )
    op.create_table(
        "fuseline_schemas",
        sa.Column("workflow_id", sa.String, primary_key=True),
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("registered_at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "fuseline_workers",
        sa.Column("worker_id", sa.String, primary_key=True),
        sa.Column("last_seen_at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    _partial("fuseline_runs_due", "fuseline_runs", ["due_at"], "due_at IS NOT NULL")
    _partial("fuseline_runs_finished", "fuseline_runs", ["finished_at"], "finished_at IS NOT NULL")
    op.create_index("fuseline_runs_workflow", "fuseline_runs", ["workflow_id", "instance_id"])
    op.create_index("fuseline_runs_status", "fuseline_runs", ["status", "instance_id"])
    _partial("fuseline_steps_due", "fuseline_steps", ["due_at"], "due_at IS NOT NULL")
    _partial("fuseline_steps_queued", "fuseline_steps", ["instance_id", "name"], "status = 'QUEUED'")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))

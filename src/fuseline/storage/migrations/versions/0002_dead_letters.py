"""Dead letters, and how often a run was replayed.

Steps that failed for good before this have no dead letter.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.add_column("fuseline_runs", sa.Column("replays", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "fuseline_dead_letters",
        sa.Column("instance_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("letter_id", sa.String, nullable=False),
        sa.Column("workflow_id", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("died_at", sa.Double, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("settled_at", sa.Double),
        sa.Column("next_attempt", sa.Integer),
    )
    table = "fuseline_dead_letters"
    op.create_index("fuseline_dead_letters_id", table, ["letter_id"], unique=True)
    op.create_index("fuseline_dead_letters_workflow", table, ["workflow_id", "letter_id"])
    op.create_index("fuseline_dead_letters_state", table, ["state", "reason", "letter_id"])

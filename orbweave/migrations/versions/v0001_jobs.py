"""Jobs with their states, leases and results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of jobs."""
    op.create_table(
        "orbweave_jobs",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("parent", sa.Integer, sa.ForeignKey("orbweave_jobs.id", ondelete="CASCADE")),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("key", sa.Text, unique=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("position", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("asked", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", sa.Float),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("finished", sa.Float),
        sa.Column("seconds", sa.Float),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.Text, nullable=False),
    )
    columns = ["state", "parent", "priority", "position"]
    op.create_index("orbweave_jobs_next", "orbweave_jobs", columns)
    op.create_index("orbweave_jobs_of", "orbweave_jobs", ["parent", "state"])
    op.create_index("orbweave_jobs_like", "orbweave_jobs", ["profile", "finished"])


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("orbweave_jobs")

"""Progress of jobs, so that a view can tell how long they will take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of events."""
    op.create_table(
        "orbweave_events",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column(
            "job", sa.Integer, sa.ForeignKey("orbweave_jobs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("eta_s", sa.Float),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("orbweave_events_of", "orbweave_events", ["job", "id"])


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("orbweave_events")

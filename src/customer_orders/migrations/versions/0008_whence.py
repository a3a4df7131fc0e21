"""Of each message, the request that queued it, and that one's place in a trace."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; nobody knows of those that there are."""
    op.add_column("notifications", sa.Column("request_id", sa.String(64), nullable=True))
    op.add_column("notifications", sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    """Drop both."""
    op.drop_column("notifications", "traceparent")
    op.drop_column("notifications", "request_id")

"""What is due is found in its order: many messages may have one time, such as the end of the quiet hours."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Put the id behind the time."""
    op.create_index("ix_notifications_status_next_attempt_at_id", "notifications", ["status", "next_attempt_at", "id"])
    op.drop_index("ix_notifications_status_next_attempt_at", "notifications")


def downgrade() -> None:
    """Drop it from there."""
    op.create_index("ix_notifications_status_next_attempt_at", "notifications", ["status", "next_attempt_at"])
    op.drop_index("ix_notifications_status_next_attempt_at_id", "notifications")

"""Delivery: paused channels, delivery reports, and what a merchant asks about each message."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
# SQLite makes the table anew, and forgets this unless told
AUTOINCREMENT = {"sqlite_autoincrement": True}

COLUMNS = (
    ("notifications", "customer_id", BIG),
    ("notifications", "requeued_at", TIME),
    ("notifications", "sent_at", TIME),
    ("notifications", "delivered_at", TIME),
    ("notifications", "encoding", sa.String(8)),
    ("notifications", "segments", sa.Integer()),
    ("customers", "sms_opt_out_source", sa.String(16)),
    ("customers", "sms_opt_out_at", TIME),
)
INDEXES = (
    ("notifications", "customer_id", "id"),
    ("notifications", "recipient", "id"),
    ("notifications", "status", "sent_at"),
    ("notification_attempts", "reference"),
)


def upgrade() -> None:
    """Add them, and say of each message whom it is for."""
    op.create_table(
        "channels",
        sa.Column("notifier", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("pauses", sa.Integer(), nullable=False),
        sa.Column("paused_until", TIME, nullable=True),
        sa.Column("probe_owner", sa.String(32), nullable=True),
        sa.Column("reason", sa.String(255), nullable=True),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("notifier", name="pk_channels"),
    )
    op.create_table(
        "delivery_reports",
        sa.Column("id", BIG, nullable=False),
        sa.Column("notifier", sa.String(64), nullable=False),
        sa.Column("reference", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(255), nullable=True),
        sa.Column("recipient", sa.String(255), nullable=True),
        sa.Column("notification_id", BIG, nullable=True),
        sa.Column("received_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_reports"),
        sa.UniqueConstraint("notifier", "reference", "status", name="uq_delivery_reports_notifier_reference_status"),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notifications.id"],
            name="fk_delivery_reports_notification_id_notifications",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_delivery_reports_notification_id", "delivery_reports", ["notification_id"])
    op.create_index("ix_delivery_reports_notifier_recipient", "delivery_reports", ["notifier", "recipient"])
    op.create_index("ix_delivery_reports_received_at", "delivery_reports", ["received_at"])
    for table, column, kind in COLUMNS:
        op.add_column(table, sa.Column(column, kind, nullable=True))
    # the default stays: code before this one can go on adding rows
    op.add_column("notifications", sa.Column("unburned", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE notifications SET customer_id = (SELECT customer_id FROM orders WHERE orders.id = order_id)"
        " WHERE order_id IS NOT NULL"
    )
    # expiry counts from here
    op.execute("UPDATE notifications SET sent_at = updated_at WHERE status IN ('sent', 'unknown')")
    for table, *columns in INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    with op.batch_alter_table("notifications", table_kwargs=AUTOINCREMENT) as batch:
        batch.create_foreign_key(
            "fk_notifications_customer_id_customers", "customers", ["customer_id"], ["id"], ondelete="SET NULL"
        )


def downgrade() -> None:
    """Drop them."""
    for table, *columns in INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
    with op.batch_alter_table("notifications", table_kwargs=AUTOINCREMENT) as batch:
        batch.drop_constraint("fk_notifications_customer_id_customers", type_="foreignkey")
    op.drop_column("notifications", "unburned")
    for table, column, _ in COLUMNS:
        op.drop_column(table, column)
    op.drop_table("delivery_reports")
    op.drop_table("channels")

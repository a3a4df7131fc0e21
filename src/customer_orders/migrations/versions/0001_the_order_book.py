"""The order book: users, customers, orders, and the outbox."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
COST = sa.Numeric(14, 4).with_variant(sa.String(20), "sqlite")


def _table(name: str, *columns: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(
        name,
        sa.Column("id", BIG, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sqlite_autoincrement=True,
    )


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _optional(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _foreign_key(table: str, column: str, referred: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{referred}.id"], name=f"fk_{table}_{column}_{referred}", ondelete=ondelete
    )


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def upgrade() -> None:
    """Create every table."""
    _table(
        "users",
        _required("email", sa.String(320)),
        _required("name", sa.String(255)),
        _optional("role", sa.String(16)),
        _optional("granted_role", sa.String(16)),
        _required("disabled", sa.Boolean()),
        _required("created_at", TIME),
        _required("updated_at", TIME),
    )
    _index("users", "email")
    _table(
        "external_identities",
        _required("user_id", BIG),
        _required("provider", sa.String(64)),
        _required("subject", sa.String(255)),
        _required("created_at", TIME),
        _foreign_key("external_identities", "user_id", "users", "CASCADE"),
        sa.UniqueConstraint("provider", "subject", name="uq_external_identities_provider_subject"),
    )
    _index("external_identities", "user_id")
    _table(
        "refresh_tokens",
        _required("user_id", BIG),
        _required("token_hash", sa.String(64)),
        _required("created_at", TIME),
        _required("expires_at", TIME),
        _optional("spent_at", TIME),
        _foreign_key("refresh_tokens", "user_id", "users", "CASCADE"),
        sa.UniqueConstraint("token_hash", name="uq_refresh_tokens_token_hash"),
    )
    _index("refresh_tokens", "user_id")
    _table(
        "customers",
        _required("username", sa.String(255)),
        _required("phone_number", sa.String(32)),
        _optional("reference", sa.String(255)),
        _required("metadata", sa.JSON()),
        _optional("language", sa.String(35)),
        _required("sms_opt_out", sa.Boolean()),
        _required("created_at", TIME),
        _required("updated_at", TIME),
    )
    _table(
        "orders",
        _required("customer_id", BIG),
        _required("item", sa.String(255)),
        _required("amount", BIG),
        _required("currency", sa.String(3)),
        _required("status", sa.String(16)),
        _optional("reference", sa.String(255)),
        _required("metadata", sa.JSON()),
        _required("created_at", TIME),
        _required("updated_at", TIME),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_orders_amount_not_negative")),
        _foreign_key("orders", "customer_id", "customers", "RESTRICT"),
    )
    _index("orders", "customer_id", "id")
    _table(
        "notifications",
        _optional("order_id", BIG),
        _required("event", sa.String(32)),
        _required("channel", sa.String(16)),
        _required("recipient", sa.String(255)),
        _required("text", sa.Text()),
        _optional("language", sa.String(35)),
        _required("status", sa.String(16)),
        _optional("reason", sa.String(255)),
        _required("attempts", sa.Integer()),
        _optional("next_attempt_at", TIME),
        _optional("lease_owner", sa.String(32)),
        _optional("lease_expires_at", TIME),
        _optional("notifier", sa.String(64)),
        _optional("reference", sa.String(255)),
        _optional("cost_amount", COST),
        _optional("cost_currency", sa.String(3)),
        _required("created_at", TIME),
        _required("updated_at", TIME),
        _foreign_key("notifications", "order_id", "orders", "SET NULL"),
    )
    _index("notifications", "status", "next_attempt_at")
    _index("notifications", "order_id", "id")
    _index("notifications", "reference")
    _table(
        "notification_attempts",
        _required("notification_id", BIG),
        _required("number", sa.Integer()),
        _required("lease_owner", sa.String(32)),
        _required("notifier", sa.String(64)),
        _required("started_at", TIME),
        _optional("finished_at", TIME),
        _optional("outcome", sa.String(16)),
        _optional("reason", sa.String(255)),
        _optional("reference", sa.String(255)),
        _foreign_key("notification_attempts", "notification_id", "notifications", "CASCADE"),
    )
    _index("notification_attempts", "notification_id")


def downgrade() -> None:
    """Drop every table, and all that is in them."""
    for name in (
        "notification_attempts",
        "notifications",
        "orders",
        "customers",
        "refresh_tokens",
        "external_identities",
        "users",
    ):
        op.drop_table(name)

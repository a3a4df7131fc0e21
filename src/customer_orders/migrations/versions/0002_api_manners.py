"""API manners: versions, unique references, idempotency keys, and an index for each filter."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

VERSIONED = ("customers", "orders", "notifications")
REFERRED = ("customers", "orders")
INDEXES = (
    ("customers", "phone_number", "id"),
    ("customers", "created_at", "id"),
    ("customers", "updated_at", "id"),
    ("orders", "status", "id"),
    ("orders", "created_at", "id"),
    ("orders", "updated_at", "id"),
    ("notifications", "status", "order_id"),
)


def upgrade() -> None:
    """Add them. Raises RuntimeError if two rows of a table have the same reference: which of them keeps it?"""
    _refuse_references_given_twice()
    for table in REFERRED:
        op.create_index(f"ix_{table}_reference", table, ["reference"], unique=True)
    for table, *columns in INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    op.create_table(
        "idempotency_keys",
        sa.Column("id", BIG, nullable=False),
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency_keys"),
        sa.UniqueConstraint("principal", "operation", "key", name="uq_idempotency_keys_principal_operation_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
    # last, since on PostgreSQL they shut readers out, for as long as the transaction goes on
    for table in VERSIONED:
        # the default stays: code before this one can go on adding rows, but its changes do not count as versions
        op.add_column(table, sa.Column("version", sa.Integer(), nullable=False, server_default="1"))


def _refuse_references_given_twice() -> None:
    twice = []
    for table in REFERRED:
        found = sa.table(table, sa.column("id"), sa.column("reference"))
        several = (
            sa.select(sa.func.min(found.c.id), sa.func.max(found.c.id))
            .where(found.c.reference.is_not(None))
            .group_by(found.c.reference)
            .having(sa.func.count() > 1)
            .limit(10)
        )
        twice += [f"{table} {first} and {last}" for first, last in op.get_bind().execute(several)]
    if twice:
        raise RuntimeError(
            f"a reference has to be one row's only from now on, and these have the same: {'; '.join(twice)}. "
            "Nothing was migrated. Give one of each pair another reference, or null, by PATCH; then try again"
        )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("idempotency_keys")
    for table, *columns in INDEXES:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
    for table in REFERRED:
        op.drop_index(f"ix_{table}_reference", table)
    for table in VERSIONED:
        op.drop_column(table, "version")

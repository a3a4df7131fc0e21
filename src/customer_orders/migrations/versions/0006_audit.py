"""The audit trail, which on SQLite nothing can change; on PostgreSQL that is a matter of privileges (see grants.py)."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

INDEXES = (
    ("subject_kind", "subject_id", "id"),
    ("actor_kind", "actor_id", "id"),
    ("action", "id"),
    ("created_at", "id"),
)


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "audit_entries",
        sa.Column("id", BIG, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=True),
        sa.Column("actor_id", BIG, nullable=True),
        sa.Column("actor_name", sa.String(255), nullable=True),
        sa.Column("subject_kind", sa.String(64), nullable=False),
        sa.Column("subject_id", BIG, nullable=True),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("address", sa.String(45), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sqlite_autoincrement=True,
    )
    for columns in INDEXES:
        op.create_index(f"ix_audit_entries_{'_'.join(columns)}", "audit_entries", columns)
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_entries_no_{change.lower()} BEFORE {change} ON audit_entries "
                "BEGIN SELECT RAISE(ABORT, 'audit_entries only grows'); END"
            )


def downgrade() -> None:
    """Drop it, and its triggers with it."""
    op.drop_table("audit_entries")

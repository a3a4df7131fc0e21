"""Access: sessions as families of refresh tokens, and keys for machines."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
# SQLite makes the table anew, and forgets this unless told
AUTOINCREMENT = {"sqlite_autoincrement": True}


def upgrade() -> None:
    """Add them, and give each token that is good a family of its own."""
    op.create_table(
        "refresh_families",
        sa.Column("id", BIG, nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("client", sa.String(255), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("used_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_refresh_families"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_refresh_families_user_id_users", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_refresh_families_user_id", "refresh_families", ["user_id"])
    op.create_table(
        "api_keys",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_by", BIG, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_api_keys_created_by_users", ondelete="SET NULL"),
        sqlite_autoincrement=True,
    )
    op.add_column("refresh_tokens", sa.Column("family_id", BIG, nullable=True))
    # such a session lasts for what is left of its token
    op.execute(
        "INSERT INTO refresh_families (id, user_id, created_at, used_at, expires_at)"
        " SELECT id, user_id, created_at, created_at, expires_at FROM refresh_tokens WHERE spent_at IS NULL"
    )
    op.execute("UPDATE refresh_tokens SET family_id = id WHERE spent_at IS NULL")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('refresh_families', 'id'), max(id)) FROM refresh_families"
            " HAVING max(id) IS NOT NULL"
        )
    with op.batch_alter_table("refresh_tokens", table_kwargs=AUTOINCREMENT) as batch:
        batch.create_foreign_key(
            "fk_refresh_tokens_family_id_refresh_families",
            "refresh_families",
            ["family_id"],
            ["id"],
            ondelete="CASCADE",
        )
    op.create_index("ix_refresh_tokens_family_id", "refresh_tokens", ["family_id"])


def downgrade() -> None:
    """Drop them. Revoked sessions end: their tokens would be good again."""
    op.execute(
        "DELETE FROM refresh_tokens WHERE family_id IN (SELECT id FROM refresh_families WHERE revoked_at IS NOT NULL)"
    )
    op.drop_index("ix_refresh_tokens_family_id", "refresh_tokens")
    with op.batch_alter_table("refresh_tokens", table_kwargs=AUTOINCREMENT) as batch:
        batch.drop_constraint("fk_refresh_tokens_family_id_refresh_families", type_="foreignkey")
        batch.drop_column("family_id")
    op.drop_table("refresh_families")
    op.drop_table("api_keys")

"""Privacy: a customer without a number, a message without a recipient, and since when."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# SQLite makes the tables anew, and forgets this unless told
AUTOINCREMENT = {"sqlite_autoincrement": True}
COLUMNS = (("customers", "phone_number", 32), ("notifications", "recipient", 255))


def upgrade() -> None:
    """Allow for both."""
    op.add_column("customers", sa.Column("anonymized_at", sa.DateTime(timezone=True), nullable=True))
    for table, column, length in COLUMNS:
        with op.batch_alter_table(table, table_kwargs=AUTOINCREMENT) as batch:
            batch.alter_column(column, existing_type=sa.String(length), nullable=True)


def downgrade() -> None:
    """Put an empty one where there is none: what was wiped does not come back."""
    for table, column, length in COLUMNS:
        rows = sa.table(table, sa.column(column, sa.String))
        op.execute(sa.update(rows).where(rows.c[column].is_(None)).values({column: ""}))
        with op.batch_alter_table(table, table_kwargs=AUTOINCREMENT) as batch:
            batch.alter_column(column, existing_type=sa.String(length), nullable=False)
    op.drop_column("customers", "anonymized_at")

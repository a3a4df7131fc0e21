"""Steps for migrations that keep nobody waiting on PostgreSQL; see docs/migrations.md for when to take which.

Each commits as it goes, and what came before it in the migration too; so let it be all that the migration does. A
migration that was ended in the middle begins anew, which does no harm to what is done already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

# Rows that are filled, and locked, at a time.
BATCH = 1000


@contextmanager
def outside_transaction() -> Iterator[bool]:
    """Each statement of the block is committed by itself on PostgreSQL, and may wait: it keeps nobody out meanwhile.

    Tells whether it is so: SQLite has one writer anyway, and there all stays in one transaction.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        yield False
        return
    with context.autocommit_block():
        op.execute("SELECT set_config('migrations.lock_timeout', current_setting('lock_timeout'), false)")
        op.execute("SET lock_timeout = 0")
        yield True
        op.execute("SELECT set_config('lock_timeout', current_setting('migrations.lock_timeout'), false)")


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Make an index while others go on writing; one that an earlier try left half made goes first."""
    with outside_transaction() as postgresql:
        if postgresql:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, unique=unique, postgresql_concurrently=postgresql)


def backfill(table: str, column: str, value: Any) -> None:
    """Put ``value``, or an expression of SQL, where a column is null, some rows at a time."""
    rows = sa.table(table, sa.column("id"), sa.column(column))
    last = 0
    with outside_transaction():
        while ids := _empty(rows, column, last):
            # what others wrote there since the look is theirs
            still = rows.c.id.in_(ids) & rows.c[column].is_(None)
            op.execute(sa.update(rows).where(still).values({column: value}))
            last = ids[-1]


def _empty(rows: Any, column: str, last: int) -> Sequence[int]:
    found = sa.select(rows.c.id).where(rows.c.id > last, rows.c[column].is_(None)).order_by(rows.c.id).limit(BATCH)
    ids: Sequence[int] = op.get_bind().execute(found).scalars().all()
    return ids


def set_not_null(table: str, column: str, kind: Any) -> None:
    """Let no row have null in a column of this type any more; nobody is kept out while each row is looked at."""
    if op.get_context().dialect.name != "postgresql":
        with op.batch_alter_table(table, table_kwargs={"sqlite_autoincrement": True}) as batch:
            batch.alter_column(column, existing_type=kind, nullable=False)
        return
    name = f"{table}_{column}_not_null_yet"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID")
    with outside_transaction():
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    # it believes the constraint
    op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")

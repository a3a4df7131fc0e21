"""Steps for migrations that nobody has to wait for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alembic import op


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Make an index while others go on writing, on PostgreSQL; one that an earlier try left half made goes first.

    What comes before in the migration is committed by then, so let this be all that it does.
    """
    with outside_transaction() as postgresql:
        if postgresql:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, unique=unique, postgresql_concurrently=postgresql)


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

"""The schema's history (Alembic), for SQLite and PostgreSQL alike.

Alembic is imported when there is something to migrate or to compare: a sixth of what a server imports otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

# Any number will do, so long as nobody else takes this advisory lock.
LOCK = 7_203_316_914


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "customer_orders:migrations")
    config.set_main_option("path_separator", "os")
    return config


@cache
def head() -> str:
    """The revision that this code needs."""
    from alembic.script import ScriptDirectory

    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("the installation holds no migrations; install customer-orders again")
    return revision


def knows(revision: str) -> bool:
    """Whether this code has the revision; else a newer one made it."""
    from alembic.script import ScriptDirectory

    return any(each.revision == revision for each in ScriptDirectory.from_config(_config()).walk_revisions())


def current(connection: Connection) -> str | None:
    """The revision that the database has; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to ``revision``, in one transaction; of several at a time, the others wait."""
    _run(engine, "upgrade", revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to ``revision``, in one transaction."""
    _run(engine, "downgrade", revision)


def _run(engine: Engine, step: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command

    begin = _begin_sqlite if engine.name == "sqlite" else _begin_postgresql
    with engine.connect() as connection, begin(connection):
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, step)(config, revision)


@contextmanager
def _begin_postgresql(connection: Connection) -> Iterator[None]:
    with connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        yield


@contextmanager
def _begin_sqlite(connection: Connection) -> Iterator[None]:
    """Foreign keys rest meanwhile, and are checked before the commit.

    Batch operations drop a table and put its successor in its place; ON DELETE would take the rows that refer to it.
    """
    # By the driver: within a transaction, which anything else begins, this pragma does nothing.
    driver = connection.connection.cursor()
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            yield
            broken = {row.table for row in connection.execute(text("PRAGMA foreign_key_check"))}
            if broken:
                raise RuntimeError(
                    f"nothing was migrated: rows of {', '.join(sorted(broken))} would refer to rows that are not there"
                )
    finally:
        driver.execute("PRAGMA foreign_keys=ON")
        driver.close()

"""The schema's history (Alembic), for SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

# Any number will do, so long as nobody else takes this advisory lock.
LOCK = 7_203_316_914


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "customer_orders:migrations")
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The revision that this code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("the installation holds no migrations; install customer-orders again")
    return revision


def current(connection: Connection) -> str | None:
    """The revision that the database has; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to ``revision``, in one transaction; of several at a time, the others wait."""
    _run(engine, command.upgrade, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to ``revision``, in one transaction."""
    _run(engine, command.downgrade, revision)


def _run(engine: Engine, step: Callable[[Config, str], None], revision: str) -> None:
    begin = _begin_sqlite if engine.name == "sqlite" else _begin_postgresql
    with engine.connect() as connection, begin(connection):
        config = _config()
        config.attributes["connection"] = connection
        step(config, revision)


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

"""The schema's history (Alembic), for SQLite and PostgreSQL alike.

Alembic is imported when there is something to migrate or to compare: a sixth of what a server imports otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import Connection, Engine, inspect, text

from customer_orders.migrations import locks
from customer_orders.migrations.locks import Patience

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

PATIENCE = Patience()


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


def current(connection: Connection) -> str | None:
    """The revision that the database has; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


class State(NamedTuple):
    """Where a database stands to this code.

    ``behind``: it lacks migrations that this code needs. ``ahead``: a newer version migrated it, and leaves it fit
    for the version before (see docs/migrations.md), so this code goes on.
    """

    revision: str | None
    behind: bool
    ahead: bool


def state(connection: Connection) -> State:
    """Where the database stands: a revision that this code has never heard of is of a newer one."""
    revision = current(connection)
    ahead = revision is not None and revision not in _known()
    return State(revision, behind=not ahead and revision != head(), ahead=ahead)


@cache
def _known() -> frozenset[str]:
    from alembic.script import ScriptDirectory

    return frozenset(each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions())


def upgrade(
    engine: Engine,
    revision: str = "head",
    patience: Patience = PATIENCE,
    tell: Callable[[str], object] = log.warning,
) -> None:
    """Bring the database to ``revision``, in one transaction; of several at a time, the others wait.

    :param tell: hears, in sentences, whom it waits for.

    Raises :class:`customer_orders.migrations.locks.Blocked` if others are in the way for longer than its ``patience``.
    """
    _run(engine, "upgrade", revision, patience, tell)


def downgrade(
    engine: Engine, revision: str, patience: Patience = PATIENCE, tell: Callable[[str], object] = log.warning
) -> None:
    """Take the database back to ``revision``, in one transaction."""
    _run(engine, "downgrade", revision, patience, tell)


def _run(
    engine: Engine,
    step: Literal["upgrade", "downgrade"],
    revision: str,
    patience: Patience,
    tell: Callable[[str], object],
) -> None:
    from alembic import command

    def migrate(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, step)(config, revision)

    if engine.name == "sqlite":
        with engine.connect() as connection, _begin_sqlite(connection):
            migrate(connection)
    else:
        locks.run(engine, migrate, patience, tell)


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

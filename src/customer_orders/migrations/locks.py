"""Migrating PostgreSQL while others use it: one at a time, and nobody waits for long behind a migration that waits.

ALTER TABLE needs a lock that shuts everybody out. While it waits for a transaction of somebody else's to end, all that
come after it wait too, readers as well: one forgotten transaction, and the shop stands still. So it waits for some
seconds only, gives way, and tries again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

log = logging.getLogger(__name__)

# Any number will do, so long as nobody else takes this advisory lock.
LOCK = 7_203_316_914
# lock_not_available, deadlock_detected
IN_THE_WAY = ("55P03", "40P01")

# Of another role's session only the id is shown, unless ours is a member of pg_read_all_stats. Never its query: there
# may be names and numbers in it.
BLOCKERS = text(
    "SELECT pid, usename, application_name, state, xact_start FROM pg_stat_activity "
    "WHERE pid = ANY(pg_blocking_pids(:pid)) ORDER BY xact_start NULLS LAST, pid"
)
HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND (classid::bigint << 32) + objid::bigint = :lock"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True)
class Patience:
    """For how long others are waited for.

    :param lock_timeout: seconds for which a statement waits for a lock, and as long for a pause before the next try.
    :param attempts: tries, all told.
    """

    lock_timeout: int = 5
    attempts: int = 10


class Blocked(RuntimeError):
    """Somebody else's transaction did not end in time; nothing was changed."""


def run(
    engine: Engine, migrate: Callable[[Connection], None], patience: Patience, tell: Callable[[str], object]
) -> None:
    """Call ``migrate`` with a connection whose transaction it begins and ends, until nobody is in its way.

    :param tell: hears, in sentences, whom it waits for.

    Raises ``Blocked`` once its patience is at an end.
    """
    with engine.connect() as connection:
        try:
            pid = _take_turn(connection, patience, tell)
            for attempt in range(1, patience.attempts + 1):
                blockers: list[Any] = []
                # anew: a step that failed had set another
                _limit(connection, patience)
                try:
                    with _watching(engine, pid, patience, blockers):
                        migrate(connection)
                    return
                except DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in IN_THE_WAY:
                        raise
                    connection.rollback()
                _give_way(attempt, patience, blockers, tell)
        finally:
            # what it holds and sets ends with it
            connection.invalidate()


def _give_way(attempt: int, patience: Patience, blockers: list[Any], tell: Callable[[str], object]) -> None:
    if attempt == patience.attempts:
        raise Blocked(
            f"others held a lock that it needs, and {attempt} times it gave way after {patience.lock_timeout} s "
            f"(migrations.attempts, migrations.lock_timeout). Nothing was changed. At last {_told(blockers)} in the "
            f"way.{_remedy(blockers)} Then run it again"
        )
    tell(
        f"Try {attempt} of {patience.attempts}: {_told(blockers)} in the way, so it gives way; the next try is in "
        f"{patience.lock_timeout} s."
    )
    time.sleep(patience.lock_timeout)


def _take_turn(connection: Connection, patience: Patience, tell: Callable[[str], object]) -> int:
    """Wait until no other migration of this database runs; tells the id of this session.

    By looking again and again, and not in a transaction: one that waits would itself be waited for by CREATE INDEX
    CONCURRENTLY.
    """
    connection.execution_options(isolation_level="AUTOCOMMIT")
    told = False
    while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}).scalar_one():
        if not told:
            holder = connection.execute(HOLDER, {"lock": LOCK}).scalars().first()
            tell(f"Another migration of this database runs (pid {holder}); this one waits for its end.")
            told = True
        time.sleep(0.2)
    pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    connection.commit()
    connection.execution_options(isolation_level=connection.default_isolation_level)
    return pid


def _limit(connection: Connection, patience: Patience) -> None:
    """Have no statement of this session wait for a lock for longer."""
    wait = f"{patience.lock_timeout}s"
    connection.execute(text("SELECT set_config('lock_timeout', :wait, false)"), {"wait": wait})
    connection.commit()


@contextmanager
def _watching(engine: Engine, pid: int, patience: Patience, blockers: list[Any]) -> Iterator[None]:
    """Keep the last that were in the way of the session ``pid``: once it gives up, nobody is."""
    over = threading.Event()

    def watch() -> None:
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer:
                while not over.wait(patience.lock_timeout / 5):
                    blockers[:] = observer.execute(BLOCKERS, {"pid": pid}).all() or blockers
        except SQLAlchemyError:
            log.exception("nobody can tell who is in the way of the migration")

    thread = threading.Thread(target=watch, name="migration-blockers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _told(blockers: list[Any]) -> str:
    """Who they are, as the subject of "in the way"."""
    each = []
    for found in blockers:
        known = ", ".join(filter(None, [found.usename, found.application_name, found.state]))
        since = f" since {found.xact_start:%Y-%m-%d %H:%M:%S %Z}" if found.xact_start else ""
        each.append(f"pid {found.pid}{f' ({known}{since})' if known else ''}")
    return f"{' and '.join(each) or 'a session that is gone'} {'were' if len(each) > 1 else 'was'}"


def _remedy(blockers: list[Any]) -> str:
    ends = "; ".join(f"SELECT pg_terminate_backend({found.pid})" for found in blockers)
    return f" Let that end, or end it: {ends}." if ends else ""

"""After a backup was put back, before anything runs on it: the world went on since it was taken.

Messages were sent that it has yet to send; sessions ended that it believes in; ids and versions were given to what it
has never seen, and people and providers remember them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Table, func, select, text, update
from sqlalchemy.orm import Session

from customer_orders.auth import sessions
from customer_orders.errors import Conflict
from customer_orders.events import Audited, announce
from customer_orders.notifications import restored
from customer_orders.settings import Section
from customer_orders.tables import Base

# Seconds that PostgreSQL may take to see that somebody has gone.
LEAVING = 3
# More than a row is changed between two backups, so that no ETag from then names what it never named.
SKIPPED_VERSIONS = 1000


@dataclass(frozen=True)
class Restored:
    """What was done.

    :param doubted: messages that nobody sends by themselves any more.
    :param signed_out: sessions that were ended.
    """

    doubted: int
    signed_out: int


def make_fit(session: Session, settings: Section, *, skip_ids: int, alone: bool = True) -> Restored:
    """Make a database that was just restored fit to be used, in one transaction; again does no harm.

    :param settings: the section ``notifications``.
    :param skip_ids: how many ids of each table are left out, since they may have been given since the backup.
    :param alone: whether nobody else may be connected.

    Raises ``Conflict`` if somebody is.
    """
    if alone:
        _require_alone(session)
    done = Restored(restored.doubt(session, settings), sessions.end_all_sessions(session))
    for table in Base.metadata.sorted_tables:
        if table.autoincrement_column is not None:
            _skip(session, table, skip_ids)
        if "version" in table.c:
            session.execute(update(table).values(version=table.c.version + SKIPPED_VERSIONS))
    announce(session, Audited("database.restored"))
    return done


def _require_alone(session: Session) -> None:
    """On PostgreSQL, where one can see them."""
    if session.get_bind().dialect.name != "postgresql":
        return
    until = time.monotonic() + LEAVING
    while found := _others(session):
        if time.monotonic() > until:
            raise Conflict(
                f"Others use this database (connections by role: {found}), so nothing was done. Right after restoring "
                "a backup, nothing runs on it yet: stop what does, or see whether it is the right one. If they are "
                "none of the service's, such as the monitoring of a managed database, --beside-others goes on."
            )
        time.sleep(0.1)


def _others(session: Session) -> str:
    """Who else is connected; empty: nobody."""
    # what was seen in this transaction is seen again, unless told otherwise
    session.execute(select(func.pg_stat_clear_snapshot()))
    others = text(
        "SELECT usename, count(*) AS connections FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename IS NOT NULL AND pid <> pg_backend_pid() GROUP BY usename ORDER BY usename"
    )
    return ", ".join(f"{role}: {connections}" for role, connections in session.execute(others))


def _skip(session: Session, table: Table, number: int) -> None:
    """Leave out ids."""
    if session.get_bind().dialect.name == "postgresql":
        # what nextval() gives next is beyond all of those
        sequence = func.pg_get_serial_sequence(table.name, "id")
        session.execute(select(func.setval(sequence, func.nextval(sequence) + number)))
        return
    given = {"table": table.name, "number": number}
    changed = session.execute(text("UPDATE sqlite_sequence SET seq = seq + :number WHERE name = :table"), given)
    if not changed.rowcount:  # type: ignore[attr-defined]
        session.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)"), given)

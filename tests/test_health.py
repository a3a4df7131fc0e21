"""Whether the process lives and is ready."""

from __future__ import annotations

import importlib
import threading
from importlib.metadata import version

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from sqlalchemy import text
from webtest import TestApp

from conftest import settings_for
from customer_orders import main, migrations
from customer_orders.checks import Checking, Outcome, run
from customer_orders.interfaces import CheckFailed
from customer_orders.settings import InvalidSettings
from serving import free_port, wait_for


def raising(error):
    """A function that raises the error, whatever it is called with."""

    def call(*_, **__):
        raise error

    return call


def away(kind: str) -> str:
    """The address of a database that is not there."""
    if kind == "sqlite":
        return "sqlite:////nowhere/at/all/orders.sqlite"
    return f"postgresql+psycopg://orders@127.0.0.1:{free_port()}/orders"


@pytest.fixture
def start():
    """Makes an application on any database, migrated or not."""
    started = []

    def make(url):
        started.append(main({}, **settings_for(url)))
        return started[-1]

    yield make
    for app in started:
        app.registry.database.engine.dispose()


def test_a_process_lives_without_a_database(start, database_kind):
    client = TestApp(start(away(database_kind)))
    assert client.get("/livez", headers={"Authorization": "Bearer x"}).json == {"status": "ok"}


def test_ready_is_a_process_whose_database_is_there_and_up_to_date(anonymous):
    told = anonymous.get("/readyz").json
    assert told == {"status": "ok", "checks": {"database": "ok", "migrations": "ok"}}


def test_a_database_that_is_not_migrated_is_not_ready(start, new_database, database_kind):
    app = start(new_database(database_kind))
    client = TestApp(app)
    answer = client.get("/readyz", status=503)
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert answer.json["code"] == "unavailable"
    assert answer.json["checks"]["database"] == "ok"
    assert "database at nothing" in answer.json["checks"]["migrations"]
    assert "customer-orders db upgrade" in answer.json["checks"]["migrations"]
    migrations.upgrade(app.registry.database.engine)
    client.get("/readyz", status=200)
    migrations.downgrade(app.registry.database.engine, "base")
    client.get("/readyz", status=503)


def test_a_database_that_a_newer_version_migrated_is_ready(start, new_database, database_kind):
    app = start(new_database(database_kind, migrated=True))
    with app.registry.database.engine.begin() as connection:
        # what old processes see while a deployment replaces them
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
        assert migrations.state(connection) == ("later", False, True)
    TestApp(app).get("/readyz", status=200)


def test_a_database_that_lacks_the_last_migration_is_not_ready(start, new_database, database_kind):
    app = start(new_database(database_kind, migrated=True))
    with app.registry.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    answer = TestApp(app).get("/readyz", status=503)
    assert "database at 0001" in answer.json["checks"]["migrations"]


def test_a_database_that_is_away_is_not_ready(start, database_kind):
    answer = TestApp(start(away(database_kind))).get("/readyz", status=503)
    assert answer.json["checks"] == {"database": "does not answer", "migrations": "unknown"}
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


def test_everything_else_says_that_the_database_is_away(start, database_kind):
    app = start(away(database_kind))
    token = app.registry.access_tokens.create_token("1")
    answer = TestApp(app).get("/api/orders/", headers={"Authorization": f"Bearer {token}"}, status=503)
    assert answer.json["code"] == "unavailable"
    assert answer.headers["Retry-After"]


# -- checks that plugins, and the dispatcher, add -----------------------------------------------------------------


@pytest.fixture(scope="module")
def checked_app(make_app):
    """An application with a plugin that has checks."""
    return make_app("sqlite", plugins="scripted checked")


@pytest.fixture
def checks(checked_app):
    """What these checks do, by name; and by ``ask()`` what /readyz tells."""
    # it is the module that the plugin was loaded from
    script = importlib.import_module("checked").SCRIPT
    script.ask = lambda status="*": TestApp(checked_app).get("/readyz", status=status)
    yield script
    script.does.clear()


def test_what_plugins_add_is_told_by_their_names(checks):
    expected = {"database": "ok", "migrations": "ok", "checked.thread": "ok", "checked.queue": "ok"}
    assert checks.ask(200).json == {"status": "ok", "checks": expected}


def test_a_check_that_fails_makes_the_process_not_ready(checks):
    checks.does["queue"] = raising(CheckFailed("The queue is full.", remedy="Empty it."))
    told = checks.ask(503).json
    assert told["code"] == "unavailable"
    assert (told["checks"]["checked.queue"], told["checks"]["checked.thread"]) == ("failed: The queue is full.", "ok")


def test_a_warning_is_told_and_the_process_is_ready(checks):
    checks.does["queue"] = raising(CheckFailed("The queue is long.", warning=True))
    assert checks.ask(200).json["checks"]["checked.queue"] == "warning: The queue is long."


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyError])
def test_a_check_that_is_broken_fails_by_its_name_and_tells_nothing_of_its_error(checks, caplog, error):
    checks.does["thread"] = raising(error("hunter2 at +254713812939"))
    answer = checks.ask(503)
    said = f"failed: The check itself is broken: it raised {error.__name__}."
    assert answer.json["checks"]["checked.thread"] == said
    assert "hunter2" not in answer.text
    assert "the check checked.thread is broken" in caplog.text


def test_what_a_check_says_is_masked(checks):
    checks.does["thread"] = raising(CheckFailed("Nothing for +254713812939, token=abcdefgh1234."))
    text = checks.ask(503).text
    assert "254713812939" not in text
    assert "abcdefgh1234" not in text


def test_what_a_check_heard_from_others_changes_no_terminal():
    (finding,) = run(
        [Checking("name", raising(CheckFailed("It says \x1b[2J\x07.\r\nTwice.", remedy="\x9b1mEnd it.")))], 10
    )
    assert (finding.found, finding.remedy) == ("It says \\x1b[2J\\x07.\\r\nTwice.", "\\x9b1mEnd it.")


def test_a_check_that_hangs_fails_in_time_and_is_not_begun_again(checks):
    goes_on, begun = threading.Event(), []

    def hang():
        begun.append(1)
        goes_on.wait(60)

    checks.does["thread"] = hang
    for _ in range(2):
        told = checks.ask(503).json["checks"]
        assert told["checked.thread"] == "failed: The check did not end within 1 seconds."
        assert told["checked.queue"] == "ok"
    assert begun == [1]
    goes_on.set()
    checks.does.clear()
    wait_for(lambda: checks.ask().status_int == 200, "the process is ready again")


def test_a_check_that_no_thread_could_be_had_for_is_begun_the_next_time(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    checking = Checking("thread", lambda: "lives")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            checking.begin()
    (finding,) = run([checking], 10)
    assert (finding.outcome, finding.found) == (Outcome.OK, "lives")


@pytest.mark.parametrize("kind", ["readiness", "doctor"])
def test_two_checks_of_one_name_are_a_conflict(kind):
    config = Configurator(settings=settings_for("sqlite:////nowhere/orders.sqlite"))
    config.include("customer_orders.sections")
    config.include("customer_orders.plugins")
    add = getattr(config, f"add_{kind}_check")
    add("one", str)
    add("one", str)
    with pytest.raises(ConfigurationConflictError, match=f"{kind} check"):
        config.commit()


@pytest.mark.parametrize(("name", "check"), [("Two Words", str), ("", str), ("a.b", str), ("one", "no callable")])
def test_a_check_has_a_plain_name_and_is_callable(name, check):
    config = Configurator(settings=settings_for("sqlite:////nowhere/orders.sqlite"))
    config.include("customer_orders.sections")
    config.include("customer_orders.plugins")
    with pytest.raises(ConfigurationError, match="readiness check"):
        config.add_readiness_check(name, check)


# dying is what the thread is there for
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_whose_dispatcher_has_died_is_not_ready(make_app, database_kind):
    app = make_app(database_kind, **{"notifications.dispatcher": "embedded"})
    client = TestApp(app)
    assert client.get("/readyz", status=200).json["checks"]["dispatcher"] == "ok"
    # ends the thread that claims, as nothing that is handled does
    app.registry.outbox.claim = raising(SystemExit())
    app.registry.dispatcher.hint([1])
    wait_for(lambda: client.get("/readyz", status="*").status_int == 503, "the thread has ended")
    said = client.get("/readyz", status=503).json["checks"]["dispatcher"]
    assert said == "failed: Threads of the dispatcher have died: outbox-claims."


def test_a_process_whose_dispatcher_stops_is_not_ready(make_app):
    app = make_app("sqlite", **{"notifications.dispatcher": "embedded"})
    client = TestApp(app)
    client.get("/readyz", status=200)
    app.registry.dispatcher.stop()
    assert "is stopping" in client.get("/readyz", status=503).json["checks"]["dispatcher"]


# -- which code it is ---------------------------------------------------------------------------------------------


def test_the_version_tells_the_commit_and_the_plugins(make_app, client_of):
    commit = "4f1c2d9"
    told = client_of(make_app("sqlite", **{"app.commit": commit})).get("/api/version", status=200).json
    plugins = [{"name": "scripted", "distribution": "scripted", "version": "1.0"}]
    assert told == {"version": version("customer-orders"), "commit": commit, "plugins": plugins}


def test_a_commit_that_nobody_tells_is_null(client):
    assert client.get("/api/version").json["commit"] is None


def test_a_commit_that_is_none_is_refused():
    with pytest.raises(InvalidSettings, match=r"app\.commit .* write a commit"):
        main({}, **settings_for("sqlite:////nowhere/orders.sqlite", **{"app.commit": "the newest"}))

"""The real INI files boot, and booting touches nothing."""

from __future__ import annotations

import secrets
import threading

import pytest
from pyramid.paster import get_app
from webtest import TestApp

from conftest import settings_for
from customer_orders import main, migrations
from customer_orders.notifications.dispatch import WorkerDispatcher
from customer_orders.settings import InvalidSettings
from serving import ROOT


@pytest.fixture
def environment(monkeypatch, tmp_path, new_database, database_kind):
    """What a deployment gives by its environment: the database, and a file with the key."""
    (tmp_path / "jwt.key").write_text(secrets.token_urlsafe(64))
    monkeypatch.setenv("JWT_PRIVATE_KEY_FILE", str(tmp_path / "jwt.key"))
    monkeypatch.setenv("SQLALCHEMY_URL", new_database(database_kind))
    monkeypatch.setenv("DEVTOOLS_INBOX", str(tmp_path / "inbox.jsonl"))


@pytest.fixture
def development(environment):
    app = get_app(str(ROOT / "development.ini"))
    yield app
    app.registry.dispatcher.stop()
    app.registry.database.engine.dispose()


def test_development_ini_boots_and_serves(development):
    migrations.upgrade(development.registry.database.engine)
    client = TestApp(development, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
    assert client.get("/readyz").json["status"] == "ok"
    assert client.get("/login/", headers={"Accept": "text/html"}).html.select("main a.button")
    client.get("/", status=200)
    assert (
        client.get("/api/devtools-oauth2/redirect/", status=302)
        .headers["Location"]
        .startswith("http://127.0.0.1:6543/devtools/sign-in?")
    )
    assert development.registry.sections["auth"].default_role == "admin"
    assert development.registry.sections["jwt"]["private_key"].origin == "file named by JWT_PRIVATE_KEY_FILE"


@pytest.mark.usefixtures("environment")
def test_production_ini_boots_with_what_it_says_must_be_set(monkeypatch):
    monkeypatch.setenv("APP_PUBLIC_URL", "https://orders.example.com")
    app = get_app(str(ROOT / "production.ini"))
    TestApp(app).get("/livez", status=200)
    assert app.registry.sections["auth"].default_role == "none"
    assert app.registry.plugins.by_plugin == {}
    assert isinstance(app.registry.dispatcher, WorkerDispatcher)


def test_production_ini_refuses_to_start_without_and_holds_no_secret():
    with pytest.raises(InvalidSettings) as caught:
        get_app(str(ROOT / "production.ini"))
    assert {error.key for error in caught.value.errors} == {"app.public_url", "sqlalchemy.url", "jwt.private_key"}


@pytest.mark.parametrize("dispatcher", ["embedded", "worker"])
def test_an_application_that_is_only_made_starts_no_thread_and_opens_no_connection(
    new_database, database_kind, dispatcher
):
    before = set(threading.enumerate())
    app = main({}, **settings_for(new_database(database_kind), **{"notifications.dispatcher": dispatcher}))
    pool = app.registry.database.engine.pool
    assert set(threading.enumerate()) == before
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_an_application_is_made_though_its_database_is_away():
    assert main({}, **settings_for("sqlite:////nowhere/at/all/orders.sqlite"))

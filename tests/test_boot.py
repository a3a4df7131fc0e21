"""The real INI files boot, and booting touches nothing."""

from __future__ import annotations

import re
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

# What production.ini leaves to the environment beside the core's own: by key, the variable.
PROVIDERS = {
    "google.client_id": "GOOGLE_CLIENT_ID",
    "google.client_secret": "GOOGLE_CLIENT_SECRET",
    "africastalking.username": "AFRICASTALKING_USERNAME",
    "africastalking.api_key": "AFRICASTALKING_API_KEY",
}


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
    # the file says it by names; SQLALCHEMY_URL and JWT_PRIVATE_KEY are set already
    said = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", (ROOT / "production.ini").read_text())) - {"SERVER_LISTEN"}
    given = {"APP_PUBLIC_URL", *PROVIDERS.values()}
    assert said == {*given, "SQLALCHEMY_URL", "JWT_PRIVATE_KEY"}
    monkeypatch.setenv("APP_PUBLIC_URL", "https://orders.example.com")
    for name in PROVIDERS.values():
        monkeypatch.setenv(name, secrets.token_hex(8))
    app = get_app(str(ROOT / "production.ini"))
    TestApp(app).get("/livez", status=200)
    assert app.registry.sections["auth"].default_role == "none"
    assert app.registry.plugins.by_plugin == {
        "google": [
            "identity provider google",
            *(f"doctor check google.{name}" for name in ("discovery", "clock", "client")),
        ],
        "africastalking": ["notifier africastalking", "doctor check africastalking.account"],
    }
    assert isinstance(app.registry.dispatcher, WorkerDispatcher)


def test_production_ini_refuses_to_start_without_and_holds_no_secret():
    with pytest.raises(InvalidSettings) as caught:
        get_app(str(ROOT / "production.ini"))
    told = {error.key for error in caught.value.errors}
    # notifications.sms is not looked at before its plugin could be included
    assert told == {"app.public_url", "sqlalchemy.url", "jwt.private_key", *PROVIDERS}


@pytest.mark.usefixtures("environment")
def test_the_providers_that_development_ini_shows_boot(monkeypatch, tmp_path):
    text = (ROOT / "development.ini").read_text()
    for key in ("plugins", "notifications.sms"):
        text = text.replace(f"\n{key} = devtools\n", "\n")
    text, shown = re.subn("(?m)^# ([a-z_.]+ =)", r"\1", text)
    assert shown == 6
    ini = tmp_path / "development.ini"
    ini.write_text(text)
    for name in ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "AFRICASTALKING_API_KEY"):
        monkeypatch.setenv(name, secrets.token_hex(8))
    registry = get_app(str(ini)).registry
    assert set(registry.plugins.by_plugin) == {"devtools", "google", "africastalking"}
    assert registry.sections["notifications"].sms == "africastalking"
    assert registry.sections["africastalking"].username == "sandbox"


@pytest.mark.parametrize("dispatcher", ["embedded", "worker"])
def test_an_application_that_is_only_made_starts_no_thread_and_opens_no_connection(
    new_database, database_kind, dispatcher
):
    before = set(threading.enumerate())
    app = main({}, **settings_for(new_database(database_kind), **{"notifications.dispatcher": dispatcher}))
    pool = app.registry.database.engine.pool
    # threads of tests before this one may end meanwhile
    assert set(threading.enumerate()) <= before
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_an_application_is_made_though_its_database_is_away():
    assert main({}, **settings_for("sqlite:////nowhere/at/all/orders.sqlite"))

"""Whether the process lives and is ready."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from webtest import TestApp

from conftest import settings_for
from customer_orders import main, migrations
from serving import free_port


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

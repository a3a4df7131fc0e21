"""The application's own role on PostgreSQL: the script gives it all that it needs, and the trail is beyond it."""

from __future__ import annotations

import secrets

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from webtest import TestApp

import factories
from conftest import settings_for
from customer_orders import main as application
from customer_orders.auth.services import local_user
from customer_orders.cli import main
from customer_orders.notifications.models import Notification
from customer_orders.notifications.worker import Worker
from customer_orders.settings import section
from inis import write_ini
from serving import wait_for


@pytest.fixture
def print_grants(tmp_path):
    """What the command prints for the database of a URL: ``print_grants(url, role)``; with ``--apply`` what it does."""

    def run(url, role, *more, status=0):
        ini = write_ini(tmp_path / "orders.ini", settings_for(url))
        command = ["db", "grants", "--role", role, "-c", ini, *more]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def as_role(new_database, print_grants):
    """An application that signs in to its database with a role that the script made fit, and the owner's URL."""
    url = new_database("postgresql", migrated=True)
    # what has to be quoted
    role = f'app "{secrets.token_hex(4)}'
    owner = create_engine(url)
    with owner.begin() as connection:
        connection.execute(text('CREATE ROLE "{}" LOGIN'.format(role.replace('"', '""'))))
        # what it may have had before
        connection.execute(text('GRANT ALL ON audit_entries TO "{}"'.format(role.replace('"', '""'))))
    script = print_grants(url, role).stdout
    for _ in range(2):
        with owner.begin() as connection:
            for statement in filter(str.strip, script.split(";\n")):
                connection.execute(text(statement))
    owned = make_url(url).set(username=role).render_as_string(hide_password=False)
    app = application({}, **settings_for(owned))
    yield app
    app.registry.dispatcher.stop()
    app.registry.database.engine.dispose()
    owner.dispose()


@pytest.fixture
def admin(as_role):
    with as_role.registry.database.transaction() as session:
        user_id = local_user(session, "owner@shop.example", "admin").id
    client = TestApp(as_role)
    client.authorization = ("Bearer", as_role.registry.access_tokens.create_token(str(user_id)))
    return client


def test_applied_it_is_the_same_as_printed_and_run(new_database, print_grants):
    url = new_database("postgresql", migrated=True)
    # what has to be quoted, or is special to a driver
    role = f'app "%s:x {secrets.token_hex(4)}'
    owner = create_engine(url)
    with owner.connect() as connection:
        quote = owner.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"CREATE ROLE {quote(role)} LOGIN")
        connection.commit()
        asked = text(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = :role"
        )
        for _ in range(2):
            print_grants(url, role, "--apply")
            given = {tuple(row) for row in connection.execute(asked, {"role": role})}
            connection.rollback()
            assert {what for table, what in given if table == "audit_entries"} == {"SELECT", "INSERT"}
            assert {what for table, what in given if table == "orders"} == {"SELECT", "INSERT", "UPDATE", "DELETE"}
            assert ("alembic_version", "SELECT") in given
    owner.dispose()


def test_the_application_works_with_what_the_script_gives(as_role, admin):
    registry = as_role.registry
    TestApp(as_role).get("/readyz", status=200)
    body = {"item": "Tea", "amount": 1, "customer": factories.customer(admin)["id"]}
    for _ in range(2):
        order = admin.post_json("/api/orders/", body, headers={"Idempotency-Key": "k-1"}, status=201).json
    admin.patch_json(f"/api/orders/{order['id']}", {"status": "confirmed"})
    worker = Worker(registry.outbox, 2, 3600)
    worker.start()

    def statuses():
        with registry.database.transaction(writes=False) as session:
            return {found.status for found in session.query(Notification)}

    try:
        wait_for(lambda: statuses() == {"sent"}, "the messages are sent")
    finally:
        worker.stop()
    registry.outbox.sweep()
    secret = section(registry, "notifications").report_secrets[0]
    reference = admin.get("/api/notifications/").json[0]["reference"]
    told = [{"reference": reference, "status": "delivered"}]
    TestApp(as_role).post_json(f"/api/notifications/reports/scripted/{secret}", told, status=200)
    junk = {"Authorization": "Bearer junk"}
    TestApp(as_role).get("/api/orders/", headers=junk, status=401)
    admin.delete(f"/api/orders/{order['id']}", status=204)
    actions = [one["action"] for one in admin.get("/api/audit/").json]
    assert actions[:3] == ["order.deleted", "token.refused", "order.status_changed"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET action = 'x'",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "DROP TABLE audit_entries",
        "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
        "UPDATE alembic_version SET version_num = ''",
    ],
)
def test_the_database_refuses_that_role_to_change_the_trail(as_role, admin, statement):
    factories.customer(admin)
    engine = as_role.registry.database.engine
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), engine.begin() as connection:
        connection.execute(text(statement))
    assert len(admin.get("/api/audit/").json) == 2


def test_sqlite_has_no_roles(new_database, print_grants):
    told = print_grants(new_database("sqlite", migrated=True), "app", status=1)
    assert "Only PostgreSQL has roles" in told.stderr

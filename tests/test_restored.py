"""After a backup was put back: nothing that may have been sent is sent again, and nothing is given twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, func, select, text
from webtest import TestApp

import factories
from conftest import settings_for
from customer_orders.auth import sessions
from customer_orders.auth.services import local_user
from customer_orders.cli import main
from customer_orders.interfaces import Uncertain
from customer_orders.notifications.models import Notification, NotificationAttempt
from customer_orders.settings import section
from customer_orders.tables import Base
from inis import write_ini


@pytest.fixture
def deployment(make_app, client_of, database_kind):
    """An application of its own, and an admin of it: nobody else is connected."""
    made = make_app(database_kind, **{"notifications.retry_unknown": "once", "notifications.unknown_after": "60"})
    yield made, client_of(made)
    made.registry.plugins.notifiers["scripted"].reset()


@pytest.fixture
def restored(deployment, tmp_path):
    """Runs ``customer-orders db restored`` with the words."""
    registry = deployment[0].registry
    url = registry.database.url.render_as_string(hide_password=False)
    ini = write_ini(tmp_path / "orders.ini", settings_for(url))

    def run(*words, status=0):
        registry.database.engine.dispose()
        command = ["db", "restored", "-c", ini, *words]
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == status, done.output
        return done

    return run


def notification(registry, order):
    with registry.database.transaction(writes=False) as session:
        return session.query(Notification).filter_by(order_id=order["id"]).one()


def test_nothing_that_may_have_been_sent_is_sent_by_itself(deployment, restored):
    app, client = deployment
    registry, notifier = app.registry, app.registry.plugins.notifiers["scripted"]
    queued, sending, unknown, sent = (factories.order(client) for _ in range(4))
    ids = {one["id"]: one["notification"]["id"] for one in (queued, sending, unknown, sent)}
    (claim,) = registry.outbox.claim(1, only=ids[sending["id"]])
    notifier.script.append(Uncertain("no answer in time"))
    registry.outbox.deliver(ids[unknown["id"]])
    registry.outbox.deliver(ids[sent["id"]])
    before = len(notifier.sent)
    done = restored("--yes")
    assert "Messages that may have been sent since the backup: 2, unknown (restored)" in done.stdout
    # long after: leases ended, and what is unknown would be sent once more
    registry.database.clock_offset += timedelta(days=30)
    registry.outbox.sweep()
    assert registry.outbox.due(100) == []
    assert len(notifier.sent) == before
    for order in (queued, sending, unknown):
        found = notification(registry, order)
        assert (found.status, found.reason, found.notifier) == ("unknown", "restored", "scripted")
    assert notification(registry, sent).status != "unknown"
    with registry.database.transaction(writes=False) as session:
        (made,) = session.query(NotificationAttempt).filter_by(notification_id=claim.notification_id)
        assert (made.number, made.lease_owner, made.outcome) == (1, claim.owner, "abandoned")


def test_a_late_report_settles_what_became_of_one_and_staff_send_another_again(deployment, restored):
    app, client = deployment
    reported, lost = factories.order(client), factories.order(client)
    to = notification(app.registry, reported).recipient
    restored("--yes")
    secret = section(app.registry, "notifications").report_secrets[0]
    told = [{"reference": "r-1", "status": "delivered", "to": to}]
    TestApp(app).post_json(f"/api/notifications/reports/scripted/{secret}", told, status=200)
    app.registry.outbox.sweep()
    assert client.get(f"/api/orders/{reported['id']}").json["notification"]["status"] == "delivered"
    again = client.post_json("/api/notifications/resend", {"status": ["unknown"], "reason": "restored"}).json
    assert again["ids"] == [lost["notification"]["id"]]
    assert app.registry.outbox.due(100) == again["ids"]


def test_no_session_outlives_it_and_the_trail_says_so(deployment, restored):
    app, client = deployment
    with app.registry.database.transaction() as session:
        user_id = local_user(session, "jane@shop.example", "admin").id
        begun = sessions.begin(session, user_id, app.registry.sections["auth"])
    assert "Sessions that were ended: 1\n" in restored("--yes").stdout
    TestApp(app).post_json("/api/token/refresh", {"refresh": begun.token}, status=401)
    actions = [(one["action"], one["actor"]["kind"]) for one in client.get("/api/audit/?actor=operator").json]
    assert actions[:2] == [("database.restored", "operator"), ("session.revoked", "operator")]


def test_no_id_and_no_tag_is_given_twice(deployment, restored):
    app, client = deployment
    order = factories.order(client)
    tag = client.get(f"/api/orders/{order['id']}").headers["ETag"]
    restored("--yes", "--skip-ids", "5000")
    with app.registry.database.transaction() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.autoincrement_column is not None]
        highest = {one.name: session.scalar(select(func.max(one.c.id))) or 0 for one in tables}
    later = factories.order(client, customer=order["customer"])
    assert later["id"] > highest["orders"] + 5000
    assert later["notification"]["id"] > highest["notifications"] + 5000
    # a table without a row had some since, perhaps
    with app.registry.database.transaction() as session:
        insert = "INSERT INTO delivery_reports (notifier, reference, status, received_at) VALUES ('x', '', '', :at)"
        session.execute(text(insert), {"at": "2030-01-01 00:00:00+00:00"})
        assert session.scalar(text("SELECT max(id) FROM delivery_reports")) > 5000
    assert client.get(f"/api/orders/{order['id']}").headers["ETag"] != tag
    # a change after the backup, and one after restoring it, have two tags
    client.patch_json(f"/api/orders/{order['id']}", {"item": "Cake"}, headers={"If-Match": tag}, status=412)


def test_it_asks_first(deployment, restored):
    app, client = deployment
    order = factories.order(client)
    assert "Aborted" in restored(status=1).stderr
    assert notification(app.registry, order).status == "queued"


def test_it_does_nothing_while_others_use_the_database(make_app, client_of, database_kind, deployment, restored):
    if database_kind == "sqlite":
        pytest.skip("SQLite knows of nobody else")
    app, client = deployment
    order = factories.order(client)
    other = create_engine(app.registry.database.url)
    with other.connect() as connection:
        connection.execute(text("SELECT 1"))
        said = restored("--yes", status=1).stderr
        assert f"Others use this database (connections by role: {other.url.username}: 1), so nothing was done" in said
        assert notification(app.registry, order).status == "queued"
        app.registry.database.engine.dispose()
        restored("--yes", "--beside-others")
    other.dispose()
    assert notification(app.registry, order).status == "unknown"

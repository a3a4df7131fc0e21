"""``customer-orders prune``: what need not be kept goes, and nothing else."""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, update

import factories
from conftest import settings_for
from customer_orders import retention
from customer_orders.api.idempotency import IdempotencyKey
from customer_orders.auth import sessions
from customer_orders.auth.models import RefreshFamily, RefreshToken
from customer_orders.auth.services import local_user
from customer_orders.cli import main
from customer_orders.interfaces import Rejected, Uncertain
from customer_orders.notifications import sweeping
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt
from customer_orders.settings import InvalidSettings, section
from inis import write_ini

TABLES = (Notification, NotificationAttempt, DeliveryReport, RefreshFamily, RefreshToken, IdempotencyKey)


@pytest.fixture
def prune(registry):
    """Prunes, or counts; tells how many of what went: ``prune(notifications_text=None)`` with other settings."""

    def run(*, dry_run=False, heard=lambda done: None, **days):
        settings = section(registry, "retention")
        told = {}

        class Given:
            def __getitem__(self, name):
                kept = settings[name]
                return type(kept)(kept.key, days.get(name, kept.value), kept.origin, kept.node)

        def tell(done):
            heard(done)
            if done.over:
                told[done.rule.model] = done.count

        retention.prune(registry.database, Given(), tell, dry_run=dry_run)
        return told

    return run


@pytest.fixture
def kept(client, registry, deliver, anonymous, notifier):
    """One of each thing that may go in time, with an order that it is about."""
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"item": "Tea", "amount": 1, "customer": factories.customer(client)["id"]}
    order = client.post_json("/api/orders/", body, headers=headers, status=201).json
    deliver()
    path = f"/api/notifications/reports/scripted/{section(registry, 'notifications').report_secrets[0]}"
    reference = client.get(f"/api/notifications/{order['notification']['id']}").json["reference"]
    anonymous.post_json(path, [{"reference": reference, "status": "delivered", "to": "+254700000001"}])
    with registry.database.transaction() as session:
        sessions.begin(session, local_user(session, "a@shop.example", "clerk").id, section(registry, "auth"))
    return order


@pytest.fixture
def count(registry):
    def all_of(model):
        with registry.database.session(writes=False) as session:
            return session.scalar(select(func.count()).select_from(model))

    return lambda: {model: all_of(model) for model in TABLES}


def test_nothing_goes_before_its_time(kept, prune, count, later):
    before = count()
    assert set(before.values()) == {1}
    # the keys of a day are over by then
    later(days=29)
    assert prune() == {**dict.fromkeys(TABLES, 0), IdempotencyKey: 1}
    assert count() == {**before, IdempotencyKey: 0}


def test_what_was_kept_for_long_enough_goes_and_orders_and_sums_stay(kept, client, prune, count, later):
    path, message = f"/api/orders/{kept['id']}", f"/api/notifications/{kept['notification']['id']}"
    before, sums = client.get(path).json, client.get("/api/stats").json
    customer = client.get(f"/api/customers/{kept['customer']}").json
    later(days=366)
    client.authorization = None
    assert prune(dry_run=True) == dict.fromkeys(TABLES, 1)
    assert set(count().values()) == {1}
    assert prune() == dict.fromkeys(TABLES, 1)
    assert count() == {**dict.fromkeys(TABLES, 0), Notification: 1}
    assert prune() == dict.fromkeys(TABLES, 0)
    # an access token does not last for so long
    later(days=-366)
    client.authorization = ("Bearer", token(client))
    assert client.get(path).json == before
    assert client.get("/api/stats").json == sums
    assert client.get(f"/api/customers/{kept['customer']}").json == customer
    told = client.get(message).json
    assert (told["status"], told["cost"], told["recipient"], told["text"]) == (
        *("delivered", {"amount": "0.8000", "currency": "KES"}),
        *(None, ""),
    )


def token(client):
    registry = client.app.registry
    with registry.database.transaction() as session:
        return registry.access_tokens.create_token(str(local_user(session, "admin@shop.example", "admin").id))


def test_what_a_blank_setting_names_is_kept_for_ever(kept, prune, later):
    later(days=36500)
    days = dict.fromkeys(("notifications_text", "attempts", "delivery_reports", "refresh_tokens"))
    assert prune(**days) == {**dict.fromkeys(TABLES, 0), IdempotencyKey: 1}


def test_what_may_be_sent_still_keeps_its_words(client, registry, prune, deliver, notifier, later, rows):
    for outcome in (Uncertain("no answer"), Rejected("no")):
        notifier.script.append(outcome)
        factories.order(client)
        deliver()
    factories.order(client)
    (claim,) = registry.outbox.claim(1)
    factories.order(client)
    later(days=366)
    prune()
    assert [(row.status, row.recipient is None) for row in rows(Notification)] == [
        *(("unknown", False), ("failed", True), ("sending", False), ("queued", False))
    ]
    assert [row.outcome for row in rows(NotificationAttempt)] == ["uncertain"]
    later(days=31)
    prune()
    assert rows(Notification)[0].recipient is None
    registry.outbox.release([claim])


def test_a_message_without_words_is_not_sent_again(client, prune, deliver, notifier, later, rows, registry):
    notifier.script.append(Rejected("no"))
    order = factories.order(client)
    deliver()
    later(days=366)
    prune()
    later(days=-366)
    url = f"/api/notifications/{order['notification']['id']}/resend"
    assert client.post(url, status=409).json["code"] == "nothing-to-send"
    answer = client.post_json("/api/notifications/resend", {"status": ["failed"]}).json
    assert (answer["count"], answer["skipped"]) == (0, {"nothing-to-send": 1})
    # nor by itself, should it come to that
    with registry.database.transaction() as session:
        session.execute(update(Notification).values(status="unknown", reason=None))
    later(days=366)
    given = SimpleNamespace(retry_unknown="once", unknown_after=60, max_attempts=10)
    with registry.database.transaction() as session:
        assert sweeping.unknown(session, given) is False
    assert rows(Notification)[0].status == "unknown"


def test_whoever_is_killed_has_done_what_they_have_done(client, prune, deliver, later, between, monkeypatch, rows):
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(5):
        factories.order(client)
    deliver()
    later(days=366)

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # in the middle of the second batch
        prune(heard=lambda _: between(die, "UPDATE notifications"))
    assert [row.recipient is None for row in rows(Notification)] == [True] * 2 + [False] * 3
    counts = []
    prune(heard=lambda done: counts.append(done.count) if done.rule.model is Notification else None)
    assert counts == [2, 3, 3]
    assert {row.recipient for row in rows(Notification)} == {None}


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_it_waits_for_nobody(client, registry, prune, deliver, later, rows):
    factories.order(client)
    factories.order(client)
    deliver()
    later(days=366)
    first = rows(Notification)[0].id
    with registry.database.session() as session:
        session.scalar(select(Notification.id).where(Notification.id == first).with_for_update())
        other = threading.Thread(target=prune)
        other.start()
        other.join(30)
        assert not other.is_alive()
    assert [row.recipient is None for row in rows(Notification)] == [False, True]


# -- the command and its settings ---------------------------------------------------------------------------------


@pytest.fixture
def run(registry, tmp_path):
    """Runs the command on the database of this test."""
    given = settings_for(registry.database.url.render_as_string(hide_password=False), **{"retention.attempts": ""})
    ini = write_ini(tmp_path / "orders.ini", given)

    def invoke(*words):
        done = CliRunner().invoke(main, ["prune", *words, "-c", ini], catch_exceptions=False)
        assert done.exit_code == 0
        return done

    return invoke


def test_the_command_tells_what_went(kept, run, registry, count):
    # the command has no other clock than the database's
    with registry.database.transaction() as session:
        for model, column in (
            (RefreshFamily, RefreshFamily.expires_at),
            (RefreshToken, RefreshToken.expires_at),
            (IdempotencyKey, IdempotencyKey.expires_at),
            (Notification, Notification.updated_at),
        ):
            session.execute(update(model).values({column: session.scalar(select(column)) - timedelta(days=500)}))
    before = count()
    lines = run("--dry-run").stdout.splitlines()
    assert lines == [
        "numbers and words of messages, kept for 365 days: 1 would go",
        "attempts at messages: kept for ever (retention.attempts is blank)",
        "delivery reports, kept for 90 days: 0 would go",
        "refresh tokens, kept for 30 days: 1 would go",
        "sessions, kept for 30 days: 1 would go",
        "answers kept for an Idempotency-Key, past their time: 1 would go",
    ]
    assert count() == before
    done = run()
    assert done.stdout == "\n".join(lines).replace("would go", "gone") + "\n"
    assert "numbers and words of messages: 1 so far" in done.stderr
    assert count() == {**before, RefreshFamily: 0, RefreshToken: 0, IdempotencyKey: 0}


@pytest.mark.parametrize("days", ["0", "36501", "1.5", "-1", "a year"])
def test_days_are_whole_and_told_how_to_write(make_app, days):
    with pytest.raises(InvalidSettings) as wrong:
        make_app("sqlite", **{"retention.attempts": days})
    (error,) = wrong.value.errors
    assert str(error).startswith(
        f"retention.attempts (variable RETENTION_ATTEMPTS or RETENTION_ATTEMPTS_FILE): is '{days}'"
    )

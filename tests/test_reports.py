"""Delivery reports: who may tell them, what they change, and that none is lost or believed twice."""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
from datetime import timedelta
from itertools import permutations
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, text, update

import factories
from contract import assert_problem, signed_in
from customer_orders import db
from customer_orders.customers.models import Customer
from customer_orders.interfaces import Receipt, Unavailable, Uncertain
from customer_orders.notifications import callbacks, reports
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt, Status
from customer_orders.notifications.reports import raised
from customer_orders.settings import section
from customer_orders.tables import Base
from serving import wait_for

PATH = "/api/notifications/reports"
TOLD = ("sent", "expired", "failed", "delivered")
# On SQLite one writes at a time.
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def secret(registry):
    """The secret of the deployment."""
    return section(registry, "notifications").report_secrets[0]


@pytest.fixture
def report(anonymous, secret):
    """Reports as the provider does: ``report("ref", "delivered")``, or a list of objects."""

    def post(reference, status="delivered", *, answer=200, **more):
        told = reference if isinstance(reference, list) else [{"reference": reference, "status": status, **more}]
        return anonymous.post_json(f"{PATH}/scripted/{secret}", told, status=answer)

    return post


@pytest.fixture
def change(registry):
    """Changes notifications behind the application's back: ``change(1, status="queued")``."""

    def write(notification_id, **values):
        with registry.database.transaction() as session:
            session.execute(update(Notification).where(Notification.id == notification_id).values(**values))

    return write


@pytest.fixture
def attempt(registry):
    """Records an attempt that outlived its lease: ``attempt(1, number=1, reference="late")``."""

    def write(notification_id, number, reference):
        with registry.database.transaction() as session:
            now = db.now(session)
            row = {"notifier": "scripted", "lease_owner": "x", "started_at": now, "finished_at": now}
            row |= {"outcome": "accepted", "number": number, "reference": reference}
            session.execute(insert(NotificationAttempt).values(notification_id=notification_id, **row))
            reports.bind(session, [notification_id])

    return write


@pytest.fixture
def sweep(registry):
    """Sweeps as a dispatcher does."""
    return registry.outbox.sweep


def contents(registry):
    """Every row of every table."""
    with registry.database.session(writes=False) as session:
        return {
            table.name: session.execute(select(table).order_by(*table.primary_key)).all()
            for table in Base.metadata.sorted_tables
        }


def told(client, order):
    """What an order tells of its message: status and reason."""
    shown = client.get(f"/api/orders/{order['id']}").json["notification"]
    return shown["status"], shown["reason"]


# -- what a report changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", TOLD)
def test_a_message_becomes_what_its_report_says(client, deliver, notifier, report, rows, status):
    order = factories.order(client)
    notifier.script.append(Receipt("ref-1"))
    deliver()
    assert report("ref-1", status, reason="UserIsInactive").json == {"received": 1}
    assert told(client, order) == (status, None if status == "sent" else "UserIsInactive")
    (row,), (kept,) = rows(Notification), rows(DeliveryReport)
    assert (kept.notifier, kept.reference, kept.status, kept.notification_id) == ("scripted", "ref-1", status, row.id)
    assert row.delivered_at == (kept.received_at if status == "delivered" else None)
    if status != "sent":
        assert row.updated_at == kept.received_at
        assert row.version == 4  # queued, sending, sent, reported


def test_the_tag_of_an_order_changes_with_a_report_that_tells_news(client, deliver, notifier, report):
    order = factories.order(client)
    notifier.script.append(Receipt("ref-1"))
    deliver()
    before = client.get(f"/api/orders/{order['id']}").headers["ETag"]
    report("ref-1", "sent")
    assert client.get(f"/api/orders/{order['id']}").headers["ETag"] == before
    report("ref-1", "delivered")
    assert client.get(f"/api/orders/{order['id']}").headers["ETag"] != before


@given(st.sampled_from(Status), st.lists(st.sampled_from(TOLD), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_reports_is_nothing(start, said, shuffle):
    ends, previous = set(), start
    for _ in range(4):
        status = start
        for one in said:
            previous, status = status, raised(status, one)
            # a report only raises, and the same again is nothing
            assert raised(status, one) == status
            assert previous == status or previous != "delivered"
        ends.add(status)
        shuffle.shuffle(said)
    assert len(ends) == 1
    if "delivered" in said:
        assert ends == {"delivered"}


@pytest.mark.parametrize(
    ("current", "said", "becomes"),
    [
        ("sent", "sent", "sent"),
        ("sent", "expired", "expired"),
        ("expired", "sent", "expired"),
        ("expired", "failed", "failed"),
        ("failed", "expired", "failed"),
        ("failed", "delivered", "delivered"),
        ("delivered", "failed", "delivered"),
        ("unknown", "sent", "sent"),
        ("unknown", "failed", "failed"),
        ("queued", "failed", "queued"),
        ("queued", "delivered", "delivered"),
        ("sending", "sent", "sending"),
        ("suppressed", "failed", "suppressed"),
        ("cancelled", "expired", "cancelled"),
        ("cancelled", "delivered", "delivered"),
    ],
)
def test_the_rule_says(current, said, becomes):
    assert raised(current, said) == becomes


@pytest.mark.parametrize("early", range(5))
def test_every_order_of_reports_before_and_after_the_answer_ends_the_same(
    client, deliver, notifier, report, rows, early
):
    """Of 24 messages, each told of in another order; ``early`` of the reports come before the answer is stored."""
    orders, late = [], {}
    for number, said in enumerate(permutations(TOLD)):
        orders.append(factories.order(client))
        reference = f"ref-{number}"
        late[reference] = said[early:]

        def answer(message, reference=reference, said=said[:early]):
            for status in said:
                report(reference, status, to=message.to)
            return Receipt(reference)

        notifier.script.append(answer)
    assert deliver() == len(orders)
    for reference, said in late.items():
        for status in said:
            report(reference, status)
            report(reference, status)
    assert {told(client, order) for order in orders} == {("delivered", None)}
    assert {row.notification_id for row in rows(DeliveryReport)} == {row.id for row in rows(Notification)}
    assert len(rows(DeliveryReport)) == 4 * len(orders)


def test_many_reports_may_come_in_one_call_back(client, deliver, notifier, report):
    orders = [factories.order(client) for _ in range(3)]
    deliver()
    said = [{"reference": f"scripted-{number}", "status": "delivered"} for number in (2, 1, 2)]
    said += [{"reference": "scripted-3", "status": "failed", "reason": "first"}]
    said += [{"reference": "scripted-3", "status": "failed", "reason": "second"}]
    assert report(said).json == {"received": 5}
    assert [told(client, order) for order in orders] == [("delivered", None), ("delivered", None), ("failed", "first")]


def test_a_report_of_another_notifier_is_of_another_message(client, deliver, notifier, report, change, rows):
    factories.order(client)
    deliver()
    (row,) = rows(Notification)
    change(row.id, notifier="pigeon")
    with_attempt = rows(NotificationAttempt)
    assert [one.notifier for one in with_attempt] == ["scripted"]
    report("scripted-1", "delivered")
    # the attempt was by the notifier that tells
    assert rows(Notification)[0].status == "delivered"


def test_a_reference_that_only_another_notifier_gave_is_not_known(client, deliver, registry, report, change, rows):
    factories.order(client)
    deliver()
    change(rows(Notification)[0].id, notifier="pigeon")
    with registry.database.transaction() as session:
        session.execute(update(NotificationAttempt).values(notifier="pigeon"))
    report("scripted-1", "delivered")
    assert rows(Notification)[0].status == "sent"
    assert rows(DeliveryReport)[0].notification_id is None


def test_of_two_messages_with_one_reference_the_newest_is_meant(client, deliver, notifier, report):
    orders = [factories.order(client) for _ in range(3)]
    notifier.script += [Receipt("ref-1"), Receipt("ref-1"), Receipt("ref-2")]
    deliver()
    report("ref-1", "delivered")
    assert [told(client, order)[0] for order in orders] == ["sent", "delivered", "sent"]


# -- attempts, and what is queued again ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "sending"])
def test_what_is_queued_again_is_beyond_reports_unless_it_was_delivered(
    client, deliver, notifier, report, rows, change, status
):
    factories.order(client)
    deliver()
    (row,) = rows(Notification)
    again = {"status": status, "reason": "again", "next_attempt_at": row.created_at, "lease_owner": "w"}
    change(row.id, **again)
    for said in ("sent", "expired", "failed"):
        report("scripted-1", said)
        (row,) = rows(Notification)
        assert (row.status, row.reason, row.lease_owner) == (status, "again", "w")
    report("scripted-1", "delivered")
    (row,) = rows(Notification)
    assert (row.status, row.reason, row.next_attempt_at) == ("delivered", None, None)
    # whoever is at it does not have it any more
    assert (row.lease_owner, row.lease_expires_at) == (None, None)
    assert deliver() == 0
    assert len(notifier.sent) == 1


@pytest.mark.parametrize("bound", ["before", "after"])
@pytest.mark.parametrize(("said", "becomes"), [("sent", "sent"), ("failed", "sent"), ("delivered", "delivered")])
def test_of_an_attempt_that_outlived_its_lease_only_delivered_counts(
    client, deliver, notifier, report, rows, attempt, bound, said, becomes
):
    order = factories.order(client)
    notifier.script += [Unavailable("busy"), Receipt("second")]
    for _ in range(2):
        deliver()
        client.app.registry.database.clock_offset += timedelta(hours=1)
    (row,) = rows(Notification)
    if bound == "before":
        report("first", said)
        attempt(row.id, 1, "first")
    else:
        attempt(row.id, 1, "first")
        report("first", said)
    assert told(client, order) == (becomes, None)
    assert [one.notification_id for one in rows(DeliveryReport)] == [row.id]
    # the last attempt speaks for the message
    report("second", "failed", reason="Absent")
    assert told(client, order) == ("delivered", None) if becomes == "delivered" else ("failed", "Absent")


def test_an_attempt_that_was_given_up_speaks_for_the_message_if_its_answer_comes_late(
    client, deliver, notifier, report, rows, attempt, change
):
    order = factories.order(client)
    notifier.script.append(Uncertain("no answer"))
    deliver()
    (row,) = rows(Notification)
    attempt(row.id, 2, "late")
    report("late", "failed", reason="Absent")
    assert told(client, order) == ("failed", "Absent")


# -- messages whose answer is not known ---------------------------------------------------------------------------


def lost(client, deliver, notifier, number):
    """An order whose message may or may not have been sent."""
    customer = factories.customer(client, phone_number=number)
    order = factories.order(client, customer=customer["id"])
    notifier.script.append(Uncertain("no answer"))
    deliver()
    assert told(client, order) == ("unknown", "no answer")
    return order


NUMBER = "+254700000001"


@pytest.mark.parametrize("status", TOLD)
def test_an_unknown_message_is_known_by_its_number(client, deliver, notifier, report, rows, status):
    order = lost(client, deliver, notifier, NUMBER)
    report("lost-1", status, to=NUMBER)
    assert told(client, order) == (status, None)
    (row,), (last,) = rows(Notification), rows(NotificationAttempt)
    assert row.reference == last.reference == "lost-1"
    # from now on by its reference
    report("lost-1", "delivered")
    assert told(client, order) == ("delivered", None)


def test_what_was_told_without_a_number_counts_once_the_reference_is_known(client, deliver, notifier, report):
    order = lost(client, deliver, notifier, NUMBER)
    report("lost-1", "failed", reason="Absent")
    assert told(client, order) == ("unknown", "no answer")
    report("lost-1", "sent", to=NUMBER)
    assert told(client, order) == ("failed", "Absent")


def test_of_a_report_before_the_answer_was_lost_nothing_is_lost(client, deliver, notifier, report):
    order = factories.order(client, customer=factories.customer(client, phone_number=NUMBER)["id"])

    def answer(message):
        report("lost-1", "delivered", to=message.to)
        return Uncertain("no answer")

    notifier.script.append(answer)
    deliver()
    assert told(client, order) == ("delivered", None)


def test_of_two_unknown_messages_to_a_number_none_is_guessed(client, deliver, notifier, report, rows):
    orders = [lost(client, deliver, notifier, NUMBER) for _ in range(2)]
    report("lost-1", "delivered", to=NUMBER)
    assert [told(client, order)[0] for order in orders] == ["unknown", "unknown"]
    assert rows(DeliveryReport)[0].notification_id is None


def test_while_another_message_to_the_number_is_sent_the_report_may_be_its(client, deliver, notifier, report):
    order = lost(client, deliver, notifier, NUMBER)
    other = factories.order(client, customer=order["customer"])

    def answer(message):
        report("mine", "failed", to=message.to)
        report("lost-1", "delivered", to=message.to)
        return Receipt("mine")

    notifier.script.append(answer)
    deliver()
    # its own by the reference, and what is left by the number
    assert told(client, other) == ("failed", None)
    assert told(client, order) == ("delivered", None)


def test_what_could_not_be_bound_when_it_came_is_bound_later(client, deliver, notifier, report, change, rows, sweep):
    orders = [lost(client, deliver, notifier, NUMBER) for _ in range(2)]
    report("lost-1", "delivered", to=NUMBER)
    change(rows(Notification)[0].id, status="queued")
    sweep()
    assert [told(client, order)[0] for order in orders] == ["queued", "delivered"]


@pytest.mark.parametrize(
    "values", [{"notifier": "pigeon"}, {"recipient": "+254700000002"}, {"status": "failed"}, {"status": "sent"}]
)
def test_only_an_unknown_message_by_that_notifier_to_that_number_is_meant(
    client, deliver, notifier, report, change, rows, values
):
    lost(client, deliver, notifier, NUMBER)
    change(rows(Notification)[0].id, **values)
    before = rows(Notification)[0].version
    report("lost-1", "delivered", to=NUMBER)
    assert rows(Notification)[0].version == before
    assert rows(DeliveryReport)[0].notification_id is None


def test_what_was_told_before_a_message_was_written_is_of_another(client, deliver, notifier, report, later, sweep):
    report("foreign", "delivered", to=NUMBER)
    later(seconds=5)
    order = lost(client, deliver, notifier, NUMBER)
    sweep()
    assert told(client, order) == ("unknown", "no answer")
    report("lost-1", "failed", to=NUMBER)
    assert told(client, order) == ("failed", None)


# -- what time brings ---------------------------------------------------------------------------------------------


def test_without_a_report_a_message_expires(client, deliver, report, rows, registry, change, later, sweep):
    orders = [factories.order(client) for _ in range(3)]
    deliver()
    with registry.database.session() as session:
        now = db.now(session)
    for row in rows(Notification):
        change(row.id, sent_at=now)
    report("scripted-2", "delivered")
    change(rows(Notification)[2].id, notifier="pigeon")
    later(hours=72, seconds=-60)
    sweep()
    assert [told(client, order)[0] for order in orders] == ["sent", "delivered", "sent"]
    later(seconds=120)
    sweep()
    # the third is by a notifier that has none
    assert [told(client, order) for order in orders] == [("expired", "no_report"), ("delivered", None), ("sent", None)]
    report("scripted-1", "sent")
    assert told(client, orders[0]) == ("expired", "no_report")
    report("scripted-1", "delivered")
    assert told(client, orders[0]) == ("delivered", None)


def test_what_was_sent_long_before_anybody_waited_for_reports_is_let_be(client, deliver, rows, change, sweep):
    factories.order(client)
    deliver()
    (row,) = rows(Notification)
    change(row.id, sent_at=row.created_at - timedelta(days=35))
    sweep()
    assert rows(Notification)[0].status == "sent"


def test_without_a_secret_no_message_expires(make_app, database_kind):
    app = make_app(database_kind, **{"notifications.report_secrets": ""})
    client = signed_in(app)
    order = factories.order(client)
    app.registry.outbox.deliver(app.registry.outbox.due(1)[0])
    with app.registry.database.transaction() as session:
        session.execute(update(Notification).values(sent_at=db.now(session)))
    app.registry.database.clock_offset += timedelta(hours=100)
    app.registry.outbox.sweep()
    assert told(client, order) == ("sent", None)


def test_what_matches_nothing_is_deleted_in_the_end(client, deliver, report, rows, later, sweep, monkeypatch):
    monkeypatch.setattr(reports, "SWEPT", 2)
    factories.order(client)
    deliver()
    for number in range(5):
        report(f"foreign-{number}", "delivered", to=NUMBER)
    report("scripted-1", "delivered")
    later(hours=72, seconds=-60)
    sweep()
    assert len(rows(DeliveryReport)) == 6
    later(seconds=120)
    sweep()
    assert [row.reference for row in rows(DeliveryReport)] == ["scripted-1"]


def test_many_that_are_overdue_expire_some_at_a_time(client, deliver, rows, registry, later, sweep, monkeypatch):
    monkeypatch.setattr(reports, "SWEPT", 2)
    for _ in range(5):
        factories.order(client)
    deliver()
    with registry.database.transaction() as session:
        session.execute(update(Notification).values(sent_at=db.now(session)))
    later(hours=73)
    with registry.database.transaction() as session:
        assert reports.sweep(session, reporting=["scripted"], deadline=timedelta(hours=72)) == 2
    sweep()
    assert {row.status for row in rows(Notification)} == {"expired"}


def test_answers_are_stored_in_few_statements_where_nothing_was_kept(client, registry, rows):
    for _ in range(20):
        factories.order(client)
    outbox = registry.outbox
    done = [(claim, outbox.send(claim)) for claim in outbox.claim(20)]
    statements = []

    def count(connection, cursor, statement, *_):
        statements.append(statement.split()[0])

    event.listen(registry.database.engine, "before_cursor_execute", count)
    try:
        outbox.record(done)
    finally:
        event.remove(registry.database.engine, "before_cursor_execute", count)
    told = {"postgresql": ["SELECT", "SELECT", "WITH"], "sqlite": ["PRAGMA", "BEGIN", "SELECT", "UPDATE", "INSERT"]}
    assert statements == told[registry.database.engine.name]
    assert {row.status for row in rows(Notification)} == {"sent"}


# -- opt-outs -----------------------------------------------------------------------------------------------------


def test_a_stop_is_of_every_customer_with_the_number(client, report, rows):
    same = [factories.customer(client, phone_number=NUMBER) for _ in range(2)]
    other = factories.customer(client, phone_number="+254700000002")
    tags = [client.get(f"/api/customers/{one['id']}").headers["ETag"] for one in same]
    assert report([{"to": NUMBER}, {"to": NUMBER}]).json == {"received": 2}
    for one, tag in zip(same, tags, strict=True):
        shown = client.get(f"/api/customers/{one['id']}")
        assert shown.json["sms_opt_out"] is True
        assert shown.headers["ETag"] != tag
    assert client.get(f"/api/customers/{other['id']}").json == other
    first, second, third = rows(Customer)
    assert first.sms_opt_out_source == second.sms_opt_out_source == "recipient"
    assert first.sms_opt_out_at == second.sms_opt_out_at == first.updated_at
    assert (third.sms_opt_out_source, third.sms_opt_out_at) == (None, None)
    before = rows(Customer)
    report([{"to": NUMBER}])
    assert [row.version for row in rows(Customer)] == [row.version for row in before]


def test_a_stop_wins_over_what_staff_wrote(client, report, rows, registry):
    factories.customer(client, phone_number=NUMBER, sms_opt_out=True)
    with registry.database.transaction() as session:
        session.execute(update(Customer).values(sms_opt_out_source="staff"))
    report([{"to": NUMBER}])
    assert rows(Customer)[0].sms_opt_out_source == "recipient"


def test_a_stop_of_nobody_changes_nothing(client, report, registry):
    factories.customer(client)
    before = contents(registry)
    assert report([{"to": "+254799999999"}]).json == {"received": 1}
    assert contents(registry) == before


# -- who may tell -------------------------------------------------------------------------------------------------


def answer_of(response):
    """All of an answer that does not differ from one request to the next."""
    headers = {name: value for name, value in response.headers.items() if name != "X-Request-Id"}
    body = response.body.replace(response.headers["X-Request-Id"].encode(), b"*")
    return response.status, headers, body


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_without_the_secret_nothing_is_there(anonymous, client, method, secret):
    wrong = secrets.token_urlsafe(32)
    bodies = [b"", b"[" * 100, b"x" * 5000, b"x" * 70_000, json.dumps([{"reference": "a", "status": "sent"}]).encode()]
    for body in bodies if method not in ("GET", "HEAD") else [b""]:
        for type_ in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
            for caller in (anonymous, client):

                def ask(path, caller=caller, body=body, type_=type_):
                    headers = {"Content-Type": type_, "Accept": "*/*"}
                    return caller.request(path, method=method, body=body, headers=headers, status="*")

                expected = answer_of(ask(f"/api/nothing/at/scripted/{wrong}"))
                for path in (
                    f"{PATH}/scripted/{wrong}",
                    f"{PATH}/scripted/{wrong}/",
                    f"{PATH}/scripted/{secret[:-1]}",
                    f"{PATH}/scripted/{secret}x",
                    f"{PATH}/scripted/{secret.swapcase()}",
                    f"{PATH}/scripted/%C3%A9",
                    f"{PATH}/scripted/{secret}/more",
                    f"{PATH}/nobody/{secret}",
                    f"{PATH}/Scripted/{secret}",
                    f"{PATH}/scripted",
                    f"{PATH}/{secret}",
                ):
                    assert answer_of(ask(path)) == expected, path


def test_a_notifier_without_reports_is_not_there(anonymous, registry, monkeypatch, secret):
    class Mute:
        """Sends, and hears nothing."""

    monkeypatch.setitem(registry.plugins.notifiers, "mute", Mute())
    answer = anonymous.post_json(f"{PATH}/mute/{secret}", [], status="*")
    assert answer_of(answer) == answer_of(anonymous.post_json("/api/nothing", [], status="*"))


def test_without_secrets_in_the_settings_nothing_is_there(make_app, database_kind):
    app = make_app(database_kind, **{"notifications.report_secrets": ""})
    client = signed_in(app)
    for word in ("None", "()", "%20", secrets.token_urlsafe(32)):
        assert_problem(client.post_json(f"{PATH}/scripted/{word}", [], status="*"), 404, "not-found")


def test_two_secrets_are_good_at_once_and_each_is_compared_whole(make_app, database_kind, monkeypatch):
    old, new = secrets.token_urlsafe(16), secrets.token_hex(16)
    app = make_app(database_kind, **{"notifications.report_secrets": f"{old} {new}"})
    client = signed_in(app)
    compared = []

    class Counting:
        """As ``hmac``; notes what is compared."""

        @staticmethod
        def compare_digest(given, secret):
            compared.append((given, secret))
            return secrets.compare_digest(given, secret)

    monkeypatch.setattr(callbacks, "hmac", Counting)
    said = [{"reference": "ref-1", "status": "sent"}]
    for word, status in ((old, 200), (new, 200), (old[:-1], 404), ("%C3%A9", 404), (old + new, 404)):
        compared.clear()
        client.post_json(f"{PATH}/scripted/{word}", said, status=status)
        # both, whichever it is
        assert compared == [(unquote(word).encode(), secret.encode()) for secret in (old, new)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("x" * 32, "looks like a placeholder"),
        ("change-me-{word}", "looks like a placeholder"),
        ("YOUR_SECRET-{word}", "looks like a placeholder"),
        ("{word:.21}", "is not 22 to 255 characters long. Make one with: python3 -c"),
        ("{hex:.31}", "is not 32 to 255 characters long. Make one with: python3 -c"),
        ("{word}{word}{word}{word}{word}{word}", "is not 22 to 255 characters long"),
        ("{word}/", "holds what an address cannot"),
        ("{word}é", "holds what an address cannot"),
        ("{word} {hex} {word}x", "holds more than two"),
        ("{word} {hex:.20}", "number 2 is not 32 to 255 characters long"),
    ],
)
def test_a_secret_that_could_be_guessed_refuses_to_start(make_app, words, says):
    word, number = secrets.token_urlsafe(33), secrets.token_hex(32)
    with pytest.raises(Exception, match="1 setting is wrong") as caught:
        make_app("sqlite", **{"notifications.report_secrets": words.format(word=word, hex=number)})
    (error,) = caught.value.errors
    assert error.key == "notifications.report_secrets"
    assert says in error.message
    assert word[:20] not in str(caught.value)
    assert number[:20] not in str(caught.value)


def test_secrets_are_shown_to_nobody(registry, make_app, secret):
    setting = registry.sections["notifications"]["report_secrets"]
    assert (setting.value, setting.display()) == ((secret,), "********")
    without = make_app("sqlite", **{"notifications.report_secrets": ""}).registry
    assert without.sections["notifications"]["report_secrets"].display() == ""


def test_a_thousand_forged_reports_change_nothing(client, anonymous, deliver, notifier, registry, sweep, later, secret):
    orders = [factories.order(client) for _ in range(3)]
    deliver()
    lost(client, deliver, notifier, NUMBER)
    before = contents(registry)
    chance, statuses = random.Random(5), []
    recipients = [message.to for message in notifier.sent]

    def forge():
        reference = f"scripted-{chance.randrange(9)}"
        return [{"reference": reference, "status": chance.choice(TOLD), "to": chance.choice(recipients)}]

    def post(path, body, type_="application/json"):
        answer = anonymous.post(path, body, {"Content-Type": type_}, status="*")
        statuses.append(answer.status_int)

    right = f"{PATH}/scripted/{secret}"
    for _ in range(250):
        post(f"{PATH}/scripted/{secrets.token_urlsafe(32)}", json.dumps(forge()).encode())
        post(f"{PATH}/{chance.choice(['nobody', 'devtools', '.'])}/{secret}", json.dumps(forge()).encode())
    assert set(statuses) == {404}
    statuses.clear()
    for number in range(200):
        said = forge()[0] | {"reference": f"unknown-{number}", "to": f"+25479{number:07d}"}
        post(right, json.dumps([said]).encode())
    assert set(statuses) == {200}
    statuses.clear()
    for _ in range(100):
        post(right, chance.randbytes(chance.randrange(200)))
        post(right, json.dumps(forge()).encode()[: chance.randrange(1, 20)])
    assert set(statuses) == {400}
    statuses.clear()
    for size in range(100):
        post(right, json.dumps(forge()).encode().ljust(4097 + size))
    assert set(statuses) == {413}
    assert contents(registry) == before | {"delivery_reports": contents(registry)["delivery_reports"]}
    later(hours=73)
    sweep()
    assert contents(registry)["delivery_reports"] == before["delivery_reports"] == []
    # of the true ones there was no report
    assert [told(client, order) for order in orders] == [("expired", "no_report")] * 3


def test_a_call_back_is_a_form_or_json_of_4_kib(anonymous, registry, monkeypatch, secret):
    seen = []
    notifier = registry.plugins.notifiers["scripted"]
    monkeypatch.setattr(notifier, "parse", lambda headers, body: seen.append((headers, body)) or [])
    path = f"{PATH}/scripted/{secret}"
    for type_ in ("application/json", "application/x-www-form-urlencoded; charset=utf-8", "APPLICATION/JSON"):
        for where in (path, f"{path}/", f"{path}?more=1"):
            assert anonymous.post(where, b"x" * 4096, {"Content-Type": type_}).json == {"received": 0}
            headers, body = seen[-1]
            assert (headers["Content-Type"], body) == (type_, b"x" * 4096)
            assert secret not in str(headers)
    for type_ in ("text/plain", "multipart/form-data; boundary=x", ""):
        refused = anonymous.post(path, b"x", {"Content-Type": type_}, status="*")
        assert_problem(refused, 415, "unsupported-media-type")
    refused = anonymous.post(path, b"x" * 4097, {"Content-Type": "application/json"}, status="*")
    assert "4096 bytes" in assert_problem(refused, 413, "too-large")["detail"]
    assert len(seen) == 9


@pytest.mark.parametrize("failure", [ValueError("the canary"), KeyError("the canary"), RecursionError("the canary")])
def test_what_a_notifier_cannot_read_is_refused_and_logged_without_content(
    anonymous, registry, caplog, monkeypatch, secret, failure
):
    def parse(headers, body):
        raise failure

    monkeypatch.setattr(registry.plugins.notifiers["scripted"], "parse", parse)
    refused = anonymous.post_json(f"{PATH}/scripted/{secret}", ["the canary"], status="*")
    assert_problem(refused, 400, "malformed")
    (record,) = [one for one in caplog.records if one.name == "customer_orders.notifications.callbacks"]
    assert record.levelname == ("WARNING" if isinstance(failure, ValueError) else "ERROR")
    assert type(failure).__name__ in record.getMessage()
    assert "the canary" not in caplog.text + refused.text


def test_the_secret_is_in_no_log_line_and_no_answer(make_app, client_of, database_kind, caplog, monkeypatch):
    monkeypatch.setenv("PYRAMID_DEBUG_ALL", "true")
    caplog.set_level(logging.DEBUG)
    secret = secrets.token_urlsafe(32)
    app = make_app(database_kind, **{"notifications.report_secrets": secret, "pyramid.debug_all": "true"})
    client = client_of(app)
    factories.order(client, customer=factories.customer(client, phone_number=NUMBER)["id"])
    path = f"{PATH}/scripted/{secret}"
    said = [{"reference": "unknown-1", "status": "failed", "to": NUMBER}, {"to": NUMBER}]
    answers = [
        client.post_json(path, said),
        client.post_json(path, said),
        client.post_json(path, {"no": "report"}, status=400),
        client.post_json(path, ["x" * 5000], status=413),
        client.post_json(path, ["x" * 70_000], status=413),
        client.post(path, b"x", {"Content-Type": "text/plain"}, status=415),
        client.get(path, status=405),
        client.get(f"{path}/more", status=404),
        client.post_json(f"{PATH}/nobody/{secret}", said, status=404),
        client.options(path),
    ]
    with app.registry.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE delivery_reports"))
    answers.append(client.post_json(path, said, status=503))
    monkeypatch.setattr(reports, "receive", lambda *_: 1 / 0)
    answers.append(client.post_json(path, said, status=500))
    assert "unexpected error" in caplog.text
    lines = [caplog.text, *(str(vars(record)) for record in caplog.records)]
    for leak in (secret, secret[:16], secret[-16:], NUMBER, NUMBER[1:]):
        assert not any(leak in line for line in lines)
    for answer in answers:
        assert secret not in answer.text + str(answer.headers)


def test_a_request_whose_client_went_away_is_logged_without_the_secret(caplog):
    import customer_orders.server  # noqa: F401 - makes it so

    caplog.set_level(logging.INFO)
    log = logging.getLogger("waitress")
    secret = secrets.token_urlsafe(32)
    for path in (f"{PATH}/scripted/{secret}", f"//{PATH[1:]}/x/{secret}/y"):
        log.info(f"Client disconnected while serving {path}")  # noqa: G004 - as waitress does
    log.info("Client disconnected while serving /api/orders/5")
    assert secret not in caplog.text
    assert f"{PATH}/scripted/{{secret}}" in caplog.text
    assert "/api/orders/5" in caplog.text


# -- at the same moment -------------------------------------------------------------------------------------------


@pytest.fixture
def at(registry):
    """Has ``act`` done once: before a statement that has all of the ``words``, or, without any, before a COMMIT."""
    engine, listening = registry.database.engine, []

    def arrange(act, *words):
        done = []

        def now(connection, cursor=None, statement="", *_):
            if not done and all(word in statement for word in words):
                done.append(statement)
                act()

        what = "before_cursor_execute" if words else "commit"
        event.listen(engine, what, now)
        listening.append((what, now))
        return done

    yield arrange
    for what, now in listening:
        event.remove(engine, what, now)


@pytest.fixture
def waiting(registry):
    """Does something in a thread, and returns once the database has it wait."""
    engine, threads = registry.database.engine, []

    def start(act):
        threads.append(threading.Thread(target=act))
        threads[-1].start()

        def waits():
            with engine.connect() as connection:
                query = (
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                return connection.scalar(text(query))

        wait_for(waits, "the thread waits for a lock")
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(30)


@on_postgresql
def test_a_report_that_comes_while_the_answer_is_stored_is_found_by_it(client, deliver, report, at):
    order = factories.order(client)
    # the answer is known, and nothing of it written
    done = at(lambda: report("scripted-1", "delivered"), "pg_advisory_xact_lock_shared")
    deliver()
    assert done
    assert told(client, order) == ("delivered", None)


@on_postgresql
@pytest.mark.parametrize("before", ["any_kept", "INSERT INTO notification_attempts", "COMMIT"])
def test_a_report_that_comes_after_the_answer_was_begun_waits_for_it(client, deliver, report, at, waiting, before):
    order = factories.order(client)
    started = []

    def come():
        started.append(waiting(lambda: report("scripted-1", "delivered")))

    if before == "COMMIT":
        at(lambda: at(come), "any_kept")
    else:
        at(come, before)
    deliver()
    started[0].join(30)
    assert told(client, order) == ("delivered", None)


@on_postgresql
def test_a_report_and_the_answer_to_another_attempt_do_not_undo_each_other(
    client, deliver, notifier, report, attempt, rows, at, waiting
):
    order = factories.order(client)
    notifier.script += [Unavailable("busy"), Receipt("second")]
    deliver()
    (row,) = rows(Notification)
    attempt(row.id, 1, "first")
    client.app.registry.database.clock_offset += timedelta(hours=1)
    started = []

    def told_meanwhile():
        started.append(waiting(lambda: report("first", "delivered")))

    at(lambda: at(told_meanwhile), "delivery_reports")
    deliver()
    started[0].join(30)
    assert told(client, order) == ("delivered", None)
    assert rows(Notification)[0].reference == "second"


@pytest.fixture
def deadlocks(registry):
    """Those that PostgreSQL found, whoever it chose to undo."""
    engine, found = registry.database.engine, []

    def note(context):
        if getattr(context.original_exception, "sqlstate", None) == "40P01":
            found.append(context.statement)

    event.listen(engine, "handle_error", note)
    yield found
    event.remove(engine, "handle_error", note)


@on_postgresql
@pytest.mark.parametrize("what", ["anonymize", "two reports"])
def test_who_wants_answers_and_messages_waits_for_nobody_who_waits_for_them(
    client, deliver, report, attempt, rows, at, waiting, deadlocks, what
):
    order = factories.order(client)
    (row,) = rows(Notification)
    attempt(row.id, 0, "earlier")
    two = [{"reference": "earlier", "status": "delivered"}, {"reference": "of nobody", "status": "delivered"}]
    acts = {
        "anonymize": lambda: client.post(f"/api/customers/{order['customer']}/anonymize", status=200),
        "two reports": lambda: report(two),
    }
    started = []
    # the recorder has the one, and not yet the other
    at(lambda: started.append(waiting(acts[what])), "any_kept")
    deliver()
    started[0].join(30)
    assert deadlocks == []
    assert rows(Notification)[0].status == ("sent" if what == "anonymize" else "delivered")


@on_postgresql
def test_an_answer_is_bound_to_what_the_message_is_by_now(client, deliver, registry, rows, change):
    factories.order(client)
    deliver()
    (row,) = rows(Notification)
    with registry.database.transaction() as session:
        report = {"notifier": "scripted", "reference": row.reference, "status": "failed"}
        session.execute(insert(DeliveryReport).values(**report, received_at=row.created_at))
    with registry.database.transaction() as session:
        known = session.get(Notification, row.id)
        assert known.status == "sent"
        change(row.id, status="delivered")
        reports.bind(session, [row.id])
        assert known.status == "delivered"
    assert rows(Notification)[0].status == "delivered"


@on_postgresql
def test_of_two_who_tell_the_same_one_is_kept(client, deliver, report, rows, at, waiting):
    order = factories.order(client)
    deliver()
    started = []
    at(lambda: started.append(waiting(lambda: report("scripted-1", "failed"))))
    report("scripted-1", "failed")
    started[0].join(30)
    assert len(rows(DeliveryReport)) == 1
    assert told(client, order) == ("failed", None)


@on_postgresql
def test_two_that_tell_of_one_message_end_in_the_greater(client, deliver, report, rows, at, waiting):
    order = factories.order(client)
    deliver()
    started = []
    at(lambda: started.append(waiting(lambda: report("scripted-1", "failed"))))
    report("scripted-1", "delivered")
    started[0].join(30)
    assert len(rows(DeliveryReport)) == 2
    assert told(client, order) == ("delivered", None)


@on_postgresql
def test_the_locks_are_by_id_so_that_nobody_waits_in_a_ring(client, deliver, report, rows):
    for _ in range(4):
        factories.order(client)
    deliver()
    backwards = [{"reference": f"scripted-{number}", "status": "delivered"} for number in (4, 3, 2, 1)]
    forwards = [{**one, "status": "failed"} for one in reversed(backwards)]
    threads = [threading.Thread(target=report, args=(said,)) for said in (backwards, forwards) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {row.status for row in rows(Notification)} == {"delivered"}
    assert len(rows(DeliveryReport)) == 8

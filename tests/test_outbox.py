"""What becomes of a message: every outcome, the leases, and the words."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError

import factories
from customer_orders import db
from customer_orders.errors import Conflict
from customer_orders.events import CustomerFacts, OrderFacts, OrderPlaced
from customer_orders.interfaces import ChannelDown, Cost, NotSent, Receipt, Rejected, Unavailable, Uncertain
from customer_orders.money import amount_text
from customer_orders.notifications import delivery
from customer_orders.notifications.dispatch import WorkerDispatcher
from customer_orders.notifications.models import Notification, NotificationAttempt
from customer_orders.notifications.outcomes import backoff
from customer_orders.notifications.templates import Templates
from customer_orders.orders.services import delete_order
from customer_orders.settings import section
from serving import wait_for


@pytest.fixture
def settings(registry):
    return section(registry, "notifications")


@pytest.fixture
def listen(registry):
    """Adds a listener for one kind of event, for one test."""
    added = []

    def add(kind, function):
        registry.database.listeners[kind].append(function)
        added.append((kind, function))

    yield add
    for kind, function in added:
        registry.database.listeners[kind].remove(function)


@pytest.fixture
def good_news(client, registry, notifier):
    """Somebody else's message is taken, so that failures are not in a row."""

    def send():
        waiting = list(notifier.script)
        notifier.script.clear()
        # and nothing else that became due meanwhile
        registry.outbox.deliver(factories.order(client)["notification"]["id"])
        notifier.script.extend(waiting)
        notifier.sent.pop()

    return send


def told(client, order):
    return client.get(f"/api/orders/{order['id']}").json["notification"]


# -- outcomes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (None, None),
        (Cost(Decimal("0.8"), "KES"), {"amount": "0.8000", "currency": "KES"}),
        (Cost(Decimal("0"), "USD"), {"amount": "0.0000", "currency": "USD"}),
        (Cost(Decimal("0.02204"), "USD"), {"amount": "0.0220", "currency": "USD"}),
        (Cost(Decimal("1234567890.1234"), "UGX"), {"amount": "1234567890.1234", "currency": "UGX"}),
    ],
)
def test_a_receipt_makes_it_sent(client, deliver, notifier, rows, cost, expected):
    order = factories.order(client)
    notifier.script.append(Receipt("ATXid_1", cost))
    assert deliver() == 1
    shown = told(client, order)
    assert shown.pop("updated_at")
    assert shown == {
        "id": order["notification"]["id"],
        "status": "sent",
        "reason": None,
        "attempts": 1,
        "next_attempt_at": None,
        "cost": expected,
        "notifier": "scripted",
    }
    (row,) = rows(Notification)
    assert (row.reference, row.lease_owner, row.lease_expires_at) == ("ATXid_1", None, None)
    (attempt,) = rows(NotificationAttempt)
    assert (attempt.number, attempt.outcome, attempt.reference, attempt.notifier) == (
        1,
        "accepted",
        "ATXid_1",
        "scripted",
    )
    assert attempt.finished_at >= attempt.started_at
    assert deliver() == 0


@pytest.mark.parametrize(
    ("failure", "outcome", "status", "reason"),
    [
        (Rejected("InvalidPhoneNumber"), "rejected", "failed", "InvalidPhoneNumber"),
        (Rejected("UserInBlacklist", suppressed=True), "rejected", "suppressed", "UserInBlacklist"),
        (Uncertain("read timed out"), "uncertain", "unknown", "read timed out"),
        (KeyError("SMSMessageData"), "error", "unknown", "notifier_error: KeyError"),
        (NotSent("neither of the four"), "error", "unknown", "notifier_error: NotSent"),
    ],
)
def test_what_is_final_is_never_sent_again(client, deliver, notifier, rows, later, failure, outcome, status, reason):
    order = factories.order(client)
    notifier.script.append(failure)
    deliver()
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["attempts"], shown["cost"]) == (status, reason, 1, None)
    assert [(one.outcome, one.reason) for one in rows(NotificationAttempt)] == [(outcome, reason)]
    later(10 * 86400)
    assert deliver() == 0
    assert len(notifier.sent) == 1


@pytest.mark.parametrize(
    "receipt",
    [
        "ATXid_1",
        Receipt(""),
        Receipt("x" * 256),
        Receipt("x\x00y"),
        Receipt(None),
        Receipt("x", Cost(Decimal("NaN"), "KES")),
        Receipt("x", Cost(Decimal("-1"), "KES")),
        Receipt("x", Cost(Decimal("1e10"), "KES")),
        Receipt("x", Cost("0.8", "KES")),
        Receipt("x", Cost(Decimal("0.8"), "Shilling")),
    ],
)
def test_a_receipt_that_breaks_the_contract_is_kept_as_unknown_and_not_sent_again(
    client, deliver, notifier, later, caplog, receipt
):
    order = factories.order(client)
    notifier.script.append(lambda _: receipt)
    deliver()
    assert told(client, order)["status"] == "unknown"
    assert told(client, order)["reason"].startswith("notifier_error: ")
    assert "the notifier scripted is defective" in caplog.text
    later(10 * 86400)
    assert deliver() == 0


@pytest.mark.parametrize("reason", ["NUL \x00, surrogate \ud800, line\nbreak", "long " * 100, 503])
def test_a_reason_is_kept_whatever_the_provider_said(client, deliver, notifier, rows, reason):
    order = factories.order(client)
    notifier.script.append(Rejected(reason))
    deliver()
    kept = told(client, order)["reason"]
    assert kept == rows(NotificationAttempt)[0].reason
    assert kept.isprintable()
    assert len(kept) <= 255
    assert kept[:3] == str(reason)[:3]


def test_what_is_unavailable_is_tried_again_with_growing_waits(
    client, deliver, notifier, rows, later, settings, good_news
):
    order = factories.order(client)
    waits = []
    for attempt in range(1, settings.max_attempts):
        notifier.script.append(Unavailable(f"no answer {attempt}"))
        assert deliver() == 1
        row = rows(Notification)[0]
        waits.append((row.next_attempt_at - row.updated_at).total_seconds())
        assert 0 <= waits[-1] <= min(settings.retry_cap, settings.retry_base * 2 ** (attempt - 1))
        shown = told(client, order)
        assert (shown["status"], shown["reason"], shown["attempts"]) == ("queued", f"no answer {attempt}", attempt)
        assert shown["next_attempt_at"] is not None
        good_news()
        later(settings.retry_cap)
    assert len(set(waits)) > 1
    assert deliver() == 1
    assert told(client, order)["status"] == "sent"
    attempts = [one for one in rows(NotificationAttempt) if one.notification_id == row.id]
    assert [one.outcome for one in attempts] == ["unavailable"] * 9 + ["accepted"]
    assert [one.number for one in attempts] == list(range(1, 11))
    # one key over all attempts, for providers that know it again
    assert len({message.key for message in notifier.sent}) == 1


def test_it_is_not_tried_before_its_time(client, deliver, notifier, rows, later):
    factories.order(client)
    notifier.script.append(Unavailable("busy", retry_after=100))
    assert deliver() == 1
    later(90)
    assert deliver() == 0
    (waiting,) = rows(Notification)
    assert waiting.attempts == 1
    later(11)
    assert deliver() == 1


@pytest.mark.parametrize(("asked", "at_least"), [(600, 600), (10**9, 3600), (-5, 0), (float("nan"), 0), (None, 0)])
def test_a_provider_may_ask_to_wait_but_not_for_ever(client, deliver, notifier, rows, settings, asked, at_least):
    factories.order(client)
    notifier.script.append(Unavailable("busy", retry_after=asked))
    deliver()
    (row,) = rows(Notification)
    wait = (row.next_attempt_at - row.updated_at).total_seconds()
    assert at_least <= wait <= max(at_least, settings.retry_base)


def test_after_the_last_attempt_it_has_failed(client, deliver, notifier, later, settings, good_news):
    order = factories.order(client)
    for _ in range(settings.max_attempts):
        notifier.script.append(Unavailable("no answer"))
        assert deliver() == 1
        good_news()
        later(settings.retry_cap)
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("failed", "no answer", settings.max_attempts)
    assert shown["next_attempt_at"] is None
    assert deliver() == 0


def test_after_its_deadline_it_has_failed(client, deliver, notifier, later, settings):
    order = factories.order(client)
    notifier.script.append(ChannelDown("InsufficientBalance"))
    assert deliver() == 1
    later(settings.deadline)
    assert deliver() == 1
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["next_attempt_at"]) == ("failed", "deadline", None)
    assert len(notifier.sent) == 1


def test_no_attempt_is_planned_after_the_deadline(client, deliver, notifier, later, settings):
    order = factories.order(client)
    later(settings.deadline - 10)
    notifier.script.append(Unavailable("come back tomorrow", retry_after=60))
    assert deliver() == 1
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["next_attempt_at"]) == ("failed", "come back tomorrow", None)


def test_a_sweep_ends_what_nobody_claims(client, deliver, registry, notifier, later, settings):
    order, young = factories.order(client), None
    notifier.script.append(ChannelDown("account closed"))
    deliver()
    later(settings.deadline - 1)
    young = factories.order(client)
    registry.outbox.sweep()
    assert told(client, order)["status"] == "queued"
    later(1)
    registry.outbox.sweep()
    assert (told(client, order)["status"], told(client, order)["reason"]) == ("failed", "deadline")
    assert told(client, young)["status"] == "queued"


# -- what may or may not have been sent ---------------------------------------------------------------------------


@pytest.fixture
def retry_unknown(make_app, database_kind, client_of):
    """An application that sends again what no report told of: the client, the outbox, and the time that passes."""
    app = make_app(database_kind, **{"notifications.retry_unknown": "once", "notifications.unknown_after": "3600"})
    outbox = app.registry.outbox

    def deliver():
        ids = outbox.due(100)
        for one in ids:
            outbox.deliver(one)
        return len(ids)

    def later(seconds):
        app.registry.database.clock_offset += timedelta(seconds=seconds)
        outbox.sweep()

    notifier = app.registry.plugins.notifiers["scripted"]
    return SimpleNamespace(client=client_of(app), notifier=notifier, deliver=deliver, later=later)


@pytest.mark.parametrize("failure", [Uncertain("cut off"), KeyError("odd")])
def test_what_is_unknown_is_sent_once_more_where_the_deployment_wants_it(retry_unknown, failure):
    order = factories.order(retry_unknown.client)
    retry_unknown.notifier.script.extend([failure, failure])
    assert retry_unknown.deliver() == 1
    retry_unknown.later(3590)
    assert told(retry_unknown.client, order)["status"] == "unknown"
    retry_unknown.later(11)
    assert told(retry_unknown.client, order)["status"] == "queued"
    assert retry_unknown.deliver() == 1
    shown = told(retry_unknown.client, order)
    assert (shown["status"], shown["attempts"]) == ("unknown", 2)
    retry_unknown.later(10 * 86400)
    assert told(retry_unknown.client, order)["status"] == "unknown"
    assert retry_unknown.deliver() == 0


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_what_is_unknown_is_not_sent_again_for_an_order_that_is_gone(retry_unknown, when):
    order = factories.order(retry_unknown.client)

    def delete():
        retry_unknown.client.delete(f"/api/orders/{order['id']}", status=204)

    retry_unknown.notifier.script.append(
        lambda _: (delete() if when == "meanwhile" else None) or Uncertain("cut off"),
    )
    assert retry_unknown.deliver() == 1
    if when == "afterwards":
        delete()
    retry_unknown.later(4000)
    assert retry_unknown.deliver() == 0


def test_what_is_unknown_stays_so_unless_told(client, deliver, registry, notifier, later):
    order = factories.order(client)
    notifier.script.append(Uncertain("cut off"))
    deliver()
    later(30 * 86400)
    registry.outbox.sweep()
    assert told(client, order)["status"] == "unknown"


@given(st.integers(1, 10_000), st.integers(1, 3600), st.integers(1, 86400))
def test_backoff_stays_between_nothing_and_its_bounds(attempt, base, cap):
    wait = backoff(attempt, base, cap)
    assert 0 <= wait <= cap
    assert wait <= base * 2 ** min(attempt - 1, 40)


def test_backoff_spreads_over_its_whole_range():
    waits = [backoff(5, 10, 100) for _ in range(1000)]
    assert min(waits) < 10
    assert max(waits) > 90


# -- nothing to send ----------------------------------------------------------------------------------------------


def test_who_opted_out_gets_nothing(client, deliver, notifier):
    customer = factories.customer(client, sms_opt_out=True)
    shown = factories.order(client, customer=customer["id"])["notification"]
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("suppressed", "opted_out", 0)
    assert deliver() == 0
    assert notifier.sent == []


def test_without_a_notifier_every_order_says_so(make_app, database_kind, client_of):
    app = make_app(database_kind, **{"notifications.sms": ""})
    shown = factories.order(client_of(app))["notification"]
    assert (shown["status"], shown["reason"]) == ("suppressed", "no_notifier")
    assert app.registry.outbox.due(10) == []


def test_an_order_that_is_rolled_back_tells_nobody(client, deliver, notifier, rows, listen):
    def refuse(session, event):
        # the outbox row is written by now
        assert session.scalars(select(Notification)).one().status == "queued"
        raise Conflict("Not today.")

    customer = factories.customer(client)["id"]
    listen(OrderPlaced, refuse)
    client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer}, status=409)
    assert rows(Notification) == []
    assert client.get("/api/orders/").json == []
    assert deliver() == 0
    assert notifier.sent == []


# -- quiet hours --------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(make_app, database_kind, client_of):
    """An application that sends nothing from two hours from now until four hours from now."""

    def at(hours):
        return (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)

    start, end = at(2), at(4)
    app = make_app(database_kind, **{"notifications.quiet_hours": f"{start:%H:%M}-{end:%H:%M} UTC"})
    return SimpleNamespace(
        client=client_of(app),
        outbox=app.registry.outbox,
        database=app.registry.database,
        notifier=app.registry.plugins.notifiers["scripted"],
        end=f"{end:%Y-%m-%dT%H:%M}:00Z",
    )


def test_what_could_not_be_sent_in_time_waits_for_the_end_of_the_quiet_hours(quiet):
    order = factories.order(quiet.client)
    (due,) = quiet.outbox.due(10)
    # no worker ran before they began
    quiet.database.clock_offset += timedelta(hours=3)
    quiet.outbox.deliver(due)
    shown = told(quiet.client, order)
    assert (shown["status"], shown["attempts"], shown["next_attempt_at"]) == ("queued", 0, quiet.end)
    assert quiet.notifier.sent == []
    quiet.database.clock_offset += timedelta(hours=1, minutes=1)
    quiet.outbox.deliver(due)
    assert told(quiet.client, order)["status"] == "sent"


def test_another_attempt_is_not_made_in_quiet_hours(quiet):
    order = factories.order(quiet.client)
    (due,) = quiet.outbox.due(10)
    quiet.database.clock_offset += timedelta(hours=1, minutes=30)
    quiet.notifier.script.append(Unavailable("busy", retry_after=3600))
    quiet.outbox.deliver(due)
    shown = told(quiet.client, order)
    assert (shown["status"], shown["attempts"], shown["next_attempt_at"]) == ("queued", 1, quiet.end)


# -- deleted orders -----------------------------------------------------------------------------------------------


def test_deleting_an_order_cancels_what_is_queued(client, deliver, notifier, rows):
    order = factories.order(client)
    client.delete(f"/api/orders/{order['id']}", status=204)
    (row,) = rows(Notification)
    assert (row.status, row.reason, row.order_id, row.next_attempt_at) == ("cancelled", "order_deleted", None, None)
    assert deliver() == 0
    assert notifier.sent == []


def test_what_was_sent_stays_on_record(client, deliver, rows):
    order = factories.order(client)
    deliver()
    client.delete(f"/api/orders/{order['id']}", status=204)
    (row,) = rows(Notification)
    assert (row.status, row.order_id, row.reference) == ("sent", None, "scripted-1")
    assert len(rows(NotificationAttempt)) == 1


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (Unavailable("busy"), "cancelled", "order_deleted"),
        (ChannelDown("broke"), "cancelled", "order_deleted"),
        (None, "sent", None),
        (Uncertain("cut off"), "unknown", "order_deleted"),
    ],
)
def test_an_order_deleted_while_its_message_is_sent(client, deliver, notifier, rows, later, result, status, reason):
    order = factories.order(client)

    def send(_):
        client.delete(f"/api/orders/{order['id']}", status=204)
        return result

    notifier.script.append(send)
    deliver()
    (row,) = rows(Notification)
    assert (row.status, row.reason, row.order_id, row.next_attempt_at) == (status, reason, None, None)
    later(10 * 86400)
    assert deliver() == 0
    assert len(notifier.sent) == 1


def test_an_order_deleted_under_an_attempt_that_nobody_finished(client, deliver, registry, notifier, rows, later):
    order = factories.order(client)
    (due,) = registry.outbox.due(1)
    assert registry.outbox.claim(1, only=due)
    client.delete(f"/api/orders/{order['id']}", status=204)
    assert rows(Notification)[0].status == "sending"
    later(61)
    deliver()
    (row,) = rows(Notification)
    assert (row.status, row.reason, row.attempts, row.lease_owner) == ("cancelled", "order_deleted", 1, None)
    assert notifier.sent == []
    assert [one.outcome for one in rows(NotificationAttempt)] == ["abandoned"]


# -- leases -------------------------------------------------------------------------------------------------------


def test_an_attempt_that_nobody_finished_is_made_again(client, deliver, registry, notifier, rows, later, settings):
    order = factories.order(client)
    (due,) = registry.outbox.due(1)
    # a process that dies while it sends leaves this behind
    registry.outbox.claim(1, only=due)
    shown = told(client, order)
    assert (shown["status"], shown["attempts"], shown["next_attempt_at"]) == ("sending", 1, None)
    later(settings.lease - 5)
    assert deliver() == 0
    later(6)
    assert deliver() == 1
    assert told(client, order)["status"] == "sent"
    assert told(client, order)["attempts"] == 2
    assert [(one.number, one.outcome) for one in rows(NotificationAttempt)] == [(1, "abandoned"), (2, "accepted")]
    assert len(notifier.sent) == 1


def test_a_message_that_ends_every_process_is_given_up(client, registry, notifier, rows, later, settings):
    order = factories.order(client)
    (due,) = registry.outbox.due(1)
    for _ in range(settings.max_attempts):
        assert registry.outbox.claim(1, only=due)
        later(settings.lease + 1)
    assert registry.outbox.claim(1, only=due) == []
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("unknown", "abandoned", settings.max_attempts)
    assert {one.outcome for one in rows(NotificationAttempt)} == {"abandoned"}
    later(10 * 86400)
    assert registry.outbox.due(1) == []


def test_a_late_result_does_not_overwrite_a_newer_attempt(
    client, deliver, registry, notifier, rows, later, settings, caplog
):
    order = factories.order(client)
    (due,) = registry.outbox.due(1)

    def slow(_):
        later(settings.lease + 1)
        notifier.script.append(Receipt("second"))
        assert deliver() == 1
        return Unavailable("the first says so, too late")

    notifier.script.append(slow)
    registry.outbox.deliver(due)
    shown = told(client, order)
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("sent", None, 2)
    assert rows(Notification)[0].reference == "second"
    assert [(one.outcome, one.reference) for one in rows(NotificationAttempt)] == [
        ("unavailable", None),
        ("accepted", "second"),
    ]
    assert "outlived its lease" in caplog.text
    later(10 * 86400)
    assert deliver() == 0


def test_a_late_result_does_not_overwrite_an_attempt_under_way(client, registry, rows, later, settings):
    factories.order(client)
    (due,) = registry.outbox.due(1)
    (first,) = registry.outbox.claim(1, only=due)
    later(settings.lease + 1)
    (second,) = registry.outbox.claim(1, only=due)
    registry.outbox.record([(first, registry.outbox.send(first))])
    (row,) = rows(Notification)
    assert (row.status, row.lease_owner) == ("sending", second.owner)


def test_of_several_who_deliver_one_message_one_sends(client, registry, notifier, rows):
    for _ in range(5):
        factories.order(client)
    due = registry.outbox.due(10)
    together = threading.Barrier(8)

    def deliver_all(_):
        together.wait(30)
        for notification_id in due:
            registry.outbox.deliver(notification_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(deliver_all, range(8)))
    assert len(notifier.sent) == len({message.key for message in notifier.sent}) == 5
    assert [one.outcome for one in rows(NotificationAttempt)] == ["accepted"] * 5


def test_deleting_and_delivering_at_once_leave_no_message_in_between(client, registry, rows):
    orders = [factories.order(client)["id"] for _ in range(8)]
    due = registry.outbox.due(10)
    together = threading.Barrier(2)

    def delete():
        together.wait(30)
        for order in orders:
            with registry.database.transaction() as session:
                delete_order(session, order)

    def deliver():
        together.wait(30)
        for notification_id in reversed(due):
            registry.outbox.deliver(notification_id)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(delete), pool.submit(deliver)]:
            done.result(60)
    assert {row.status for row in rows(Notification)} <= {"sent", "cancelled"}
    assert {row.order_id for row in rows(Notification)} == {None}


def test_no_transaction_is_open_while_a_provider_is_asked(client, deliver, notifier, registry):
    order = factories.order(client)

    def send(_):
        # others, such as what tells workers, are soon done with theirs
        wait_for(lambda: registry.database.engine.pool.checkedout() == 0, "no connection is in use")
        # on SQLite a transaction of the dispatcher's would shut this writer out
        client.patch_json(f"/api/orders/{order['id']}", {"item": "Coffee"}, status=200)

    notifier.script.append(send)
    deliver()
    assert told(client, order)["status"] == "sent"


def test_the_oldest_are_due_first_and_never_more_than_asked_for(client, registry, rows):
    for _ in range(5):
        factories.order(client)
    ids = [row.id for row in rows(Notification)]
    assert list(registry.outbox.due(3)) == ids[:3]
    assert list(registry.outbox.due(100)) == ids


# -- a database that is away while a result waits -----------------------------------------------------------------


@pytest.fixture
def holder(registry, monkeypatch):
    """A writer that holds what an attempt must write, and for which nobody waits long."""
    database = registry.database
    name = database.url.database
    if database.engine.name == "sqlite":
        monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT", 1)
    else:
        with database.transaction() as session:
            session.execute(text(f'ALTER DATABASE "{name}" SET lock_timeout = 1'))
    database.engine.dispose()
    with database.session() as session:

        def hold(_=None):
            session.execute(update(Notification).values(channel="sms"))

        yield SimpleNamespace(hold=hold, release=session.rollback)
    if database.engine.name == "postgresql":
        with database.transaction() as session:
            session.execute(text(f'ALTER DATABASE "{name}" RESET lock_timeout'))
    database.engine.dispose()


def test_a_result_that_cannot_be_recorded_yet_is_recorded_later(
    client, deliver, notifier, holder, later, settings, monkeypatch
):
    order = factories.order(client)
    notifier.script.append(holder.hold)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            # longer than the lease; nobody else has claimed it meanwhile
            later(settings.lease + 1)
            holder.release()

    monkeypatch.setattr(delivery, "pause", wait)
    assert deliver() == 1
    assert waits == list(delivery.RECORD_WAITS[:3])
    assert told(client, order)["status"] == "sent"
    later(10 * 86400)
    assert deliver() == 0
    assert len(notifier.sent) == 1


def test_a_result_that_can_never_be_recorded_is_in_the_log(
    client, registry, deliver, notifier, holder, monkeypatch, caplog
):
    factories.order(client)
    notifier.script.append(lambda _: holder.hold() or Receipt("ATXid_7"))
    waits = []
    monkeypatch.setattr(delivery, "pause", waits.append)
    with pytest.raises(OperationalError):
        deliver()
    assert waits == list(delivery.RECORD_WAITS)
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "ATXid_7" in error
    assert "could not be recorded" in error


def test_what_waiting_cannot_mend_is_not_waited_for(client, registry, deliver, notifier, monkeypatch, caplog):
    factories.order(client)

    def rename(old, new):
        with registry.database.transaction() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    notifier.script.append(lambda _: rename("notification_attempts", "gone") or Receipt("ATXid_8"))
    waits = []
    monkeypatch.setattr(delivery, "pause", waits.append)
    try:
        with pytest.raises(DBAPIError):
            deliver()
    finally:
        rename("gone", "notification_attempts")
    assert "could not be recorded: notification" in caplog.text
    assert "reference ATXid_8)" in caplog.text
    assert waits == []


# -- reading ------------------------------------------------------------------------------------------------------


def test_the_last_message_of_each_order_is_read_in_one_query(client, deliver, registry, session):
    def statements_of_a_page():
        seen = []
        event.listen(
            registry.database.engine,
            "before_cursor_execute",
            note := lambda _c, _cur, statement, *_: seen.append(statement),
        )
        try:
            page = client.get("/api/orders/").json
        finally:
            event.remove(registry.database.engine, "before_cursor_execute", note)
        assert all(order["notification"]["status"] for order in page)
        return len([statement for statement in seen if statement.startswith("SELECT")])

    factories.order(client)
    with_one = statements_of_a_page()
    for _ in range(4):
        factories.order(client)
    deliver()
    assert statements_of_a_page() == with_one


def test_an_order_tells_of_its_last_message(client, registry, rows):
    order = factories.order(client)
    (first,) = rows(Notification)
    with registry.database.transaction() as session:
        columns = {column.key: getattr(first, column.key) for column in Notification.__table__.columns}
        session.add(Notification(**{**columns, "id": None, "status": "delivered"}))
    assert told(client, order)["status"] == "delivered"
    assert [one["notification"]["status"] for one in client.get("/api/orders/").json] == ["delivered"]


# -- words --------------------------------------------------------------------------------------------------------

CUSTOMER = CustomerFacts(1, "Amina & <Co>", "+254700000001", None, None, False)


def rendered(template, **facts):
    order = OrderFacts(**{"id": 7, "item": "Tea", "amount": 10000, "currency": "KES", "reference": None, **facts})
    return Templates({"order_placed": template}, max_segments=6).draft("order_placed", order, CUSTOMER).text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (10000, "KES", "KES 100.00"),
        (0, "KES", "KES 0.00"),
        (5, "KES", "KES 0.05"),
        (123456789, "KES", "KES 1,234,567.89"),
        (10000, "UGX", "UGX 10,000"),
        (1234567, "KWD", "KWD 1,234.567"),
        (1, "KWD", "KWD 0.001"),
        (10**15 - 1, "KES", "KES 9,999,999,999,999.99"),
    ],
)
def test_money_is_written_for_people(amount, currency, text):
    assert amount_text(amount, currency) == text
    assert rendered("{{ order.amount_text }}", amount=amount, currency=currency) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ order.id }} {{ order.item }} {{ order.currency }}", "7 Tea KES"),
        # a text message is no HTML
        ("Dear {{ customer.username }}", "Dear Amina & <Co>"),
        # nobody is told «None»
        ("Ref {{ order.reference }}{{ customer.reference }}.", "Ref ."),
        ("{% if order.reference %}Ref {{ order.reference }}{% else %}Thanks{% endif %}", "Thanks"),
        ("{{ order.reference or order.id }}", "7"),
    ],
)
def test_a_template_is_rendered(template, text):
    assert rendered(template) == text


def test_the_template_of_the_deployment_is_sent(make_app, database_kind, client_of):
    template = "{{ customer.username }}: {{ order.item }}, {{ order.amount_text }}, no. {{ order.id }}"
    app = make_app(database_kind, **{"notifications.template.order_placed": template})
    client, registry = client_of(app), app.registry
    customer = factories.customer(client, username="Amina", language="sw")
    order = factories.order(client, item="Chai", amount=4550, customer=customer["id"])
    (due,) = registry.outbox.due(10)
    registry.outbox.deliver(due)
    (message,) = registry.plugins.notifiers["scripted"].sent
    assert message.text == f"Amina: Chai, KES 45.50, no. {order['id']}"
    # the words are of no language that the deployment names
    assert (message.channel, message.to, message.language) == ("sms", customer["phone_number"], None)


def test_a_template_that_fails_does_not_lose_the_order(make_app, database_kind, client_of, caplog):
    # good for most words, so nothing was to be seen at the start
    app = make_app(database_kind, **{"notifications.template.order_placed": "{{ 1 // (order.item|length - 4) }}"})
    client = client_of(app)
    order = factories.order(client, item="Chai")
    assert order["notification"]["status"] == "failed"
    assert order["notification"]["reason"].startswith("template_error: ")
    assert "the template order_placed failed" in caplog.text
    assert client.get(f"/api/orders/{order['id']}").json == order
    assert app.registry.outbox.due(10) == []


@pytest.mark.parametrize("template", ["{{ order.reference }}", " \n\t\N{NO-BREAK SPACE}{# nothing #}"])
def test_a_template_that_comes_to_nothing_sends_nothing(make_app, database_kind, client_of, template):
    app = make_app(database_kind, **{"notifications.template.order_placed": template})
    client = client_of(app)
    shown = factories.order(client)["notification"]
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("suppressed", "empty_text", 0)
    assert app.registry.outbox.due(10) == []
    opted_out = factories.customer(client, sms_opt_out=True)
    assert factories.order(client, customer=opted_out["id"])["notification"]["reason"] == "opted_out"


def test_a_hint_that_fails_does_not_fail_the_order(make_app, database_kind, client_of, monkeypatch, caplog):
    def broken(self, ids):
        raise ConnectionError("the broker is away")

    monkeypatch.setattr(WorkerDispatcher, "hint", broken)
    app = make_app(database_kind)
    factories.order(client_of(app))
    assert "the dispatcher could not be told" in caplog.text
    assert len(app.registry.outbox.due(10)) == 1


def test_a_hint_comes_after_the_commit_and_only_then(make_app, database_kind, client_of, monkeypatch):
    hinted = []

    def look(self, ids):
        # another connection sees what is committed, and nothing else
        with app.registry.database.session(writes=False) as session:
            hinted.extend(session.scalars(select(Notification.id).where(Notification.id.in_(ids))))

    monkeypatch.setattr(WorkerDispatcher, "hint", look)
    app = make_app(database_kind)
    client = client_of(app)
    order = factories.order(client)
    assert hinted == app.registry.outbox.due(10)

    def refuse(session, event):
        raise Conflict("Not today.")

    app.registry.database.listeners[OrderPlaced].append(refuse)
    client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": order["customer"]}, status=409)
    assert len(hinted) == 1


@pytest.mark.parametrize(
    ("step", "level"),
    [
        (None, "INFO"),
        (Unavailable("busy"), "INFO"),
        (Rejected("no such number"), "WARNING"),
        (ChannelDown("no balance"), "WARNING"),
        (Uncertain("timed out"), "WARNING"),
    ],
)
def test_an_operator_reads_in_the_log_what_became_of_each_attempt(client, deliver, notifier, caplog, step, level):
    customer = factories.customer(client, phone_number="+254700123456")
    factories.order(client, customer=customer["id"])
    notifier.script.append(step)
    with caplog.at_level("INFO", "customer_orders.notifications.recording"):
        deliver()
    (said,) = [record for record in caplog.records if record.name == "customer_orders.notifications.recording"]
    assert said.levelname == level
    assert "by scripted, attempt 1" in said.getMessage()
    assert step is None or step.reason in said.getMessage()
    assert "254700123456" not in caplog.text
    assert notifier.sent[0].text not in caplog.text

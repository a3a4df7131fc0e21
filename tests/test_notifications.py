"""Messages as a merchant asks for them: finding them, what became of each, and sending them again."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from sqlalchemy import select
from webtest import TestApp

import factories
from contract import TIMESTAMP, assert_problem, signed_in
from customer_orders import keyset
from customer_orders.customers.models import Customer
from customer_orders.interfaces import Rejected, Unavailable
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.notifications.resending import RESENDABLE
from customer_orders.orders.models import Order
from test_conditional import at_once, etag
from test_interleaved import on_postgresql
from test_lists import backward, last_of, pages

URL = "/api/notifications/"
START = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
def change(registry):
    """Changes a row behind the application's back, and tells it as it is then: ``change(Order, 1, status="x")``."""

    def write(model, an_id, **values):
        with registry.database.transaction() as session:
            row = session.get(model, an_id)
            for name, value in values.items():
                setattr(row, name, value)
            session.flush()
            session.refresh(row)
        return row

    return write


@pytest.fixture
def placed(client, change):
    """Places an order whose message has the columns that are told; its id: ``placed(status="failed")``."""

    def make(*, customer=None, **columns):
        order = factories.order(client, **({"customer": customer} if customer else {}))
        return change(Notification, order["notification"]["id"], **columns).id

    return make


@pytest.fixture
def acting(app, token_for):
    """Makes a client with a role."""

    def make(role):
        own = TestApp(app)
        own.authorization = ("Bearer", token_for(role))
        return own

    return make


def found(client, **query):
    """The ids that the list holds with a query."""
    return [item["id"] for item in client.get(f"{URL}?{urlencode(query)}", status=200).json]


def resend(client, notification_id, body=None):
    url = f"{URL}{notification_id}/resend"
    return client.post(url, status="*") if body is None else client.post_json(url, body, status="*")


def resend_all(client, **body):
    return client.post_json(f"{URL}resend", body, status=200).json


# -- reading ------------------------------------------------------------------------------------------------------


def test_a_message_tells_what_it_is_and_what_became_of_it(client, deliver):
    customer = factories.customer(client, phone_number="0713 812 939", language="sw")
    client.extra_environ["HTTP_X_REQUEST_ID"] = "till-7"
    order = factories.order(client, customer=customer["id"])
    deliver()
    client.extra_environ["HTTP_X_REQUEST_ID"] = "office-1"
    (listed,) = client.get(URL).json
    for name in ("created_at", "updated_at"):
        assert TIMESTAMP.fullmatch(listed[name])
    fixed = {name: value for name, value in listed.items() if not name.endswith("_at")}
    assert fixed == {
        "id": order["notification"]["id"],
        "order": order["id"],
        "customer": customer["id"],
        "event": "order_placed",
        "channel": "sms",
        "recipient": "+254713812939",
        "text": "Your order has been created. Thank you for shopping with us!",
        # there is no template in theirs
        "language": None,
        "encoding": "gsm-7",
        "segments": 1,
        "status": "sent",
        "reason": None,
        "attempts": 1,
        "cost": {"amount": "0.8000", "currency": "KES"},
        "notifier": "scripted",
        "reference": "scripted-1",
        "request_id": "till-7",
    }
    assert {name for name in listed if name.endswith("_at")} == {
        "created_at",
        "updated_at",
        "next_attempt_at",
        "requeued_at",
        "sent_at",
        "delivered_at",
    }
    read = client.get(f"{URL}{listed['id']}").json
    (attempt,) = read.pop("attempt_log")
    assert read == listed
    for name in ("started_at", "finished_at"):
        assert TIMESTAMP.fullmatch(attempt.pop(name))
    assert attempt == {
        "number": 1,
        "notifier": "scripted",
        "outcome": "accepted",
        "reason": None,
        "reference": "scripted-1",
    }


def test_an_order_tells_its_message_as_the_list_does(client, deliver):
    order = factories.order(client)
    for _ in range(2):
        told = client.get(f"/api/orders/{order['id']}").json["notification"]
        (listed,) = client.get(URL).json
        assert told == {name: listed[name] for name in told}
        assert client.get(f"{URL}{told['id']}").json["order"] == order["id"]
        deliver()


def test_every_attempt_is_told_in_the_order_in_which_they_were_made(client, deliver, notifier, registry):
    notification = factories.order(client)["notification"]["id"]
    notifier.script += [Unavailable("the gateway answers 503"), Rejected("InvalidPhoneNumber")]
    for _ in range(2):
        deliver()
        registry.database.clock_offset += timedelta(hours=2)
    told = client.get(f"{URL}{notification}").json
    assert (told["status"], told["reason"], told["attempts"]) == ("failed", "InvalidPhoneNumber", 2)
    assert [(one["number"], one["outcome"], one["reason"]) for one in told["attempt_log"]] == [
        (1, "unavailable", "the gateway answers 503"),
        (2, "rejected", "InvalidPhoneNumber"),
    ]


def test_a_message_that_nobody_tried_to_send_has_no_attempts(client):
    customer = factories.customer(client, sms_opt_out=True)
    notification = factories.order(client, customer=customer["id"])["notification"]
    told = client.get(f"{URL}{notification['id']}").json
    assert (told["status"], told["reason"], told["attempts"], told["attempt_log"]) == ("suppressed", "opted_out", 0, [])


def test_attempts_that_do_not_count_are_not_counted(client, placed):
    notification = placed(attempts=7, unburned=5)
    (listed,) = client.get(URL).json
    (order,) = client.get("/api/orders/").json
    assert listed["attempts"] == client.get(f"{URL}{notification}").json["attempts"] == 2
    assert order["notification"]["attempts"] == 2


def test_a_message_stays_when_its_order_and_its_customer_go(client, deliver):
    order = factories.order(client)
    deliver()
    client.delete(f"/api/orders/{order['id']}", status=204)
    client.delete(f"/api/customers/{order['customer']}", status=204)
    (listed,) = client.get(URL).json
    assert (listed["order"], listed["customer"], listed["status"]) == (None, None, "sent")


@pytest.mark.parametrize("an_id", ["0", "-1", "x", "1.0", "9223372036854775808", "4611686018427387904"])
def test_what_there_is_not_is_not_found(client, an_id):
    assert_problem(client.get(f"{URL}{an_id}", status="*"), 404, "not-found")
    assert_problem(resend(client, an_id), 404, "not-found")


def test_a_tag_changes_with_whatever_is_told(client, placed, registry, change):
    notification = placed()
    url = f"{URL}{notification}"
    seen = [etag(client.get(url))]

    def changes():
        answer = client.get(url, headers={"If-None-Match": ", ".join(seen)}, status=200)
        seen.append(etag(answer))
        assert client.get(url, headers={"If-None-Match": seen[-1]}, status=304).body == b""

    change(Notification, notification, status=Status.SENDING)
    changes()
    with registry.database.transaction() as session:
        columns = {"number": 1, "lease_owner": "x", "notifier": "scripted", "started_at": START}
        session.add(attempt := NotificationAttempt(notification_id=notification, **columns))
    changes()
    # of one that outlived its lease the second comes after another took its place
    for outcome in ("abandoned", "accepted"):
        change(NotificationAttempt, attempt.id, outcome=outcome)
        changes()
    assert len(set(seen)) == 5


# -- the list -----------------------------------------------------------------------------------------------------


def test_pages_hold_every_message_once_newest_first_and_lead_back(client, placed):
    ids = [placed() for _ in range(5)][::-1]
    for limit in (1, 2, 5):
        there = pages(client, f"{URL}?limit={limit}")
        assert there == [ids[begin : begin + limit] for begin in range(0, 5, limit)]
        if limit < 5:
            assert backward(client, last_of(client, f"{URL}?limit={limit}")) == there
    assert client.get(f"{URL}?count=true&limit=1").headers["X-Total-Count"] == "5"


def test_messages_are_found_by_what_became_of_them(client, placed):
    ids = {status: placed(status=status) for status in Status}
    for status in Status:
        assert found(client, status=status) == [ids[status]]
    assert_problem(client.get(f"{URL}?status=lost", status="*"), 400, "invalid", "status")


def test_messages_are_found_by_their_order_and_their_customer(client, placed):
    one, other = factories.customer(client)["id"], factories.customer(client)["id"]
    ids = [placed(customer=customer) for customer in (one, other, one)]
    assert found(client, customer=one) == [ids[2], ids[0]]
    assert found(client, customer=other) == [ids[1]]
    for order in client.get("/api/orders/").json:
        assert found(client, order=order["id"]) == [order["notification"]["id"]]
        assert found(client, order=order["id"], customer=2**63 - 1) == []


@pytest.mark.parametrize(
    "written", ["0713 812 939", "+254713812939", "%2B254713812939", "713812939", "00254 713-812-939"]
)
def test_messages_are_found_by_the_number_that_they_go_to(client, placed, written):
    number = placed(recipient="+254713812939")
    placed()
    assert [item["id"] for item in client.get(f"{URL}?phone={written}").json] == [number]


def test_messages_are_found_by_the_providers_own_id(client, deliver):
    ids = [factories.order(client)["notification"]["id"] for _ in range(2)]
    deliver()
    assert found(client, reference="scripted-1") == [ids[0]]
    assert found(client, reference="scripted-2") == [ids[1]]
    assert found(client, reference="scripted") == []


def test_messages_are_found_by_event_notifier_and_part_of_the_reason(client, placed):
    one = placed(event="order_placed", notifier="pigeon", reason="The loft is 100% closed")
    other = placed(event="order_fulfilled", notifier="scripted", reason="InvalidPhoneNumber")
    assert found(client, event="order_fulfilled") == [other]
    assert found(client, notifier="pigeon") == [one]
    assert found(client, reason="invalidphone") == [other]
    assert found(client, reason="100%") == [one]
    assert found(client, reason="%") == [one]
    assert found(client, event="order_placed", reason="phone") == []
    for name in ("event", "notifier", "reason"):
        answer = client.get(f"{URL}?{name}=x&count=true", status="*")
        assert name in assert_problem(answer, 400, "invalid", "count")["errors"][0]["description"]


def test_what_no_index_helps_with_is_looked_for_in_bounds(client, placed, monkeypatch):
    monkeypatch.setattr(keyset, "SCANNED", 3)
    ids = [placed(event="order_fulfilled" if number in (0, 6) else "order_placed") for number in range(7)]
    seen = pages(client, f"{URL}?event=order_fulfilled")
    assert [one for page in seen for one in page] == [ids[6], ids[0]]
    assert len(seen) == 3


def test_messages_are_found_by_when_they_were_written_and_changed(client, placed):
    ids = [
        placed(created_at=START + timedelta(minutes=number), updated_at=START + timedelta(hours=1, minutes=number))
        for number in range(3)
    ]
    assert found(client, created_at__gte="2026-01-31T08:01:00Z") == [ids[2], ids[1]]
    assert found(client, created_at__lt="2026-01-31T08:01:00Z") == [ids[0]]
    assert found(client, updated_at__gte="2026-01-31T09:02:00Z") == [ids[2]]
    assert found(client, ordering="created_at") == ids


def test_what_the_list_does_not_know_is_refused(client):
    for name in ("q", "metadata.key", "expand", "recipient", "to"):
        assert_problem(client.get(f"{URL}?{name}=x", status="*"), 400, "invalid", name)


# -- sending one again --------------------------------------------------------------------------------------------

# What a resend comes to, by what became of the message; and if its customer opted out, by the role and by force.
BY_STATUS = {
    **dict.fromkeys([Status.QUEUED, Status.SENDING], "still-trying"),
    **dict.fromkeys([Status.SENT, Status.DELIVERED], "already-sent"),
    Status.CANCELLED: "message-obsolete",
    **dict.fromkeys(RESENDABLE, "done"),
}
BY_CONSENT = {
    ("viewer", False): "forbidden",
    ("viewer", True): "forbidden",
    ("clerk", False): "forbidden",
    ("clerk", True): "forbidden",
    ("admin", False): "opted-out",
    ("admin", True): "done",
}


@pytest.mark.parametrize("status", Status)
def test_who_may_send_what_again(acting, client, placed, subtests, status):
    clients = {role: acting(role) for role in ("viewer", "clerk", "admin")}
    for role, opted_out, force in itertools.product(clients, [False, True], [False, True]):
        with subtests.test(role=role, opted_out=opted_out, force=force):
            customer = factories.customer(client)["id"]
            notification = placed(customer=customer, status=status, reason="because", attempts=3, next_attempt_at=START)
            client.patch_json(f"/api/customers/{customer}", {"sms_opt_out": opted_out})
            before = client.get(f"{URL}{notification}").json
            expected = BY_STATUS[status]
            if expected == "done" and opted_out:
                expected = BY_CONSENT[role, force]
            if role == "viewer":
                expected = "forbidden"
            answer = resend(clients[role], notification, {"force": force} if force else None)
            if expected == "done":
                assert answer.status_int == 200, answer.text
                told = answer.json
                assert (told["status"], told["reason"], told["attempts"]) == ("queued", None, 0)
                assert told["requeued_at"] == told["updated_at"] == told["next_attempt_at"]
                assert client.get(f"{URL}{notification}").json == told
            else:
                problem = assert_problem(answer, 403 if expected == "forbidden" else 409, expected)
                if expected == "opted-out":
                    assert '{"force": true}' in problem["detail"]
                assert client.get(f"{URL}{notification}").json == before


def test_what_is_sent_again_starts_anew_and_keeps_its_history(client, deliver, notifier, change):
    order = factories.order(client)
    notifier.script.append(Rejected("InvalidPhoneNumber"))
    deliver()
    an_id = order["notification"]["id"]
    notification = change(Notification, an_id, reference="earlier", sent_at=START, delivered_at=START)
    first = client.get(f"{URL}{notification.id}")
    answer = resend(client, notification.id)
    after = change(Notification, an_id)
    assert (after.status, after.attempts, after.unburned) == ("queued", 1, 1)
    assert (after.reference, after.sent_at, after.delivered_at, after.lease_owner) == (None,) * 4
    assert after.text == notification.text
    assert after.version == notification.version + 1
    assert answer.json["attempt_log"] == first.json["attempt_log"]
    assert etag(answer) == etag(client.get(f"{URL}{notification.id}")) != etag(first)
    assert deliver() == 1
    told = client.get(f"{URL}{notification.id}").json
    assert (told["status"], told["reference"]) == ("sent", "scripted-2")
    assert [(one["number"], one["outcome"]) for one in told["attempt_log"]] == [(1, "rejected"), (2, "accepted")]
    assert client.get(f"/api/orders/{order['id']}").json["notification"]["status"] == "sent"
    assert len({message.key for message in notifier.sent}) == 1


def test_it_goes_to_the_number_that_the_customer_has_by_now(client, deliver, notifier, placed):
    customer = factories.customer(client, phone_number="+254713812939")["id"]
    notifier.script.append(Rejected("InvalidPhoneNumber"))
    notification = placed(customer=customer)
    deliver()
    client.patch_json(f"/api/customers/{customer}", {"phone_number": "0713 812 940"})
    assert client.get(f"{URL}{notification}").json["recipient"] == "+254713812939"
    assert resend(client, notification).json["recipient"] == "+254713812940"
    deliver()
    assert [message.to for message in notifier.sent] == ["+254713812939", "+254713812940"]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"status": "failed", "text": "", "reason": "template_error: KeyError"}, "template_error: KeyError"),
        ({"status": "suppressed", "text": "\n ", "reason": "opted_out"}, "opted_out"),
        ({"status": "suppressed", "text": " ", "reason": "empty_text"}, "empty_text"),
        ({"status": "failed", "text": "Long", "reason": "too_long: 12 segments"}, "too_long"),
    ],
)
def test_what_has_no_text_cannot_be_sent(client, placed, columns, named):
    problem = assert_problem(resend(client, placed(**columns)), 409, "nothing-to-send")
    assert named in problem["detail"]


@pytest.mark.parametrize(
    ("event", "code"), [("order_placed", "message-obsolete"), ("order_cancelled", None), ("order_confirmed", None)]
)
@pytest.mark.parametrize("status", RESENDABLE)
def test_of_a_cancelled_order_only_that_it_is_cancelled_can_be_said(client, placed, change, status, event, code):
    notification = placed(event=event, status=status)
    if event != "order_confirmed":
        change(Order, change(Notification, notification).order_id, status="cancelled")
    answer = resend(client, notification)
    if code is None:
        assert answer.status_int == 200
    else:
        assert_problem(answer, 409, code)


@pytest.mark.parametrize("gone", ["order_id", "customer_id"])
def test_without_its_order_or_its_customer_nothing_is_sent_again(client, placed, gone):
    notification = placed(status="failed")
    row = client.get(f"{URL}{notification}").json
    other = factories.customer(client)["id"]
    # the customer can only go once the order is another's
    client.patch_json(f"/api/orders/{row['order']}", {"customer": other})
    if gone == "order_id":
        client.delete(f"/api/orders/{row['order']}", status=204)
    else:
        client.delete(f"/api/customers/{row['customer']}", status=204)
    before = client.get(f"{URL}{notification}").json
    assert before[gone.removesuffix("_id")] is None
    assert_problem(resend(client, notification), 409, "message-obsolete")
    assert client.get(f"{URL}{notification}").json == before


def test_where_no_sms_is_sent_none_is_sent_again(make_app, database_kind):
    app = make_app(database_kind, **{"notifications.sms": ""})
    client = signed_in(app, "admin")
    notification = factories.order(client)["notification"]
    assert (notification["status"], notification["reason"]) == ("suppressed", "no_notifier")
    problem = assert_problem(resend(client, notification["id"]), 409, "no-notifier")
    assert "notifications.sms" in problem["detail"]
    body = {"status": ["suppressed"]}
    for dry_run in (True, False):
        answer = client.post_json(f"{URL}resend", {**body, "dry_run": dry_run}, status="*")
        assert_problem(answer, 409, "no-notifier")
    assert client.get(f"{URL}{notification['id']}").json["status"] == "suppressed"


def test_what_a_resend_is_told_is_checked(client, placed):
    notification = placed(status="failed")
    url = f"{URL}{notification}/resend"
    for body, name in (({"force": "yes"}, "force"), ({"force": None}, "force"), ({"to": "x"}, "to")):
        assert_problem(client.post_json(url, body, status="*"), 400, "invalid", name)
    assert_problem(client.post(f"{url}?force=true", status="*"), 400, "invalid", "force")
    assert_problem(client.post(url, b"{}", content_type="text/plain", status="*"), 415, "unsupported-media-type")
    assert_problem(client.post(url, b"[]", content_type="application/json", status="*"), 400, "malformed")
    for method in ("get", "put_json", "delete"):
        assert_problem(getattr(client, method)(url, status="*"), 405, "method-not-allowed")
    assert client.get(f"{URL}{notification}").json["status"] == "failed"
    for body in (b"", b"{}"):
        placed_again = placed(status="failed")
        client.post(f"{URL}{placed_again}/resend", body, content_type="application/json", status=200)


def test_force_is_for_nothing_where_it_is_not_needed(acting, placed):
    notification = placed(status="failed")
    assert resend(acting("clerk"), notification, {"force": True}).json["status"] == "queued"


def test_a_resend_is_hinted_at_once_it_is_committed(client, placed, registry, monkeypatch):
    notification, seen = placed(status="failed"), []

    def hint(ids):
        with registry.database.session(writes=False) as session:
            seen.append([(an_id, session.get(Notification, an_id).status) for an_id in ids])

    monkeypatch.setattr(registry, "dispatcher", SimpleNamespace(hint=hint, start=lambda outbox: None))
    resend(client, notification)
    assert_problem(resend(client, notification), 409, "still-trying")
    assert seen == [[(notification, "queued")]]


def test_a_dispatcher_that_takes_no_hint_loses_nothing(client, placed, registry, monkeypatch, caplog):
    def hint(ids):
        raise OSError("the broker is away")

    notification = placed(status="failed")
    monkeypatch.setattr(registry, "dispatcher", SimpleNamespace(hint=hint, start=lambda outbox: None))
    assert resend(client, notification).status_int == 200
    assert f"the dispatcher could not be told of notification {notification}" in caplog.text
    assert registry.outbox.due(10) == [notification]


def test_a_repeat_with_the_same_key_is_one_resend(client, placed, deliver, notifier):
    notification, headers = placed(status="failed"), {"Idempotency-Key": "again"}
    url = f"{URL}{notification}/resend"
    first = client.post(url, headers=headers, status=200)
    notifier.script.append(Rejected("InvalidPhoneNumber"))
    deliver()
    again = client.post(url, headers=headers, status=200)
    assert again.body == first.body
    assert (again.headers["Idempotent-Replayed"], etag(again)) == ("true", etag(first))
    assert client.get(f"{URL}{notification}").json["status"] == "failed"


# -- consent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requeued", "opted_out", "overrides"),
    [(None, None, False), (None, 1, False), (1, None, True), (1, 2, False), (2, 1, True), (1, 1, False)],
)
def test_only_what_was_queued_again_after_an_opt_out_goes_past_it(
    client, placed, change, deliver, notifier, requeued, opted_out, overrides
):
    start = datetime.now(UTC) - timedelta(hours=3)

    def at(hours):
        return None if hours is None else start + timedelta(hours=hours)

    customer = factories.customer(client)["id"]
    queued = placed(customer=customer, requeued_at=at(requeued), created_at=at(0))
    change(Customer, customer, sms_opt_out=True, sms_opt_out_at=at(opted_out))
    change(Notification, queued, requeued_at=at(requeued))
    deliver()
    shown = client.get(f"{URL}{queued}").json
    expected = ("sent", None) if overrides else ("suppressed", "opted_out")
    assert (shown["status"], shown["reason"], len(notifier.sent)) == (*expected, int(overrides))


@on_postgresql
def test_who_opts_out_while_a_message_is_sent_again_is_obeyed(client, placed, change, between):
    notification = placed(status="failed")
    customer = change(Notification, notification).customer_id

    def opt_out():
        client.patch_json(f"/api/customers/{customer}", {"sms_opt_out": True})

    # before the customer is locked: what was read of them before does not count
    done = between(opt_out, "SELECT customers.id", "FOR SHARE")
    assert_problem(resend(client, notification), 409, "opted-out")
    assert done


@on_postgresql
def test_an_order_that_is_cancelled_while_its_message_is_sent_again_stays_silent(
    client,
    placed,
    change,
    between,
):
    notification = placed(status="failed")
    order = change(Notification, notification).order_id
    done = between(lambda: change(Order, order, status="cancelled"), "SELECT orders.id", "FOR SHARE")
    assert_problem(resend(client, notification), 409, "message-obsolete")
    assert done


# -- at the same moment -------------------------------------------------------------------------------------------


def test_of_two_who_send_it_again_at_once_one_does(app, client, placed, deliver, notifier):
    for _ in range(5):
        notification = placed(status="failed")
        notifier.sent.clear()
        answers = at_once(app, client, *[lambda own, one=notification: resend(own, one)] * 3)
        assert sorted(answer.status_int for answer in answers) == [200, 409, 409]
        for answer in answers:
            if answer.status_int == 409:
                assert_problem(answer, 409, "still-trying")
        deliver()
        assert len(notifier.sent) == 1


def test_of_two_who_send_all_again_at_once_each_sends_others(app, client, placed, session):
    ids = [placed(status="failed") for _ in range(6)]
    versions = {row.id: row.version for row in session.scalars(select(Notification))}
    session.rollback()
    answers = at_once(app, client, *[lambda own: resend_all(own, status=["failed"])] * 2)
    assert sorted(one for answer in answers for one in answer["ids"]) == ids
    session.expire_all()
    assert {row.id: row.version - 1 for row in session.scalars(select(Notification))} == versions


@on_postgresql
def test_what_another_holds_is_left_out_and_nobody_waits(client, placed, change, session):
    ids = [placed(status="failed") for _ in range(4)]
    rows = [change(Notification, one) for one in ids]
    held = select(Notification.id).where(Notification.id == ids[0])
    session.execute(held.with_for_update())
    session.execute(select(Order.id).where(Order.id == rows[1].order_id).with_for_update())
    session.execute(select(Customer.id).where(Customer.id == rows[2].customer_id).with_for_update())
    assert resend_all(client, status=["failed"], dry_run=True)["ids"] == ids
    assert resend_all(client, status=["failed"])["ids"] == ids[3:]
    session.rollback()
    assert resend_all(client, status=["failed"])["ids"] == ids[:3]


# -- sending many again -------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_sent_again_and_does_nothing(client, placed, registry):
    ids = [placed(status=status) for status in (*RESENDABLE, *(set(Status) - set(RESENDABLE)))]
    before = client.get(URL).json
    wanted = {"status": [*RESENDABLE], "dry_run": True}
    told = resend_all(client, **wanted)
    assert told == {
        "dry_run": True,
        "count": 4,
        "ids": ids[:4],
        "remaining": 0,
        "next_after": None,
        "skipped": {},
    }
    assert client.get(URL).json == before
    assert registry.outbox.due(100) == [one["id"] for one in before if one["status"] == "queued"]
    assert resend_all(client, **{**wanted, "dry_run": False}) == {**told, "dry_run": False}
    for one in ids[:4]:
        told = client.get(f"{URL}{one}").json
        assert (told["status"], told["reason"], told["requeued_at"]) == ("queued", None, told["next_attempt_at"])
    assert resend_all(client, **wanted)["count"] == 0


def test_filters_narrow_what_is_sent_again(client, placed):
    customer = factories.customer(client)["id"]
    one = {"status": "failed", "event": "order_placed", "notifier": "pigeon", "reason": "The loft is closed"}
    alike = placed(**one, customer=customer, created_at=START)
    others = {
        placed(**{**one, "status": "unknown"}, customer=customer, created_at=START),
        placed(**{**one, "event": "order_fulfilled"}, customer=customer, created_at=START),
        placed(**{**one, "notifier": "scripted"}, customer=customer, created_at=START),
        placed(**{**one, "reason": None}, customer=customer, created_at=START),
        placed(**one, created_at=START),
        placed(**one, customer=customer, created_at=START - timedelta(seconds=1)),
        placed(**one, customer=customer, created_at=START + timedelta(hours=1)),
    }
    filters = {
        "status": ["failed"],
        "event": "order_placed",
        "notifier": "pigeon",
        "reason": "LOFT",
        "customer": customer,
        "created_at__gte": "2026-01-31T08:00:00Z",
        "created_at__lt": "2026-01-31T09:00:00Z",
    }
    for name in filters:
        wider = {key: value for key, value in filters.items() if key != name or key == "status"}
        if name == "status":
            wider["status"] = ["failed", "unknown"]
        told = resend_all(client, **wider, dry_run=True)["ids"]
        assert len(told) == 2, name
        assert alike in told
        others -= set(told)
    assert others == set()
    assert resend_all(client, **filters)["ids"] == [alike]


def test_many_are_sent_again_in_several_calls(client, placed):
    ids = [placed(status="failed") for _ in range(5)]
    for dry_run in (True, False):
        body, seen, counts = {"status": ["failed"], "limit": 2, "dry_run": dry_run}, [], []
        while True:
            told = resend_all(client, **body)
            seen += told["ids"]
            counts.append((told["count"], told["remaining"]))
            if told["next_after"] is None:
                break
            body["after"] = told["next_after"]
        assert seen == ids
        assert counts == [(2, 3), (2, 1), (1, 0)]


def test_what_fails_again_meanwhile_is_not_sent_again_and_again(client, placed, deliver, notifier):
    for _ in range(4):
        placed(status="failed")
    notifier.script += [Rejected("InvalidPhoneNumber")] * 4
    body, calls = {"status": ["failed"], "limit": 2}, 0
    while body.get("after", 0) is not None:
        body["after"] = resend_all(client, **body)["next_after"]
        deliver()
        calls += 1
    assert calls == 2
    assert len(notifier.sent) == 4


def test_what_cannot_be_sent_again_is_skipped_and_counted(client, placed, change):
    good = placed(status="failed")
    opted_out = factories.customer(client)["id"]
    for _ in range(2):
        placed(status="failed", customer=opted_out)
    client.patch_json(f"/api/customers/{opted_out}", {"sms_opt_out": True})
    placed(status="failed", text="", reason="template_error: KeyError")
    cancelled = placed(status="failed")
    change(Order, change(Notification, cancelled).order_id, status="cancelled")
    gone = placed(status="failed")
    client.delete(f"/api/orders/{client.get(f'{URL}{gone}').json['order']}", status=204)
    skipped = {"opted-out": 2, "nothing-to-send": 1, "message-obsolete": 2}
    for dry_run in (True, False):
        told = resend_all(client, status=["failed"], dry_run=dry_run)
        assert (told["ids"], told["skipped"], told["remaining"]) == ([good], skipped, 0)
    assert sorted(found(client, status="failed")) == sorted({one["id"] for one in client.get(URL).json} - {good})


def test_many_go_to_the_numbers_that_their_customers_have_by_now(client, placed, deliver, notifier):
    customers = [factories.customer(client)["id"] for _ in range(2)]
    for customer in customers:
        placed(customer=customer, status="failed")
    for number, customer in enumerate(customers):
        client.patch_json(f"/api/customers/{customer}", {"phone_number": f"+25471381294{number}"})
    resend_all(client, status=["failed"])
    deliver()
    assert sorted(message.to for message in notifier.sent) == ["+254713812940", "+254713812941"]


def test_many_are_hinted_at_together(client, placed, registry, monkeypatch):
    ids, seen = [placed(status="failed") for _ in range(3)], []
    monkeypatch.setattr(registry, "dispatcher", SimpleNamespace(hint=seen.append, start=lambda outbox: None))
    for body in ({"dry_run": True}, {}, {}):
        resend_all(client, status=["failed"], **body)
    assert seen == [ids]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "status"),
        ({"status": []}, "status"),
        ({"status": "failed"}, "status"),
        ({"status": ["failed", "failed"]}, "status"),
        ({"status": ["sent"]}, "status"),
        ({"status": ["queued", "failed"]}, "status"),
        ({"status": [["failed"]]}, "status"),
        ({"status": [{}]}, "status"),
        ({"status": [None]}, "status"),
        ({"status": ["failed"], "limit": 0}, "limit"),
        ({"status": ["failed"], "limit": 1001}, "limit"),
        ({"status": ["failed"], "after": -1}, "after"),
        ({"status": ["failed"], "dry_run": "true"}, "dry_run"),
        ({"status": ["failed"], "created_at__gte": "yesterday"}, "created_at__gte"),
        ({"status": ["failed"], "force": True}, "force"),
    ],
)
def test_what_many_are_told_is_checked(client, placed, body, name):
    placed(status="failed")
    assert_problem(client.post_json(f"{URL}resend", body, status="*"), 400, "invalid", name)
    assert client.get(URL).json[0]["status"] == "failed"


@pytest.mark.parametrize("role", ["viewer", "clerk"])
def test_many_at_once_are_for_an_admin(acting, placed, role):
    placed(status="failed")
    for dry_run in (True, False):
        body = {"status": ["failed"], "dry_run": dry_run}
        assert_problem(acting(role).post_json(f"{URL}resend", body, status="*"), 403, "forbidden")


def test_the_fixed_word_is_no_id(client):
    for method in ("get", "delete"):
        assert_problem(getattr(client, method)(f"{URL}resend", status="*"), 405, "method-not-allowed")
    assert_problem(client.post_json(f"{URL}resend", {}, status="*"), 400, "invalid", "status")
    assert_problem(client.post_json(f"{URL}resend/", {}, status="*"), 400, "invalid", "status")


def test_the_examples_of_the_document_are_like_what_there_is(client, placed):
    document = client.get("/api/api.json").json
    examples = {name: schema["example"] for name, schema in document["definitions"].items() if "example" in schema}
    notification = placed(status="failed")
    (listed,) = client.get(URL).json
    assert examples["NotificationRead"].keys() == listed.keys()
    sent = {}
    for path in ("resend", "{id}/resend"):
        (body,) = [
            one for one in document["paths"][f"/notifications/{path}"]["post"]["parameters"] if one["in"] == "body"
        ]
        assert body["required"] == (path == "resend")
        url = f"{URL}{path}".replace("{id}", str(notification))
        sent[path] = client.post_json(url, body["schema"]["example"], status=200).json
    assert examples["ResentRead"].keys() == sent["resend"].keys()
    assert examples["NotificationWithAttempts"].keys() == sent["{id}/resend"].keys()

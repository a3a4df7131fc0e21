"""What Africa's Talking posts to us, and what becomes of the message and the customer it is about."""

from __future__ import annotations

import logging
import secrets
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_orders.interfaces import OptOut, Report
from customer_orders_africastalking.callbacks import FORM, STATUSES, read
from loopback import reset

TYPE = {"Content-Type": FORM}


def form(**fields):
    """A delivery report as it comes, but for what is told; None leaves a field out."""
    sent = {"id": "ATXid_1", "status": "Success", "phoneNumber": "+254700000001", "networkCode": "63902"}
    return urlencode({name: told for name, told in {**sent, "retryCount": "0", **fields}.items() if told is not None})


def said(body, headers=TYPE):
    (told,) = read(headers, body.encode())
    return told


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Sent", "sent"),
        ("Submitted", "sent"),
        ("Buffered", "sent"),
        ("Success", "delivered"),
        ("Failed", "failed"),
        ("Rejected", "failed"),
        ("AbsentSubscriber", "failed"),
        ("Expired", "failed"),
        ("success", "delivered"),
    ],
)
def test_each_status_has_one_meaning(status, expected):
    told = said(form(status=status))
    assert (told.reference, told.status, told.to) == ("ATXid_1", expected, "+254700000001")
    # what is not named as a reason is one all the same
    assert told.reason == (status if expected == "failed" else None)


def test_the_statuses_are_all():
    assert set(STATUSES) == {
        *("sent", "submitted", "buffered", "success", "failed", "rejected", "absentsubscriber", "expired")
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("UserInBlackList", "UserInBlackList"),
        ("Not Network Subscriber", "Not Network Subscriber"),
        ("", "Failed"),
        ("+254700000001 is off", "Failed"),
        ("two\nlines", "Failed"),
        ("x" * 101, "Failed"),
    ],
)
def test_a_failure_has_the_reason_that_is_named(reason, expected):
    assert said(form(status="Failed", failureReason=reason)).reason == expected
    assert said(form(status="Success", failureReason=reason)).reason is None


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("+254700000001", "+254700000001"),
        ("254700000001", "+254700000001"),
        # a plus that was not escaped
        (" 254700000001", "+254700000001"),
        ("+2547XXXXX001", None),
        ("0700000001", None),
        ("", None),
        (None, None),
        ("+254700000001\n", None),
        ("+\u0662\u0665\u0664700000001", None),
    ],
)
def test_a_number_helps_if_it_is_whole(number, expected):
    assert said(form(phoneNumber=number)).to == expected
    stop = urlencode({"senderId": "Duka", **({} if number is None else {"phoneNumber": number})})
    if expected:
        assert said(stop) == OptOut(expected)
    else:
        with pytest.raises(ValueError, match="an opt-out names"):
            said(stop)


@pytest.mark.parametrize("sender", ["Duka", "20880", "", "Another Sender"])
def test_a_stop_to_any_sender_counts(sender):
    assert said(f"senderId={sender}&phoneNumber=%2B254700000001".replace(" ", "+")) == OptOut("+254700000001")


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=UTF-8", FORM.upper(), f" {FORM} ;x"])
def test_a_form_may_say_how_it_is_written(content_type):
    assert said(form(), {"Content-Type": content_type}).status == "delivered"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        form(id=None),
        form(id=""),
        form(id="None"),
        form(id="x" * 256),
        form(id="two\nlines"),
        form(status=None),
        form(status=""),
        form(status="Delivered"),
        form() + "&status=Failed",
        form() + "&id=ATXid_2",
        form(status=None, id=None),
        "phoneNumber=%2B254700000001",
        # an SMS that came in, which is posted to another URL
        "linkId=1&text=STOP&to=20880&id=5&date=2026-01-31&from=%2B254700000001",
        "id=%ff&status=Success",
    ],
)
def test_anything_else_is_nothing_that_it_understands(body):
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        read(TYPE, body.encode())


@given(st.binary() | st.text().map(str.encode) | st.dictionaries(st.sampled_from(["id", "status"]), st.text()))
def test_any_bytes_are_reports_or_a_value_error(body):
    given_body = urlencode(body).encode() if isinstance(body, dict) else body
    try:
        told = read(TYPE, given_body)
    except ValueError:
        return
    assert all(isinstance(one, Report | OptOut) for one in told)


# -- through the application --------------------------------------------------------------------------------------


@pytest.fixture
def secret():
    return secrets.token_urlsafe(32)


@pytest.fixture
def app(make_app, secret):
    return make_app(**{"notifications.report_secrets": secret})


@pytest.fixture
def client(app, client_of):
    return client_of(app)


@pytest.fixture
def order(client, message):
    customer = client.post_json("/api/customers/", {"username": "Amina", "phone_number": message.to}, status=201).json
    return client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer["id"]}, status=201).json


@pytest.fixture
def deliver(app):
    def drain():
        for notification_id in app.registry.outbox.due(100):
            app.registry.outbox.deliver(notification_id)

    return drain


@pytest.fixture
def call_back(client, secret):
    def post(body, status=200):
        return client.post(f"/api/notifications/reports/africastalking/{secret}", body, dict(TYPE), status=status)

    return post


def status(client, order):
    told = client.get(f"/api/orders/{order['id']}").json["notification"]
    return told["status"], told["reason"]


def test_a_message_is_delivered_once_it_is_reported(client, order, deliver, recipients, recipient, message, call_back):
    recipients(recipient(messageId="ATXid_7"))
    deliver()
    assert status(client, order) == ("sent", None)
    for told, expected in (("Submitted", "sent"), ("Success", "delivered"), ("Buffered", "delivered")):
        call_back(form(id="ATXid_7", phoneNumber=message.to, status=told))
        assert status(client, order) == (expected, None)


def test_a_message_whose_answer_was_lost_is_known_by_its_number(client, order, deliver, answers, message, call_back):
    answers(reset)
    deliver()
    assert status(client, order)[0] == "unknown"
    call_back(form(id="ATXid_8", phoneNumber=message.to, status="Sent"))
    assert status(client, order) == ("sent", None)
    call_back(form(id="ATXid_8", phoneNumber=None, status="Failed", failureReason="UserDoesNotExist"))
    assert status(client, order) == ("failed", "UserDoesNotExist")


def test_a_stop_ends_the_messages_to_that_number(client, order, message, call_back, caplog):
    caplog.set_level(logging.INFO)
    call_back(urlencode({"senderId": "Duka", "phoneNumber": message.to}))
    assert client.get(f"/api/customers/{order['customer']}").json["sms_opt_out"] is True
    assert message.to not in caplog.text
    assert message.to[1:] not in caplog.text


def test_what_it_does_not_understand_is_refused(call_back, secret, caplog):
    caplog.set_level(logging.INFO)
    assert call_back(form(status="Lost", id="canary"), status=400).json["code"] == "malformed"
    assert "africastalking cannot read a call-back of " in caplog.text
    assert "canary" not in caplog.text
    assert secret not in caplog.text


def test_a_message_takes_a_third_of_the_lease_at_most(app):
    notifier = app.registry.plugins.notifiers["africastalking"]
    assert notifier.timeout == 20
    assert 3 * notifier.timeout <= app.registry.sections["notifications"].lease
    connect, read_all = notifier._gateway._sessions.session.get_adapter("https://x").timeout
    assert notifier.timeout == 3 * connect + read_all

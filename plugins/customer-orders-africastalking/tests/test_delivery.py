"""An order's message on its whole way: the real application, and Africa's Talking on loopback."""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta

import pytest

from loopback import hang, reset


@pytest.fixture
def text():
    """Words that no other test has."""
    return f"Asante, {secrets.token_hex(8)}"


@pytest.fixture
def app(make_app, text):
    return make_app(**{"notifications.template.order_placed": text, "africastalking.read_timeout": "1"})


@pytest.fixture
def client(app, client_of):
    return client_of(app)


@pytest.fixture
def place(client, message):
    """Places an order of the person with the message's number; tells its id."""
    customer = client.post_json("/api/customers/", {"username": "Amina", "phone_number": message.to}, status=201).json

    def order():
        asked = {"item": "Tea", "amount": 1, "customer": customer["id"]}
        return client.post_json("/api/orders/", asked, status=201).json["id"]

    return order


@pytest.fixture
def deliver(app):
    """Delivers all that is due; tells how many."""

    def drain():
        due = app.registry.outbox.due(100)
        for notification_id in due:
            app.registry.outbox.deliver(notification_id)
        return len(due)

    return drain


@pytest.fixture
def told(client):
    """What the order tells of its message."""
    return lambda order: client.get(f"/api/orders/{order}").json["notification"]


@pytest.fixture
def later(app, deliver):
    """How many are delivered a day from now."""

    def a_day():
        app.registry.database.clock_offset += timedelta(days=1)
        return deliver()

    return a_day


def test_a_message_that_was_taken_is_sent_and_has_a_price(server, recipients, recipient, place, deliver, told, later):
    recipients(recipient(cost="KES 0.8000"))
    order = place()
    assert deliver() == 1
    shown = told(order)
    assert (shown["status"], shown["notifier"], shown["attempts"], shown["reason"]) == (
        "sent",
        "africastalking",
        1,
        None,
    )
    assert shown["cost"] == {"amount": "0.8000", "currency": "KES"}
    assert later() == 0
    assert len(server.asked) == 1


def test_what_was_sent_is_what_the_order_says(server, place, deliver, message, text):
    place()
    deliver()
    assert server.asked[0].form == {"username": "shop", "to": message.to, "message": text, "bulkSMSMode": "1"}


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [(403, "failed", "403 InvalidPhoneNumber"), (406, "suppressed", "406 UserInBlacklist")],
)
def test_a_refusal_is_final(server, recipients, recipient, place, deliver, told, later, code, status, reason):
    recipients(recipient(statusCode=code, messageId="None", cost="0"))
    order = place()
    deliver()
    shown = told(order)
    assert (shown["status"], shown["reason"], shown["cost"]) == (status, reason, None)
    assert later() == 0
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [201, 401, 404])
def test_while_the_channel_is_down_messages_wait(
    app, server, answers, recipients, recipient, place, deliver, told, later, status
):
    answers({"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": []}}, status)
    order = place()
    deliver()
    # more often than a message is tried
    for _ in range(12):
        app.registry.database.clock_offset += timedelta(hours=1)
        deliver()
    shown = told(order)
    assert (shown["status"], shown["attempts"]) == ("queued", 0)
    assert shown["reason"].startswith("402 InvalidSenderId" if status == 201 else f"HTTP {status}: ")
    recipients(recipient())
    assert later() == 1
    assert told(order)["status"] == "sent"


@pytest.mark.parametrize("answer", [reset, hang, b"<html>", b"{}"], ids=["reset", "hang", "<html>", "{}"])
def test_what_may_have_been_sent_is_never_sent_again(server, answers, place, deliver, told, later, answer):
    answers(answer)
    order = place()
    deliver()
    assert told(order)["status"] == "unknown"
    assert later() == 0
    assert later() == 0
    assert len(server.asked) == 1


def test_what_could_not_be_routed_is_tried_twice(server, recipients, recipient, place, deliver, told, later):
    recipients(recipient(statusCode=407))
    order = place()
    deliver()
    assert told(order)["status"] == "queued"
    assert later() == 1
    assert (told(order)["status"], told(order)["reason"]) == ("failed", "407 CouldNotRoute")
    assert later() == 0
    assert len(server.asked) == 2


def everything(record):
    """All that any handler could write of a record."""
    written = [record.getMessage(), repr(record.args), repr(record.msg), record.exc_text or "", record.stack_info or ""]
    if record.exc_info:
        written.append(logging.Formatter().formatException(record.exc_info))
    return "\n".join(written)


def test_no_log_tells_a_secret_or_what_belongs_to_a_person(
    app, client, server, answers, recipient, place, deliver, told, message, api_key, text, caplog
):
    caplog.set_level(logging.DEBUG)
    echo = f"{api_key} {message.to} {message.to[1:]} 0{message.to[4:]} {text}"

    def sms(*recipients, message=echo):
        return {"SMSMessageData": {"Message": message, "Recipients": list(recipients)}}

    reasons = []
    for answer, status in [
        (sms(recipient(status=echo)), 201),
        (sms(recipient(statusCode=403, status=echo)), 201),
        (sms(recipient(statusCode=444, status=echo)), 201),
        (sms(recipient(statusCode=555, status=echo)), 201),
        (sms(recipient(messageId=f"{echo}\n")), 201),
        (sms(recipient(statusCode=407, status=echo)), 201),
        (sms(), 201),
        (sms(message=f"InvalidSenderId {echo}"), 201),
        (echo.encode(), 201),
        (echo.encode(), 302),
        (echo.encode(), 400),
        (echo.encode(), 401),
        (echo.encode(), 500),
        (echo.encode(), 503),
        (echo.encode() * 1000, 201),
        (hang, None),
        (reset, None),
    ]:
        answers(answer, status, Location=f"https://{api_key}.example/{message.to}?{text}", X_Echo=echo)
        order = place()
        # whatever pause there was is over
        app.registry.database.clock_offset += timedelta(minutes=10)
        assert deliver() == 1
        reasons.append(told(order)["reason"])
        # it is not to be tried again in the place of the next
        client.delete(f"/api/orders/{order}", status=204)
    assert reasons[0] is None
    assert all(reasons[1:])

    records = [record for record in caplog.records if not record.name.startswith("sqlalchemy")]
    assert {record.name for record in records} >= {
        "urllib3.connectionpool",
        "customer_orders.notifications.recording",
        "customer_orders_africastalking.answers",
    }
    for ours in (api_key, message.to, message.to[1:], message.to[4:], text):
        assert not [reason for reason in reasons if reason and ours in reason]
        assert not [everything(record) for record in records if ours in everything(record)]

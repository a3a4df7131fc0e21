"""Reports on their whole way: from the simulator over HTTP into the application, and what the order tells then."""

from __future__ import annotations

import json
import queue
import secrets
import threading

import pytest
from webtest import TestApp

from customer_orders_devtools.outcomes import OUTCOMES
from customer_orders_devtools.reporter import Reporter
from loopback import Answer, provider

SECRET = secrets.token_urlsafe(32)
PATH = f"/api/notifications/reports/devtools/{SECRET}"
OUTCOME = {outcome.name: outcome for outcome in OUTCOMES}


@pytest.fixture
def server():
    """Passes what is posted on to ``app``, once ``released``; ``answered`` has the status of each answer."""
    with provider() as server:
        server.answered, server.open = queue.Queue(), threading.Event()

        def answer(asked):
            server.open.wait(30)
            client = TestApp(server.app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})
            told = client.post(asked.path, asked.body, {"Content-Type": asked.headers["Content-Type"]}, status="*")
            server.answered.put(told.status_int)
            return Answer(told.body, status=told.status_int)

        server.answer = answer
        yield server


@pytest.fixture
def client(make_app, server):
    """A browser, signed in to an application whose simulator reports without waiting."""
    server.app = make_app(**{"notifications.report_secrets": SECRET, "devtools.report_url": server.url + PATH})
    server.app.registry.plugins.notifiers["devtools"].reporter = Reporter(server.url + PATH, pace=0)
    client = TestApp(server.app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
    form = client.get("/login/").click("Sign in with any e-mail").follow().form
    tokens = form.submit().follow(headers={"Accept": "application/json"}).json["tokens"]
    client.authorization = ("Bearer", tokens["access"])
    return client


def place(client, customer):
    body = {"item": "Tea", "amount": 1, "customer": customer["id"]}
    return client.post_json("/api/orders/", body, status=201).json


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("accepted", "sent", "delivered"),
        ("reply-lost", "unknown", "delivered"),
        ("delivered", "sent", "delivered"),
        ("undelivered", "sent", "failed"),
        ("expired", "sent", "expired"),
        ("unreported", "sent", "sent"),
        ("late", "sent", "delivered"),
        ("duplicate", "sent", "delivered"),
        ("reordered", "sent", "delivered"),
        ("contradicted", "sent", "delivered"),
        ("early", "delivered", "delivered"),
        ("stop", "sent", "delivered"),
    ],
)
def test_the_order_tells_what_was_reported(client, server, name, before, after):
    number = OUTCOME[name].number or "+254700000001"
    body = {"username": name, "phone_number": number}
    customer = client.post_json("/api/customers/", body, status=201).json
    order = place(client, customer)
    if name == "early":
        server.open.set()
    outbox = server.app.registry.outbox
    (due,) = outbox.due(10)
    outbox.deliver(due)
    assert client.get(f"/api/orders/{order['id']}").json["notification"]["status"] == before
    server.open.set()
    assert {server.answered.get(timeout=30) for _ in OUTCOME[name].callbacks} <= {200}
    told = client.get(f"/api/orders/{order['id']}").json["notification"]
    assert told["status"] == after
    assert (told["reason"] == "simulated: the phone is off") == (after == "failed")
    customer = client.get(f"/api/customers/{customer['id']}").json
    assert customer["sms_opt_out_source"] == ("recipient" if name == "stop" else None)
    again = place(client, customer)["notification"]["status"]
    assert again == ("suppressed" if name == "stop" else "queued")


def test_another_secret_changes_nothing(client, server, caplog):
    registry = server.app.registry
    registry.plugins.notifiers["devtools"].reporter = Reporter(server.url + PATH[:-1], pace=0)
    server.open.set()
    customer = client.post_json("/api/customers/", {"username": "A", "phone_number": "0700000001"}, status=201).json
    order = place(client, customer)
    (due,) = registry.outbox.due(10)
    registry.outbox.deliver(due)
    # once, and again
    assert [server.answered.get(timeout=30) for _ in range(4)] == [404] * 4
    assert client.get(f"/api/orders/{order['id']}").json["notification"]["status"] == "sent"
    assert "is devtools.report_url right?" in caplog.text
    assert SECRET[:-1] not in caplog.text
    assert all(json.loads(asked.body)["status"] == "delivered" for asked in server.asked)

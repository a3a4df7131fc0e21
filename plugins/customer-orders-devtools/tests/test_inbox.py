"""The simulated phones, and what they show."""

from __future__ import annotations

import json
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from webtest import TestApp

from customer_orders.interfaces import Message
from customer_orders_devtools import simulator
from customer_orders_devtools.simulator import Simulator


def message(number, to="+254700000001", text="Thank you!"):
    return Message(key=f"notification-{number}", channel="sms", to=to, text=text)


def send_many(path, sender):
    """Send 25 messages by each of four threads; run in a process of its own."""
    phone = Simulator(path)
    with ThreadPoolExecutor(4) as pool:
        for thread in range(4):
            for number in range(25):
                pool.submit(phone.send, message(f"{sender}-{thread}-{number}", text="long " * 100))


def test_an_inbox_without_messages_says_what_to_do(browser, inbox):
    assert not inbox.exists()
    assert "No messages yet" in browser.get("/devtools/inbox").text


def test_messages_are_shown_by_phone_newest_first(app, browser):
    phone = app.registry.plugins.notifiers["devtools"]
    for number, to in enumerate(["+254700000001", "+254700000002", "+254700000001"]):
        phone.send(message(number, to=to, text=f"text {number}"))
    page = browser.get("/devtools/inbox")
    assert re.findall(r"<h2>(\S+)</h2>|(text \d)", page.text) == [
        ("+254700000001", ""),
        ("", "text 2"),
        ("", "text 0"),
        ("+254700000002", ""),
        ("", "text 1"),
    ]
    assert page.headers["Cache-Control"] == "no-store"


def test_the_page_loads_what_it_names(browser):
    page = browser.get("/devtools/inbox")
    for address in re.findall(r'<link[^>]* href="([^"]+)"', page.text):
        assert browser.get(address, status=200).body


def test_markup_in_a_message_is_text(app, browser):
    app.registry.plugins.notifiers["devtools"].send(message(1, text="<script>alert(1)</script> & more"))
    page = browser.get("/devtools/inbox").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("torn", [b'{"key": "notif', b"\xff\xfe\n", b"\n\n", b"5\n", b"{}\n"])
def test_a_line_that_is_no_message_is_skipped(app, browser, inbox, torn):
    phone = app.registry.plugins.notifiers["devtools"]
    phone.send(message(1, text="the first"))
    with inbox.open("ab") as file:
        file.write(torn)
    assert "the first" in browser.get("/devtools/inbox").text


def test_the_newest_messages_are_shown(inbox, monkeypatch):
    monkeypatch.setattr(simulator, "SHOWN", 3)
    phone = Simulator(str(inbox))
    for number in range(5):
        phone.send(message(number))
    assert [shown["key"] for shown in phone.inbox()] == ["notification-4", "notification-3", "notification-2"]


def test_processes_and_threads_share_one_inbox(inbox):
    spawn = multiprocessing.get_context("spawn")
    senders = [spawn.Process(target=send_many, args=(str(inbox), sender)) for sender in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
        assert sender.exitcode == 0
    keys = [json.loads(line)["key"] for line in inbox.read_text().splitlines() if line]
    assert len(keys) == len(set(keys)) == 3 * 4 * 25


def test_only_its_owner_reads_the_inbox(inbox):
    Simulator(str(inbox)).send(message(1))
    assert inbox.stat().st_mode & 0o077 == 0


def test_a_message_waits_for_an_inbox_that_cannot_be_written(make_app, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.touch()
    app = make_app(**{"devtools.inbox": str(blocked / "inbox.jsonl")})
    registry = app.registry
    client = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
    form = client.get("/login/").click("Sign in with any e-mail").follow().form
    tokens = form.submit().follow(headers={"Accept": "application/json"}).json["tokens"]
    client.authorization = ("Bearer", tokens["access"])
    customer = client.post_json("/api/customers/", {"username": "Amina", "phone_number": "0700000001"}).json
    order = client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer["id"]}, status=201).json
    (due,) = registry.outbox.due(10)
    registry.outbox.deliver(due)
    told = client.get(f"/api/orders/{order['id']}").json["notification"]
    assert (told["status"], told["attempts"]) == ("queued", 1)
    assert told["reason"].startswith("the inbox cannot be written: ")

    blocked.unlink()
    # past any backoff
    registry.database.clock_offset = timedelta(days=1)
    (due,) = registry.outbox.due(10)
    registry.outbox.deliver(due)
    assert client.get(f"/api/orders/{order['id']}").json["notification"]["status"] == "sent"
    assert "Your order has been created." in client.get("/devtools/inbox").text

"""Placing an order as a rehearsal: the very same is done, and nothing is kept."""

from __future__ import annotations

import pytest
from sqlalchemy import func, inspect, select

import factories
from contract import TIMESTAMP, assert_problem
from customer_orders.notifications.dispatch import WorkerDispatcher
from customer_orders.tables import Base

URL = "/api/orders/?dry_run=true"


@pytest.fixture
def contents(registry):
    """How many rows each table has."""

    def count():
        with registry.database.session(writes=False) as session:
            tables = inspect(session.connection()).get_table_names()
            return {
                table.name: session.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
                if table.name in tables
            }

    return count


def order_for(client, customer=None, **fields):
    return {"item": "Tea", "amount": 10000, "customer": customer or factories.customer(client)["id"], **fields}


def test_it_tells_what_would_come_of_it_and_keeps_nothing(client, contents, deliver, notifier):
    body = order_for(client, reference="A-1", metadata={"a": "1"}, currency="USD")
    before = contents()
    answer = client.post_json(URL, body, status=200)
    assert contents() == before
    assert "Location" not in answer.headers
    assert "ETag" not in answer.headers
    told = answer.json
    assert {name: told[name] for name in body} == body
    assert (told["id"], told["status"]) == (None, "placed")
    message = told["notification"]
    assert TIMESTAMP.fullmatch(message.pop("next_attempt_at"))
    assert TIMESTAMP.fullmatch(message.pop("updated_at"))
    assert message == {
        "id": None,
        "status": "queued",
        "reason": None,
        "attempts": 0,
        "cost": None,
        "notifier": None,
        "text": "Your order has been created. Thank you for shopping with us!",
        "language": None,
        "encoding": "gsm-7",
        "segments": 1,
    }
    assert deliver() == 0
    assert notifier.sent == []
    # nothing of it is in the way of the real one
    placed = client.post_json("/api/orders/", body, status=201).json
    shared = set(placed) - {"id", "notification", "created_at", "updated_at"}
    assert {name: placed[name] for name in shared} == {name: told[name] for name in shared}
    assert {name: placed["notification"][name] for name in ("status", "reason", "attempts", "cost", "notifier")} == {
        name: message[name] for name in ("status", "reason", "attempts", "cost", "notifier")
    }


def test_it_says_why_nothing_would_be_sent(client, contents):
    customer = factories.customer(client, sms_opt_out=True)["id"]
    before = contents()
    message = client.post_json(URL, order_for(client, customer), status=200).json["notification"]
    assert (message["status"], message["reason"], message["next_attempt_at"]) == ("suppressed", "opted_out", None)
    assert message["text"]
    assert contents() == before


def test_the_words_are_those_that_would_be_sent(make_app, database_kind, client_of):
    templates = {"order_placed": "", "order_placed.sw": "Asante {{ customer.username }}: {{ order.item }}"}
    settings = {f"notifications.template.{name}": text for name, text in templates.items()}
    app = make_app(database_kind, **settings, **{"notifications.max_segments": "1"})
    client = client_of(app)
    asha = factories.customer(client, username="Asha", language="sw-KE")["id"]
    for item, expected in (
        ("chai", ("queued", None, "Asante Asha: chai", "sw", "gsm-7", 1)),
        ("☕", ("queued", None, "Asante Asha: ☕", "sw", "ucs-2", 1)),
        ("☕" * 60, ("failed", "too_long: 2 segments, 1 is the most", "Asante Asha: " + "☕" * 60, "sw", "ucs-2", 2)),
    ):
        told = client.post_json(URL, order_for(client, asha, item=item), status=200).json["notification"]
        names = ("status", "reason", "text", "language", "encoding", "segments")
        assert tuple(told[name] for name in names) == expected
    told = client.post_json(URL, order_for(client), status=200).json["notification"]
    assert (told["reason"], told["text"], told["encoding"], told["segments"]) == ("no_template", "", None, None)


def test_the_dispatcher_hears_of_no_rehearsal(make_app, database_kind, client_of, monkeypatch):
    hinted = []
    monkeypatch.setattr(WorkerDispatcher, "hint", lambda self, ids: hinted.extend(ids))
    client = client_of(make_app(database_kind))
    body = order_for(client)
    client.post_json(URL, body, status=200)
    assert hinted == []
    client.post_json("/api/orders/", body, status=201)
    assert len(hinted) == 1


def test_a_rehearsal_keeps_no_idempotency_key(client, contents):
    body, key = order_for(client), {"Idempotency-Key": "k-1"}
    before = contents()
    for _ in range(2):
        answer = client.post_json(URL, body, headers=key, status=200)
        assert "Idempotent-Replayed" not in answer.headers
    assert contents() == before
    placed = client.post_json("/api/orders/", body, headers=key, status=201)
    # a key that was used for an order is that order's
    assert_problem(client.post_json(URL, body, headers=key, status="*"), 422, "idempotency-key-reused")
    again = client.post_json("/api/orders/", body, headers=key, status=201)
    assert (again.json, again.headers["Idempotent-Replayed"]) == (placed.json, "true")


def test_a_rehearsal_fails_as_the_real_one_would(client):
    first = factories.order(client, reference="A-1")
    assert_problem(client.post_json(URL, {"item": "Tea"}, status="*"), 400, "invalid", "amount", "customer")
    assert_problem(client.post_json(URL, order_for(client, 2**62), status="*"), 400, "invalid", "customer")
    taken = client.post_json(URL, order_for(client, reference="A-1"), status="*")
    assert assert_problem(taken, 409, "reference-taken")["existing"] == first["id"]


@pytest.mark.parametrize("query", ["dry_run=false", ""])
def test_without_it_the_order_is_placed(client, query):
    placed = client.post_json(f"/api/orders/?{query}", order_for(client), status=201).json
    assert client.get(f"/api/orders/{placed['id']}").json == placed


@pytest.mark.parametrize("query", ["dry_run=1", "dry_run=", "dry_run=True", "dry_run=true&dry_run=false"])
def test_what_is_neither_true_nor_false_places_nothing(client, contents, query):
    body = order_for(client)
    before = contents()
    assert_problem(client.post_json(f"/api/orders/?{query}", body, status="*"), 400, "invalid", "dry_run")
    assert contents() == before


def test_only_what_says_so_can_be_rehearsed(client):
    body = {"username": "Asha", "phone_number": "0713 812 939"}
    assert_problem(client.post_json("/api/customers/?dry_run=true", body, status="*"), 400, "invalid", "dry_run")
    order = factories.order(client)
    refused = client.patch_json(f"/api/orders/{order['id']}?dry_run=true", {"item": "Rice"}, status="*")
    assert_problem(refused, 400, "invalid", "dry_run")


def test_the_document_tells_of_both_answers(anonymous):
    operation = anonymous.get("/api/api.json").json["paths"]["/orders/"]["post"]
    assert operation["responses"]["200"]["schema"] == {"$ref": "#/definitions/OrderRehearsed"}
    assert operation["responses"]["201"]["schema"] == {"$ref": "#/definitions/OrderRead"}
    (asked,) = [parameter for parameter in operation["parameters"] if parameter["name"] == "dry_run"]
    assert (asked["in"], asked["type"], asked["required"]) == ("query", "boolean", False)

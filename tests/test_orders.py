"""Orders over HTTP."""

from __future__ import annotations

import json
import threading

import pytest
from webtest import TestApp

import factories
from contract import TIMESTAMP, assert_problem, signed_in


def write(client, method, placed, **fields):
    """POST an order like ``placed``, or PUT or PATCH that one, with ``fields``."""
    required = {name: placed[name] for name in ("item", "amount", "customer")}
    body = fields if method == "PATCH" else {**required, **fields}
    url = "/api/orders/" if method == "POST" else f"/api/orders/{placed['id']}"
    encoded = json.dumps(body).encode()
    return client.request(url, method=method, body=encoded, content_type="application/json", status="*")


def test_an_order_is_placed_and_the_customer_told(client, deliver, notifier):
    customer = factories.customer(client, phone_number="0713 812 939")
    placed = client.post_json("/api/orders/", {"item": "Tea", "amount": 10000, "customer": customer["id"]}, status=201)
    assert placed.json["notification"]["status"] == "queued"
    assert placed.headers["Location"] == f"http://127.0.0.1:6543/api/orders/{placed.json['id']}"
    assert deliver() == 1
    told = client.get(f"/api/orders/{placed.json['id']}").json["notification"]
    assert told["status"] == "sent"
    assert told["cost"] == {"amount": "0.8000", "currency": "KES"}
    assert [message.to for message in notifier.sent] == ["+254713812939"]
    assert notifier.sent[0].text == "Your order has been created. Thank you for shopping with us!"


def test_an_order_is_found_at_its_location_as_it_was_answered(client):
    customer = factories.customer(client)
    made = client.post_json("/api/orders/", {"item": "Tea", "amount": 10000, "customer": customer["id"]}, status=201)
    body = made.json
    assert TIMESTAMP.fullmatch(body["created_at"])
    assert body == {
        "id": body["id"],
        "item": "Tea",
        "amount": 10000,
        "customer": customer["id"],
        "currency": "KES",
        "reference": None,
        "metadata": {},
        "status": "placed",
        "notification": body["notification"],
        "created_at": body["created_at"],
        "updated_at": body["created_at"],
    }
    assert client.get(made.headers["Location"]).json == body
    assert client.get("/api/orders/").json == [body]


def test_every_field_comes_back_as_it_was_written(client):
    fields = {
        "item": "Chai ya maziwa ☕ %s {{ order }}",
        "amount": 10**15 - 1,
        "customer": factories.customer(client)["id"],
        "currency": "USD",
        "reference": "A-1",
        "metadata": {"table": "4", "\U0001f33b": "\u200f"},
    }
    made = factories.order(client, **fields)
    assert {name: made[name] for name in fields} == fields
    assert client.get(f"/api/orders/{made['id']}").json == made


def test_an_order_for_nothing_is_taken(client):
    assert factories.order(client, amount=0)["amount"] == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_strings_of_digits_are_integers(client, method):
    placed = factories.order(client)
    other = factories.customer(client)["id"]
    told = write(client, method, placed, amount="0012345", customer=str(other)).json
    assert (told["amount"], told["customer"]) == (12345, other)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_unknown_customer_is_named(client, method):
    placed = factories.order(client)
    for unknown in (placed["customer"] + 1, 2**63 - 1):
        refused = write(client, method, placed, customer=unknown)
        assert_problem(refused, 400, "invalid", "customer")
    assert client.get("/api/orders/").json == [placed]


def test_the_currency_is_the_deployments_unless_told(make_app, database_kind):
    app = make_app(database_kind, **{"orders.currency": "JPY"})
    client = signed_in(app)
    placed = factories.order(client)
    assert placed["currency"] == "JPY"
    url = f"/api/orders/{placed['id']}"
    assert client.patch_json(url, {"currency": "KES"}).json["currency"] == "KES"
    assert client.patch_json(url, {"item": "Rice"}).json["currency"] == "KES"
    assert client.patch_json(url, {"currency": None}).json["currency"] == "JPY"


def test_a_put_keeps_optional_fields_left_out(client):
    placed = factories.order(client, reference="A-1", metadata={"a": "1"}, currency="USD")
    told = write(client, "PUT", placed, item="Rice", amount=5).json
    assert told == {**placed, "item": "Rice", "amount": 5, "updated_at": told["updated_at"]}
    assert client.get(f"/api/orders/{placed['id']}").json == told


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_null_clears_optional_fields(client, method):
    placed = factories.order(client, reference="A-1", metadata={"a": "1"}, currency="USD")
    told = write(client, method, placed, reference=None, metadata=None, currency=None).json
    assert (told["reference"], told["metadata"], told["currency"]) == (None, {}, "KES")


def test_a_put_replaces_metadata_and_a_patch_merges_it(client):
    placed = factories.order(client, metadata={"a": "1", "b": "2"})
    assert write(client, "PATCH", placed, metadata={"b": None, "c": "3"}).json["metadata"] == {"a": "1", "c": "3"}
    assert write(client, "PUT", placed, metadata={"d": "4"}).json["metadata"] == {"d": "4"}


def test_metadata_never_grows_beyond_its_limit(client):
    placed = factories.order(client, metadata={f"key-{number}": "x" for number in range(50)})
    assert_problem(write(client, "PATCH", placed, metadata={"one more": "x"}), 400, "invalid", "metadata")


@pytest.mark.parametrize("missing", ["item", "amount", "customer"])
def test_create_and_put_need_every_required_field(client, missing):
    placed = factories.order(client)
    body = {"item": "Tea", "amount": 1, "customer": placed["customer"]}
    del body[missing]
    assert_problem(client.post_json("/api/orders/", body, status="*"), 400, "invalid", missing)
    assert_problem(client.put_json(f"/api/orders/{placed['id']}", body, status="*"), 400, "invalid", missing)
    assert client.get("/api/orders/").json == [placed]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_was_read_can_be_sent_back(client, method):
    placed = factories.order(client, metadata={"a": "1"})
    url = f"/api/orders/{placed['id']}"
    told = client.request(url, method=method, body=json.dumps(placed).encode(), content_type="application/json").json
    assert told == {**placed, "updated_at": told["updated_at"]}


def test_read_only_fields_are_ignored_on_the_way_in(client):
    pinned = {"id": 999_999, "notification": "none", "created_at": 0, "updated_at": None}
    placed = factories.order(client, **pinned)
    told = write(client, "PATCH", placed, **pinned).json
    for body in (placed, told):
        assert body["id"] == placed["id"] != 999_999
        assert body["status"] == "placed"
        assert body["notification"]["status"] == "queued"
        assert body["created_at"] == placed["created_at"] != 0
        assert TIMESTAMP.fullmatch(body["updated_at"])


def test_changing_an_order_sends_no_second_message(client, deliver, notifier):
    placed = factories.order(client)
    write(client, "PUT", placed, item="Rice")
    write(client, "PATCH", placed, amount=1)
    assert deliver() == 1
    assert len(notifier.sent) == 1


def test_a_deleted_order_is_gone_and_its_message_never_sent(client, deliver, notifier):
    placed = factories.order(client)
    url = f"/api/orders/{placed['id']}"
    assert client.delete(url, status=204).body == b""
    assert deliver() == 0
    assert notifier.sent == []
    for method in ("GET", "DELETE"):
        assert_problem(client.request(url, method=method, status="*"), 404, "not-found")
    for method in ("PUT", "PATCH"):
        assert_problem(write(client, method, placed), 404, "not-found")


def test_head_answers_as_get_without_a_body(client):
    placed = factories.order(client)
    for url in ("/api/orders/", f"/api/orders/{placed['id']}"):
        head, got = client.head(url), client.get(url)
        assert head.body == b""
        assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_an_order_and_the_end_of_its_customer_never_both_succeed(client, app):
    """Either the order is placed and the customer stays, or the customer goes and the order is refused."""
    for _ in range(5):
        customer = factories.customer(client)["id"]
        together = threading.Barrier(2)
        answers: dict[str, int] = {}

        def race(name, method, url, body, together=together, answers=answers):
            own = TestApp(app)
            own.authorization = client.authorization
            together.wait()
            answers[name] = own.request(
                url, method=method, body=body, content_type="application/json", status="*"
            ).status_int

        order = json.dumps({"item": "Tea", "amount": 1, "customer": customer}).encode()
        racing = [
            threading.Thread(target=race, args=("placed", "POST", "/api/orders/", order)),
            threading.Thread(target=race, args=("deleted", "DELETE", f"/api/customers/{customer}", b"")),
        ]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join()
        assert (answers["placed"], answers["deleted"]) in [(201, 409), (400, 204)]

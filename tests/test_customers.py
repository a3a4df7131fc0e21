"""Customers over HTTP."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from webtest import TestApp

import factories
from contract import TIMESTAMP, assert_problem, signed_in
from customer_orders.customers.models import Customer

SPELLINGS = [
    "+254713812939",
    "0713812939",
    "0713 812 939",
    "0713-812-939",
    "(0713) 812.939",
    "0713/812939",
    "713812939",
    "254713812939",
    "+254 (0) 713 812 939",
    "00254 713 812 939",
    "000254 713 812 939",
    "tel:+254-713-812-939",
    "  +254 713 812 939  ",
    "+254\u00a0713\u2011812\u2013939",
    "\uff0b254713812939",
    # as copied from an address book, with marks that nobody sees
    "\u202a+254 713 812 939\u202c",
    "\u0660\u0667\u0661\u0663\u0668\u0661\u0662\u0669\u0663\u0669",
]

NOT_PHONES = [
    "Jane",
    "",
    " ",
    "+",
    "+254",
    "12",
    "+254713812939123456",
    "+999123456789",
    "0713 812 939 ext. 5",
    "0713 812 939 or 0713 812 940",
    "0700-FLOWERS",
    "+1 253 0000",
    "0713812939\n",
    "0" * 65,
]


def test_a_customer_is_created_and_found_at_its_location(client):
    made = client.post_json("/api/customers/", {"username": "Jane", "phone_number": "0713 812 939"}, status=201)
    body = made.json
    assert made.headers["Location"] == f"http://127.0.0.1:6543/api/customers/{body['id']}"
    assert TIMESTAMP.fullmatch(body["created_at"])
    assert body == {
        "id": body["id"],
        "username": "Jane",
        "phone_number": "+254713812939",
        "reference": None,
        "metadata": {},
        "language": None,
        "sms_opt_out": False,
        "sms_opt_out_source": None,
        "sms_opt_out_at": None,
        "anonymized_at": None,
        "created_at": body["created_at"],
        "updated_at": body["created_at"],
    }
    assert client.get(f"/api/customers/{body['id']}").json == body


def test_every_field_comes_back_as_it_was_written(client):
    fields = {
        "username": "Zoë 'O''Brien'; -- 🌻",
        "phone_number": "+25413812939",
        "reference": "A-1",
        "metadata": {"shop": "Kisumu", "empty": ""},
        "language": "sw-KE",
        "sms_opt_out": True,
    }
    made = factories.customer(client, **fields)
    assert {name: made[name] for name in fields} == fields
    assert client.get(f"/api/customers/{made['id']}").json == made


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_phone_number_is_taken_as_people_write_it(client, spelling):
    assert factories.customer(client, phone_number=spelling)["phone_number"] == "+254713812939"


def test_a_number_outside_the_assigned_ranges_is_taken(client):
    assert factories.customer(client, phone_number="+25413812939")["phone_number"] == "+25413812939"


@pytest.mark.parametrize("written", NOT_PHONES)
def test_what_is_no_phone_number_is_refused(client, written):
    body = {"username": "Jane", "phone_number": written}
    assert_problem(client.post_json("/api/customers/", body, status="*"), 400, "invalid", "phone_number")


def test_a_local_number_is_read_in_the_deployments_region(make_app, database_kind):
    app = make_app(database_kind, **{"phone.default_region": "GB"})
    client = signed_in(app)
    assert factories.customer(client, phone_number="07911 123456")["phone_number"] == "+447911123456"


def test_a_put_keeps_optional_fields_left_out(client):
    made = factories.customer(client, reference="A-1", metadata={"a": "1"}, language="sw", sms_opt_out=True)
    body = {"username": "Ann", "phone_number": "0713812939"}
    put = client.put_json(f"/api/customers/{made['id']}", body).json
    changed = {"username": "Ann", "phone_number": "+254713812939", "updated_at": put["updated_at"]}
    assert put == {**made, **changed}
    assert client.get(f"/api/customers/{made['id']}").json == put


@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_null_clears_optional_fields(client, method):
    made = factories.customer(client, reference="A-1", metadata={"a": "1"}, language="sw", sms_opt_out=True)
    cleared = {"reference": None, "metadata": None, "language": None, "sms_opt_out": None}
    required = {"username": made["username"], "phone_number": made["phone_number"]}
    told = getattr(client, method)(f"/api/customers/{made['id']}", {**required, **cleared}).json
    assert (told["reference"], told["metadata"], told["language"], told["sms_opt_out"]) == (None, {}, None, False)


def test_a_put_replaces_metadata(client):
    made = factories.customer(client, metadata={"a": "1", "b": "2"})
    body = {"username": "Ann", "phone_number": "0713812939", "metadata": {"c": "3"}}
    assert client.put_json(f"/api/customers/{made['id']}", body).json["metadata"] == {"c": "3"}


def test_a_put_needs_every_required_field(client):
    made = factories.customer(client)
    refused = client.put_json(f"/api/customers/{made['id']}", {"username": "Ann"}, status="*")
    assert_problem(refused, 400, "invalid", "phone_number")
    refused = client.put_json(f"/api/customers/{made['id']}", {}, status="*")
    assert_problem(refused, 400, "invalid", "phone_number", "username")


@pytest.mark.parametrize(
    ("field", "written", "read"),
    [
        ("username", "Ann", "Ann"),
        ("phone_number", "0700 000 001", "+254700000001"),
        ("reference", "B-2", "B-2"),
        ("metadata", {"b": "2"}, {"a": "1", "b": "2"}),
        ("metadata", {"a": None}, {}),
        ("metadata", {"a": "2", "unheard": None}, {"a": "2"}),
        ("language", "en", "en"),
        ("sms_opt_out", False, False),
    ],
)
def test_a_patch_changes_only_what_it_names(client, field, written, read):
    made = factories.customer(client, reference="A-1", metadata={"a": "1"}, language="sw")
    told = client.patch_json(f"/api/customers/{made['id']}", {field: written}).json
    assert told == {**made, field: read, "updated_at": told["updated_at"]}
    assert client.get(f"/api/customers/{made['id']}").json == told


def test_an_empty_patch_is_no_error(client):
    made = factories.customer(client)
    told = client.patch_json(f"/api/customers/{made['id']}", {}).json
    assert told == {**made, "updated_at": told["updated_at"]}


def test_metadata_never_grows_beyond_its_limit(client):
    made = factories.customer(client, metadata={f"key-{number}": "x" for number in range(50)})
    url = f"/api/customers/{made['id']}"
    assert_problem(client.patch_json(url, {"metadata": {"one more": "x"}}, status="*"), 400, "invalid", "metadata")
    assert client.get(url).json == made
    swapped = client.patch_json(url, {"metadata": {"one more": "x", "key-0": None}}).json["metadata"]
    assert len(swapped) == 50


@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_what_was_read_can_be_sent_back(client, method):
    made = factories.customer(client, metadata={"a": "1"})
    told = getattr(client, method)(f"/api/customers/{made['id']}", made).json
    assert told == {**made, "updated_at": told["updated_at"]}


def test_read_only_fields_are_ignored_on_the_way_in(client):
    pinned = {
        "id": 999_999,
        "created_at": "1999-01-01T00:00:00Z",
        "updated_at": False,
        "sms_opt_out_source": "recipient",
        "sms_opt_out_at": "1999-01-01T00:00:00Z",
    }
    made = factories.customer(client, **pinned)
    told = client.patch_json(f"/api/customers/{made['id']}", {**pinned, "username": "Ann"}).json
    assert told["username"] == "Ann"
    for body in (made, told):
        assert body["id"] == made["id"] != 999_999
        assert body["created_at"] == made["created_at"] != pinned["created_at"]
        assert TIMESTAMP.fullmatch(body["updated_at"])
        assert (body["sms_opt_out_source"], body["sms_opt_out_at"]) == (None, None)


def opt_out(body):
    return body["sms_opt_out"], body["sms_opt_out_source"], body["sms_opt_out_at"]


def test_a_customer_created_without_sms_tells_who_said_so_and_when(client):
    made = factories.customer(client, sms_opt_out=True)
    assert opt_out(made) == (True, "staff", made["created_at"])


@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_who_asked_for_no_sms_and_when_is_kept_until_it_is_taken_back(client, registry, method):
    made = factories.customer(client)
    url = f"/api/customers/{made['id']}"

    def change(value):
        registry.database.clock_offset += timedelta(hours=1)
        body = {"username": "Ann", "phone_number": "0713812939", "sms_opt_out": value}
        return getattr(client, method)(url, body).json

    out = change(True)
    assert opt_out(out) == (True, "staff", out["updated_at"])
    again = change(True)
    assert again["updated_at"] > out["updated_at"]
    assert opt_out(again) == opt_out(out) == opt_out(client.patch_json(url, {"username": "Ann"}).json)
    assert opt_out(change(False)) == opt_out(change(None)) == (False, None, None)


@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_what_the_recipient_said_is_not_put_in_the_mouth_of_the_staff(client, registry, method):
    made = factories.customer(client, sms_opt_out=True)
    with registry.database.transaction() as session:
        session.get(Customer, made["id"]).sms_opt_out_source = "recipient"
    url = f"/api/customers/{made['id']}"
    read = client.get(url).json
    told = getattr(client, method)(url, {**read, "username": "Ann"}).json
    assert opt_out(told) == (True, "recipient", made["created_at"])
    assert opt_out(client.patch_json(url, {"sms_opt_out": False}).json) == (False, None, None)


def test_updated_at_tells_of_the_last_change(client, registry):
    made = factories.customer(client)
    registry.database.clock_offset = timedelta(days=1)
    told = client.patch_json(f"/api/customers/{made['id']}", {"username": "Ann"}).json
    assert told["created_at"] == made["created_at"]
    assert told["updated_at"][:10] > made["updated_at"][:10]


def test_a_deleted_customer_is_gone(client):
    made = factories.customer(client)
    url = f"/api/customers/{made['id']}"
    gone = client.delete(url, status=204)
    assert gone.body == b""
    body = {"username": "Ann", "phone_number": "0713812939"}
    for answer in (
        client.get(url, status="*"),
        client.put_json(url, body, status="*"),
        client.patch_json(url, body, status="*"),
        client.delete(url, status="*"),
    ):
        assert_problem(answer, 404, "not-found")
    assert factories.customer(client)["id"] > made["id"]


def test_a_customer_who_has_orders_stays(client):
    placed = factories.order(client)
    url = f"/api/customers/{placed['customer']}"
    assert_problem(client.delete(url, status="*"), 409, "customer-has-orders")
    assert client.get(url).json["id"] == placed["customer"]
    client.delete(f"/api/orders/{placed['id']}", status=204)
    client.delete(url, status=204)


def test_head_answers_as_get_without_a_body(client):
    made = factories.customer(client)
    for url in ("/api/customers/", f"/api/customers/{made['id']}"):
        head, got = client.head(url), client.get(url)
        assert head.body == b""
        assert head.headers["Content-Type"] == got.headers["Content-Type"] == "application/json"
        assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_concurrent_changes_of_one_row_lose_nothing(client, app):
    made = factories.customer(client)
    url = f"/api/customers/{made['id']}"
    threads, each = 8, 6
    together = threading.Barrier(threads)
    failed = []

    def change(number: int) -> None:
        own = TestApp(app)
        own.authorization = client.authorization
        together.wait()
        for step in range(each):
            answer = own.patch_json(url, {"metadata": {f"{number}-{step}": "kept"}}, status="*")
            if answer.status_int != 200:
                failed.append(answer.text)

    running = [threading.Thread(target=change, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failed == []
    expected = {f"{number}-{step}": "kept" for number in range(threads) for step in range(each)}
    assert client.get(url).json["metadata"] == expected

"""API keys: made, shown once, used by machines, and ended."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, update
from webtest import TestApp

import factories
from customer_orders.auth.models import ApiKey

MACHINE = {"name": "Till", "role": "clerk"}


@pytest.fixture
def machine(app):
    """Makes a client that shows an API key."""

    def make(key):
        client = TestApp(app)
        client.authorization = ("Bearer", key)
        return client

    return make


def make_key(client, **values):
    return client.post_json("/api/api-keys/", {**MACHINE, **values}, status=201)


def test_a_key_is_shown_once_and_kept_as_a_hash(client, session):
    answer = make_key(client)
    made = answer.json
    secret = re.fullmatch(f"co_{made['id']}_([A-Za-z0-9_-]{{43}})", made["key"])[1]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"].endswith(f"/api/api-keys/{made['id']}")
    assert session.get(ApiKey, made["id"]).secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    read = client.get(f"/api/api-keys/{made['id']}").json
    assert read == {name: value for name, value in made.items() if name != "key"}
    assert client.get("/api/api-keys/").json[0] == read
    assert read["created_by"] == client.get("/api/me").json["id"]


def test_a_key_does_what_its_role_permits(client, machine):
    till = machine(make_key(client).json["key"])
    customer = factories.customer(till)
    assert till.get(f"/api/customers/{customer['id']}").json == customer
    told = till.get("/api/me").json
    assert (told["kind"], told["name"], told["email"], told["role"]) == ("api_key", "Till", "", "clerk")
    till.get("/api/api-keys/", status=403)


def test_a_key_has_no_sessions(client, machine):
    till = machine(make_key(client).json["key"])
    for call in (till.get, till.delete):
        assert call("/api/me/sessions", status=403).json["code"] == "forbidden"


def test_several_are_good_at_once_until_each_is_revoked(client, machine):
    first, second = (make_key(client).json for _ in range(2))
    for _ in range(2):
        client.delete(f"/api/api-keys/{first['id']}", status=204)
    machine(first["key"]).get("/api/me", status=401)
    machine(second["key"]).get("/api/me", status=200)
    assert client.get(f"/api/api-keys/{first['id']}").json["revoked_at"] is not None


def test_a_key_ends_when_it_was_told_to(client, machine, registry):
    ends = datetime.now(UTC) + timedelta(hours=1)
    till = machine(make_key(client, expires_at=ends.isoformat()).json["key"])
    till.get("/api/me", status=200)
    registry.database.clock_offset = timedelta(hours=1, seconds=1)
    till.get("/api/me", status=401)


def test_a_key_that_would_be_expired_is_not_made(client):
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    answer = client.post_json("/api/api-keys/", {**MACHINE, "expires_at": past}, status=400)
    assert [error["name"] for error in answer.json["errors"]] == ["expires_at"]


@pytest.mark.parametrize("change", [{"name": ""}, {"role": "owner"}, {"role": None}, {"secret": "mine"}])
def test_a_key_of_odd_values_is_refused(client, change):
    answer = client.post_json("/api/api-keys/", MACHINE | change, status=400)
    assert [error["name"] for error in answer.json["errors"]] == list(change)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key, _: key[:-1],
        lambda key, _: key + "A",
        lambda key, _: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key, other: f"co_{other}_{key.split('_', 2)[2]}",
        lambda key, _: key.replace("co_", "co_0", 1),
        lambda key, _: f"co_{2**63}_{key.split('_', 2)[2]}",
        lambda key, _: key.upper(),
        lambda key, _: "co_",
    ],
    ids=["shorter", "longer", "another secret", "another id", "odd id", "id too large", "capitals", "prefix only"],
)
def test_a_key_with_one_flaw_is_refused(client, machine, spoil):
    made, other = make_key(client).json, make_key(client).json["id"]
    answer = machine(spoil(made["key"], other)).get("/api/me", status=401)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="customer-orders", error="invalid_token"'


def test_a_repeated_post_makes_one_key_and_does_not_show_it_again(client):
    headers = {"Idempotency-Key": "one"}
    client.post_json("/api/api-keys/", MACHINE, headers=headers, status=201)
    again = client.post_json("/api/api-keys/", MACHINE, headers=headers, status=409)
    assert again.json["code"] == "idempotency-answer-gone"
    assert len(client.get("/api/api-keys/").json) == 1


def test_a_user_and_a_key_of_one_id_share_no_idempotency_key(registry, client, machine):
    user = client.get("/api/me").json["id"]
    made = make_key(client, role="admin").json
    with registry.database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(id=user))
    key = f"co_{user}_{made['key'].split('_', 2)[2]}"
    headers = {"Idempotency-Key": "same"}
    body = {"username": "Amina", "phone_number": "0713 812 939"}
    ids = {
        caller.post_json("/api/customers/", body, headers=headers, status=201).json["id"]
        for caller in (client, machine(key))
    }
    assert len(ids) == 2


# -- the last use -------------------------------------------------------------------------------------------------


def last_use(client, made):
    return client.get(f"/api/api-keys/{made['id']}").json["last_used_at"]


def test_the_last_use_is_written_to_the_minute(client, machine, registry):
    made = make_key(client).json
    till = machine(made["key"])
    assert last_use(client, made) is None
    till.get("/api/me")
    first = last_use(client, made)
    assert first is not None
    registry.database.clock_offset = timedelta(seconds=50)
    till.get("/api/me")
    assert last_use(client, made) == first
    registry.database.clock_offset = timedelta(seconds=61)
    # even if the request comes to nothing
    till.post_json("/api/customers/", {}, status=400)
    assert last_use(client, made) > first


def test_a_last_use_that_cannot_be_written_spoils_no_answer(client, machine, registry, caplog):
    made = make_key(client).json

    def refuse(connection, cursor, statement, *_):
        if statement.startswith("UPDATE api_keys"):
            cursor.execute("SELECT no_such_column")

    event.listen(registry.database.engine, "before_cursor_execute", refuse)
    try:
        machine(made["key"]).get("/api/me", status=200)
    finally:
        event.remove(registry.database.engine, "before_cursor_execute", refuse)
    assert last_use(client, made) is None
    assert f"the last use of API key {made['id']} could not be written down" in caplog.text

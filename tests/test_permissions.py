"""Who may do what: every documented operation, by every kind of caller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from webtest import TestApp

import factories
from customer_orders.api import Service
from customer_orders.auth import api_keys, sessions
from customer_orders.auth.services import disable, grant, local_user
from customer_orders.notifications.models import Notification

ROLES = {"viewer", "clerk", "admin"}
# a user of each role, and an API key
READERS = ROLES | {f"key of {role}" for role in ROLES}
WRITERS = {"clerk", "admin", "key of clerk", "key of admin"}
ADMINS = {"admin", "key of admin"}
ANYONE = {"anonymous", "expired", "disabled", "roleless", "revoked key", *READERS}


@dataclass(frozen=True)
class Row:
    """Who may call an operation, with what body, and the status that they get."""

    who: set[str]
    status: int
    body: dict[str, Any] | None = None


CUSTOMER = {"username": "Jane", "phone_number": "0713 812 939"}
ORDER = {"item": "Tea", "amount": 1}

ROWS = {
    "customers_list": Row(READERS, 200),
    "customers_create": Row(WRITERS, 201, CUSTOMER),
    "customers_read": Row(READERS, 200),
    "customers_update": Row(WRITERS, 200, CUSTOMER),
    "customers_partial_update": Row(WRITERS, 200, {}),
    "customers_delete": Row(WRITERS, 204),
    "customers_anonymize": Row(ADMINS, 200),
    "customers_export": Row(ADMINS, 200),
    "orders_list": Row(READERS, 200),
    "orders_create": Row(WRITERS, 201, ORDER),
    "orders_read": Row(READERS, 200),
    "orders_update": Row(WRITERS, 200, ORDER),
    "orders_partial_update": Row(WRITERS, 200, {}),
    "orders_delete": Row(WRITERS, 204),
    "notifications_list": Row(READERS, 200),
    "notifications_read": Row(READERS, 200),
    "notifications_resend": Row(WRITERS, 200),
    "notifications_resend_all": Row(ADMINS, 200, {"status": ["failed"], "dry_run": True}),
    "stats_read": Row(READERS, 200),
    "version_read": Row(READERS, 200),
    "customers_events": Row(READERS, 200),
    "orders_events": Row(READERS, 200),
    "audit_list": Row(ADMINS, 200),
    "me_read": Row(READERS, 200),
    # a machine has none
    "sessions_list": Row(ROLES, 200),
    "sessions_revoke": Row(ROLES, 204),
    "sessions_revoke_all": Row(ROLES, 204),
    "api_keys_list": Row(ADMINS, 200),
    "api_keys_create": Row(ADMINS, 201, {"name": "Till", "role": "clerk"}),
    "api_keys_read": Row(ADMINS, 200),
    "api_keys_revoke": Row(ADMINS, 204),
    "root_read": Row(ANYONE, 200),
    "document_read": Row(ANYONE, 200),
    "sign_in_redirect": Row(ANYONE, 302),
    # without the cookie of a sign-in
    "sign_in_callback": Row(ANYONE, 400),
    # for a refresh token that is not good; what it proves has nothing to do with the caller's access token
    "token_refresh_post": Row(ANYONE, 401, {"refresh": "unknown"}),
    "token_revoke_post": Row(ANYONE, 204, {"refresh": "unknown"}),
}


@pytest.fixture
def documented(anonymous):
    """Every operation of the document: method and path by operation id, and whether it asks for a token."""
    document = anonymous.get("/api/api.json").json
    return {
        operation["operationId"]: (method, document["basePath"] + path, operation["security"] != [])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


@pytest.fixture
def caller(app, registry, request):
    """A client that is the kind of caller of the test's parameter."""
    kind = request.param
    client = TestApp(app)
    if kind == "anonymous":
        return client
    _, _, role = kind.partition("key of ")
    with registry.database.transaction() as session:
        if role or kind == "revoked key":
            made, shown = api_keys.create(session, kind, role or "admin")
            if not role:
                api_keys.revoke(session, made.id)
            client.authorization = ("Bearer", shown)
            return client
        user = local_user(session, f"{kind}@shop.example", kind if kind in ROLES else "admin")
        if kind == "roleless":
            grant(session, str(user.id), None)
        disable(session, str(user.id), disabled=kind == "disabled")
    lifetime = timedelta(seconds=-1) if kind == "expired" else None
    client.authorization = ("Bearer", registry.access_tokens.create_token(str(user.id), expiration=lifetime))
    return client


def test_every_documented_operation_has_a_row_here(documented):
    assert set(documented) == set(ROWS)


def test_the_document_says_which_operations_ask_for_a_token(documented):
    asking = {operation for operation, (_, _, asks) in documented.items() if asks}
    assert asking == {operation for operation, row in ROWS.items() if row.who != ANYONE}


@pytest.mark.parametrize(("caller", "kind"), [(kind, kind) for kind in sorted(ANYONE)], indirect=["caller"])
def test_who_may_do_what(documented, client, registry, caller, kind):
    expected, told = {}, {}
    for operation, (method, path, _) in documented.items():
        row = ROWS[operation]
        customer = factories.customer(client)["id"]
        thing = customer
        if "orders" in operation:
            thing = factories.order(client, customer=customer)["id"]
        elif "notifications" in operation:
            thing = factories.order(client, customer=customer)["notification"]["id"]
            with registry.database.transaction() as session:
                session.get(Notification, thing).status = "failed"
        elif "api_keys" in operation:
            thing = client.post_json("/api/api-keys/", {"name": "Till", "role": "clerk"}).json["id"]
        elif operation == "sessions_revoke" and kind in ROLES:
            with registry.database.transaction() as session:
                thing = sessions.begin(session, caller.get("/api/me").json["id"], registry.sections["auth"]).family_id
        body = {**row.body, "customer": customer} if row.body and "item" in row.body else row.body
        answer = caller.request(
            path.replace("{id}", str(thing)).replace("{provider}", "scripted"),
            method=method.upper(),
            status="*",
            **({} if body is None else {"content_type": "application/json", "body": json.dumps(body).encode()}),
        )
        told[operation] = answer.status_int
        # who is known is not asked who they are
        refused = 403 if kind in READERS | {"roleless"} else 401
        expected[operation] = row.status if kind in row.who else refused
        if answer.status_int == 403 or (answer.status_int == 401 and row.who != ANYONE):
            assert answer.json["code"] == {401: "unauthenticated", 403: "forbidden"}[answer.status_int]
    assert told == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", "/api/orders/4611686018427387904"), ("delete", "/api/customers/4611686018427387904")],
)
def test_a_stranger_does_not_learn_whether_a_thing_is_there(anonymous, client, method, path):
    getattr(anonymous, method)(path, status=401)
    getattr(client, method)(path, status=404)


def test_a_caller_is_judged_before_the_body(anonymous):
    anonymous.post("/api/orders/", b"{", content_type="application/json", status=401)


CLERK = [
    "customers:read",
    "customers:write",
    "me:read",
    "me:write",
    "notifications:read",
    "notifications:write",
    "orders:read",
    "orders:write",
    "stats:read",
    "version:read",
]


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        ("viewer", [name for name in CLERK if name.endswith(":read") or name == "me:write"]),
        ("clerk", CLERK),
        ("admin", sorted([*CLERK, "api-keys:manage", "audit:read", "customers:manage", "notifications:manage"])),
    ],
)
def test_me_tells_the_role_and_what_it_permits(anonymous, token_for, role, permissions):
    anonymous.authorization = ("Bearer", token_for(role))
    told = anonymous.get("/api/me").json
    assert (told["role"], told["roles"], told["permissions"]) == (role, [role], permissions)


def test_a_method_that_names_no_permission_cannot_be_defined():
    service = Service("without_permission", "/api/without-permission")
    with pytest.raises(TypeError, match="permission"):

        @service.get()
        def read(request):
            """Never reached."""


OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("carrier", ["GET", "POST"])
def test_a_header_makes_no_other_method_of_a_request(anonymous, token_for, client, header, carrier):
    customer = factories.customer(client)["id"]
    path = f"/api/customers/{customer}"
    anonymous.authorization = ("Bearer", token_for("clerk"))
    answer = anonymous.request(
        f"{path}?_method=DELETE", method=carrier, headers={header: "DELETE"}, body=b"_method=DELETE", status="*"
    )
    # the query is refused as any other that is not known
    assert answer.status_int == {"GET": 400, "POST": 405}[carrier]
    anonymous.request(path, method=carrier, headers={header: "DELETE"}, status={"GET": 200, "POST": 405}[carrier])
    client.get(path, status=200)


def test_head_and_options_open_nothing(documented, anonymous, client):
    closed = {path for method, path, asks in documented.values() if asks and method == "get"}
    assert closed
    for path in closed:
        path = path.replace("{id}", "1")
        answer = anonymous.head(path, status=401)
        assert answer.body == b""
        told = anonymous.options(path, status=204)
        assert (told.body, set(told.headers) & {"Location", "ETag", "Link", "X-Total-Count"}) == (b"", set())


def test_options_tells_the_same_whether_a_thing_is_there(anonymous, client):
    there = factories.customer(client)["id"]
    first, second = (anonymous.options(f"/api/customers/{thing}", status=204) for thing in (there, 2**62))
    assert first.headers["Allow"] == second.headers["Allow"]

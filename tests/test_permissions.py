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
from customer_orders.auth.services import disable, grant, local_user
from customer_orders.notifications.models import Notification

ANYONE = {"anonymous", "expired", "disabled", "roleless", "viewer", "clerk", "admin"}
READERS = {"viewer", "clerk", "admin"}
WRITERS = {"clerk", "admin"}


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
    "orders_list": Row(READERS, 200),
    "orders_create": Row(WRITERS, 201, ORDER),
    "orders_read": Row(READERS, 200),
    "orders_update": Row(WRITERS, 200, ORDER),
    "orders_partial_update": Row(WRITERS, 200, {}),
    "orders_delete": Row(WRITERS, 204),
    "notifications_list": Row(READERS, 200),
    "notifications_read": Row(READERS, 200),
    "notifications_resend": Row(WRITERS, 200),
    "notifications_resend_all": Row({"admin"}, 200, {"status": ["failed"], "dry_run": True}),
    "stats_read": Row(READERS, 200),
    "customers_events": Row(READERS, 200),
    "orders_events": Row(READERS, 200),
    "audit_list": Row({"admin"}, 200),
    "me_read": Row(READERS, 200),
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
    with registry.database.transaction() as session:
        user = local_user(session, f"{kind}@shop.example", kind if kind in READERS else "admin")
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
    "notifications:read",
    "notifications:write",
    "orders:read",
    "orders:write",
    "stats:read",
]


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        ("viewer", [f"{thing}:read" for thing in ("customers", "me", "notifications", "orders", "stats")]),
        ("clerk", CLERK),
        ("admin", sorted([*CLERK, "audit:read", "notifications:manage"])),
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

"""Refusals in the audit trail: each written in a transaction of its own, and nobody fills the database with them."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text
from webtest import TestApp

import factories
from customer_orders.audit.models import AuditEntry
from customer_orders.audit.refusals import MOST, Seen
from customer_orders.auth.models import User
from customer_orders.auth.services import disable
from customer_orders.interfaces import Identity, IdentityRefused
from customer_orders.notifications.models import Notification
from test_sign_in import begin, come_back


@pytest.fixture(autouse=True)
def _nothing_seen(registry):
    """As after a start: what other tests were refused is forgotten."""
    registry.refusals = Seen()


@pytest.fixture
def refusals(rows):
    """The entries of refusals, oldest first."""
    return lambda: [one for one in rows(AuditEntry) if one.action.endswith(".refused")]


@pytest.fixture
def signed_in(app, token_for):
    """A client signed in with a role: ``signed_in("viewer")``."""

    def make(role):
        client = TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:6543"})
        client.authorization = ("Bearer", token_for(role))
        return client

    return make


def test_what_a_role_may_not_do_is_on_record(signed_in, refusals):
    viewer = signed_in("viewer")
    me = viewer.get("/api/me").json["id"]
    viewer.delete("/api/orders/17", headers={"X-Request-Id": "request-1"}, status=403)
    (entry,) = refusals()
    assert (entry.action, entry.subject_kind, entry.subject_id) == ("access.refused", "access", None)
    assert (entry.actor_kind, entry.actor_id) == ("user", me)
    assert (entry.request_id, entry.address) == ("request-1", "127.0.0.1")
    assert entry.before is None
    assert entry.after == {"code": "forbidden", "operation": "DELETE /api/orders/{id}", "id": 17}


def test_a_refusal_after_the_first_write_is_kept_though_that_is_rolled_back(client, signed_in, refusals, registry):
    order = factories.order(client)
    message = order["notification"]["id"]
    with registry.database.transaction() as session:
        session.get(Notification, message).status = "failed"
    client.patch_json(f"/api/customers/{order['customer']}", {"sms_opt_out": True})
    # the service refuses, in a transaction that on SQLite nobody else can write beside
    signed_in("clerk").post_json(f"/api/notifications/{message}/resend", {"force": True}, status=403)
    (entry,) = refusals()
    assert entry.after == {"code": "forbidden", "operation": "POST /api/notifications/{id}/resend", "id": message}


def test_a_good_token_of_somebody_who_is_shut_out_names_them(signed_in, refusals, registry):
    clerk = signed_in("clerk")
    me = clerk.get("/api/me").json["id"]
    with registry.database.transaction() as session:
        disable(session, str(me), disabled=True)
    clerk.get("/api/orders/", status=401)
    (entry,) = refusals()
    assert (entry.action, entry.actor_kind, entry.actor_id) == ("access.refused", "user", me)
    assert entry.after == {"code": "unauthenticated", "operation": "GET /api/orders/"}


def test_the_same_again_makes_an_entry_a_minute(signed_in, refusals, later, caplog):
    viewer, other = signed_in("viewer"), signed_in("viewer")
    caplog.set_level(logging.INFO, "customer_orders.audit.refusals")
    for number in range(1, 4):
        viewer.delete(f"/api/orders/{number}", status=403)
    assert [one.after["id"] for one in refusals()] == [1]
    assert caplog.text.count("refused again") == 2
    viewer.delete("/api/customers/1", status=403)
    other.delete("/api/orders/1", status=403)
    assert len(refusals()) == 3
    later(61)
    viewer.delete("/api/orders/4", status=403)
    assert [one.after["id"] for one in refusals()] == [1, 1, 1, 4]


def test_tokens_that_prove_nothing_cannot_fill_the_database(anonymous, refusals, later):
    anonymous.get("/api/orders/", status=401)
    assert refusals() == []
    for number in range(2 * MOST):
        anonymous.get(
            f"/api/orders/{number + 1}",
            headers={"Authorization": f"Bearer junk-{number}"},
            extra_environ={"REMOTE_ADDR": f"203.0.113.{number}"},
            status=401,
        )
    entries = refusals()
    assert len(entries) == MOST
    assert {(one.action, one.actor_kind) for one in entries} == {("token.refused", None)}
    assert entries[0].after == {"code": "unauthenticated", "operation": "GET /api/orders/{id}"}
    assert entries[0].address == "203.0.113.0"
    later(61)
    anonymous.get("/api/orders/", headers={"Authorization": "Bearer junk"}, status=401)
    assert len(refusals()) == MOST + 1


def test_junk_hides_no_refusal_of_somebody_we_know(anonymous, signed_in, refusals):
    for number in range(MOST):
        address = {"REMOTE_ADDR": f"203.0.113.{number}"}
        anonymous.get("/api/orders/", headers={"Authorization": "Bearer junk"}, extra_environ=address, status=401)
    signed_in("viewer").delete("/api/orders/1", status=403)
    assert refusals()[-1].action == "access.refused"


def test_a_refresh_token_that_is_not_good_is_on_record_and_not_itself(anonymous, refusals, session):
    anonymous.post_json("/api/token/refresh", {"refresh": "not-a-good-one"}, status=401)
    (entry,) = refusals()
    assert (entry.action, entry.after["code"]) == ("token.refused", "invalid-refresh-token")
    assert "not-a-good-one" not in str(session.execute(text("SELECT * FROM audit_entries")).all())


def test_sign_ins_that_are_refused_are_on_record(anonymous, registry, refusals, rows):
    provider = registry.plugins.identity_providers["scripted"]
    provider.identity = IdentityRefused("the nonce is another")
    come_back(anonymous, begin(anonymous)["state"], status=403)
    come_back(anonymous, begin(anonymous)["state"], status=403)
    provider.identity = Identity("subject-9", "stranger@elsewhere.example", True, "Stranger")
    come_back(anonymous, begin(anonymous)["state"], status=403)
    unknown, roleless = refusals()
    operation = "GET /api/{provider}-oauth2/callback/"
    assert (unknown.action, unknown.actor_kind) == ("sign_in.refused", None)
    assert unknown.after == {"code": "sign-in-refused", "operation": operation, "provider": "scripted"}
    assert (roleless.actor_kind, roleless.actor_id) == ("user", rows(User)[-1].id)
    assert roleless.after == {"code": "no-role", "operation": operation, "provider": "scripted"}


def test_the_answer_goes_out_though_the_entry_cannot_be_written(make_app, database_kind, caplog):
    app = make_app(database_kind)
    with app.registry.database.transaction() as session:
        session.execute(text("ALTER TABLE audit_entries RENAME TO elsewhere"))
    answer = TestApp(app).get("/api/orders/", headers={"Authorization": "Bearer junk"}, status=401)
    assert answer.json["code"] == "unauthenticated"
    (told,) = [one for one in caplog.records if one.name == "customer_orders.audit.refusals"]
    assert told.levelno == logging.ERROR
    assert answer.headers["X-Request-Id"] in told.getMessage()

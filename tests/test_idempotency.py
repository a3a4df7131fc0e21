"""``Idempotency-Key``: what is repeated with the same key is done once, and answered alike."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, insert, select, text

import factories
from contract import assert_problem, signed_in
from customer_orders.api.idempotency import HEADER, REPLAYED, SWEPT, IdempotencyKey
from customer_orders.auth.services import disable, grant
from customer_orders.customers.models import Customer
from customer_orders.events import OrderPlaced
from customer_orders.notifications.dispatch import EmbeddedDispatcher
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from customer_orders.settings import section
from serving import wait_for

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

JSON = "application/json"
CUSTOMERS, ORDERS = "/api/customers/", "/api/orders/"


def post(client, body, key="key-1", path=ORDERS, content_type=JSON):
    """POST ``body``, JSON unless it is bytes, with this key; None: without one."""
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if key is None else {HEADER: key}
    return client.post(path, given, headers=headers, content_type=content_type, status="*")


def is_new(answer):
    """Whether it tells of something that this very request made."""
    assert answer.status_int == 201, answer.text
    return REPLAYED not in answer.headers


def assert_repeated(answer, first):
    """``answer`` is ``first`` once more, and says so."""
    assert (answer.status_int, answer.body) == (201, first.body), answer.text
    for name in ("Content-Type", "Location", "ETag"):
        assert answer.headers[name] == first.headers[name]
    assert answer.headers[REPLAYED] == "true"


def count(registry, model):
    with registry.database.transaction(writes=False) as session:
        return session.scalar(select(func.count()).select_from(model))


def made(registry):
    """How many orders there are, messages, and keys."""
    return count(registry, Order), count(registry, Notification), count(registry, IdempotencyKey)


@pytest.fixture
def body(client):
    """An order that can be placed."""
    return {"item": "Tea", "amount": 10000, "customer": factories.customer(client)["id"]}


@pytest.fixture
def clerk(app):
    """A client signed in as clerk@shop.example."""
    return signed_in(app)


@pytest.fixture
def listen(registry):
    """Adds a listener for orders placed, for one test; it is heard last."""
    listeners = registry.database.listeners[OrderPlaced]
    before = list(listeners)
    yield listeners.append
    listeners[:] = before


class Held:
    """A listener that keeps the first order under way until it is told to go on."""

    def __init__(self):
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __call__(self, session, placed):
        if not self.inside.is_set():
            self.inside.set()
            assert self.go_on.wait(30)


# -- once ---------------------------------------------------------------------------------------------------------


def test_an_order_that_is_repeated_is_placed_once_and_answered_alike(client, registry, deliver, notifier, body):
    first = post(client, body)
    assert is_new(first)
    # what became of it since is no part of the answer
    assert deliver() == 1
    client.patch_json(f"{ORDERS}{first.json['id']}", {"item": "Rice"}, status=200)
    for _ in range(2):
        assert_repeated(post(client, body), first)
    assert made(registry) == (1, 1, 1)
    assert deliver() == 0
    assert len(notifier.sent) == 1


def test_a_customer_that_is_repeated_is_made_once_and_answered_alike(client, registry):
    body = {"username": "Amina ☕", "phone_number": "0713 812 939"}
    first = post(client, body, path=CUSTOMERS)
    assert is_new(first)
    assert_repeated(post(client, body, path=CUSTOMERS), first)
    assert count(registry, Customer) == 1


def test_without_a_key_each_is_another(client, registry, body):
    assert is_new(post(client, body, None))
    assert is_new(post(client, body, None))
    assert made(registry) == (2, 2, 0)


def test_another_key_is_another_order(client, registry, body):
    assert is_new(post(client, body, "a key"))
    assert is_new(post(client, body, "A key"))
    assert made(registry) == (2, 2, 2)


def test_it_is_the_same_however_its_json_is_written(client, registry, body):
    first = post(client, body)
    backwards = dict(reversed(body.items()))
    for written in (json.dumps(backwards), json.dumps(body, indent=4), json.dumps(backwards, separators=(",", ":"))):
        assert_repeated(post(client, written.encode()), first)
    assert made(registry) == (1, 1, 1)


def test_both_slash_forms_share_a_key(client, registry, body):
    first = post(client, body, path="/api/orders")
    assert_repeated(post(client, body, path="/api/orders/"), first)
    assert_repeated(post(client, body, path="/api/orders"), first)
    assert made(registry) == (1, 1, 1)


@pytest.mark.parametrize("other", [{"amount": 10001}, {"amount": "10000"}, {"reference": None}, {"nonsense": 1}])
def test_another_body_is_refused_and_nothing_made(client, registry, body, other):
    first = post(client, body)
    assert_problem(post(client, {**body, **other}), 422, "idempotency-key-reused")
    assert made(registry) == (1, 1, 1)
    assert_repeated(post(client, body), first)


def test_a_key_of_customers_is_none_of_orders(client, registry, body):
    customer = {"username": "Jane", "phone_number": "0713812939"}
    first = post(client, customer, path=CUSTOMERS)
    placed = post(client, body)
    assert is_new(first)
    assert is_new(placed)
    assert_repeated(post(client, customer, path=CUSTOMERS), first)
    assert_repeated(post(client, body), placed)
    assert made(registry) == (1, 1, 2)


def test_a_key_of_one_user_is_none_of_another(client, clerk, registry, body):
    first, second = post(client, body), post(clerk, body)
    assert is_new(first)
    assert is_new(second)
    assert_repeated(post(client, body), first)
    assert_repeated(post(clerk, body), second)
    assert made(registry) == (2, 2, 2)


def test_a_change_takes_no_key(client, registry, body):
    url = f"{ORDERS}{post(client, body, None).json['id']}"
    for item in ("Rice", "Salt"):
        answer = client.patch_json(url, {"item": item}, headers={HEADER: "key-1"}, status=200)
        assert answer.json["item"] == item
    assert count(registry, IdempotencyKey) == 0


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "x" * 256, "a\tb", "a\x00b", "a\nb", "a\n", "\x1f", "a\x7f", "caf\u00e9", "\u0080", "\u00a0"],
)
@pytest.mark.parametrize("path", [CUSTOMERS, ORDERS])
def test_a_bad_key_is_named(client, registry, body, path, key):
    problem = assert_problem(post(client, body, key, path), 400, "invalid", HEADER)
    assert [error["location"] for error in problem["errors"]] == ["header"]
    assert made(registry) == (0, 0, 0)


@pytest.mark.parametrize("key", ["x", "x" * 255, "a key, with spaces", "'\"; DROP TABLE orders; --", "~!%s{}"])
def test_any_other_key_is_taken(client, registry, body, key):
    first = post(client, body, key)
    assert is_new(first)
    assert_repeated(post(client, body, key), first)
    assert made(registry) == (1, 1, 1)


# -- what failed may be tried again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (400, {"amount": -1}),
        (400, {"customer": 2**62}),
        (400, b"{"),
        (413, b" " * 70_000),
        (415, b"item=Tea"),
    ],
)
def test_what_was_refused_is_not_kept(client, registry, body, status, changed):
    if isinstance(changed, bytes):
        refused = post(client, changed, content_type="text/plain" if status == 415 else JSON)
    else:
        refused = post(client, {**body, **changed})
    assert refused.status_int == status
    assert made(registry) == (0, 0, 0)
    first = post(client, body)
    assert is_new(first)
    assert_repeated(post(client, body), first)
    assert made(registry) == (1, 1, 1)


@pytest.mark.parametrize("depth", [250, 300, 900, 2000])
def test_a_body_nested_too_deep_is_refused_as_without_a_key(client, registry, depth):
    nested = b'{"metadata": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    refused, with_key = post(client, nested, None), post(client, nested)
    assert refused.status_int == with_key.status_int == 400
    assert with_key.json["code"] == refused.json["code"]
    assert with_key.json.get("errors") == refused.json.get("errors")
    assert made(registry) == (0, 0, 0)


def test_a_conflict_is_not_kept(client, registry, body):
    other = factories.order(client, reference="A-1")
    problem = assert_problem(post(client, {**body, "reference": "A-1"}), 409, "reference-taken")
    assert problem["existing"] == other["id"]
    assert count(registry, IdempotencyKey) == 0
    client.delete(f"{ORDERS}{other['id']}", status=204)
    assert is_new(post(client, {**body, "reference": "A-1"}))


def test_who_was_refused_may_try_again_once_let_in(clerk, anonymous, registry, body):
    assert_problem(post(anonymous, body), 401, "unauthenticated")
    with registry.database.transaction() as session:
        grant(session, "clerk@shop.example", "viewer")
    assert_problem(post(clerk, body), 403, "forbidden")
    with registry.database.transaction() as session:
        grant(session, "clerk@shop.example", "clerk")
        disable(session, "clerk@shop.example", disabled=True)
    assert_problem(post(clerk, body), 401, "unauthenticated")
    assert made(registry) == (0, 0, 0)
    with registry.database.transaction() as session:
        disable(session, "clerk@shop.example", disabled=False)
    assert is_new(post(clerk, body))


def test_who_may_no_longer_order_is_not_told_what_they_ordered(clerk, registry, body):
    first = post(clerk, body)
    with registry.database.transaction() as session:
        grant(session, "clerk@shop.example", "viewer")
    assert_problem(post(clerk, body), 403, "forbidden")
    with registry.database.transaction() as session:
        disable(session, "clerk@shop.example", disabled=True)
    assert_problem(post(clerk, body), 401, "unauthenticated")
    with registry.database.transaction() as session:
        grant(session, "clerk@shop.example", "admin")
        disable(session, "clerk@shop.example", disabled=False)
    assert_repeated(post(clerk, body), first)
    assert made(registry) == (1, 1, 1)


def test_a_defect_of_ours_is_not_kept(client, registry, listen, body):
    defects = [RuntimeError("a listener is defective")]

    def fail_once(session, placed):
        if defects:
            raise defects.pop()

    listen(fail_once)
    assert_problem(post(client, body), 500, "internal-error")
    assert made(registry) == (0, 0, 0)
    assert is_new(post(client, body))
    assert made(registry) == (1, 1, 1)


# -- for how long -------------------------------------------------------------------------------------------------


def test_a_key_is_kept_for_a_time_and_then_makes_anew(client, registry, body):
    first = post(client, body)
    kept = timedelta(seconds=section(registry, "api").idempotency_seconds)
    registry.database.clock_offset = kept - timedelta(minutes=1)
    assert_repeated(post(client, body), first)
    registry.database.clock_offset = kept
    # another body too: nothing is left of the first
    second = post(client, {**body, "item": "Rice"})
    assert is_new(second)
    assert_repeated(post(client, {**body, "item": "Rice"}), second)
    assert second.json["id"] != first.json["id"]
    assert made(registry) == (2, 2, 1)


@pytest.fixture
def expired(registry):
    """More expired keys than one sweep deletes at a time."""
    row = {
        "principal": "1",
        "operation": "POST /api/orders/",
        "fingerprint": "0" * 64,
        "status": 201,
        "headers": {},
        "body": "{}",
        "expires_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    with registry.database.transaction() as session:
        session.execute(insert(IdempotencyKey), [{**row, "key": f"old-{number}"} for number in range(SWEPT + 1)])
    return SWEPT + 1


def test_a_sweep_deletes_what_expired_and_nothing_else(client, registry, expired, body):
    first = post(client, body)
    assert count(registry, IdempotencyKey) == expired + 1
    registry.outbox.sweep()
    assert made(registry) == (1, 1, 1)
    assert_repeated(post(client, body), first)
    registry.outbox.sweep()
    registry.database.clock_offset = timedelta(seconds=section(registry, "api").idempotency_seconds)
    registry.outbox.sweep()
    assert made(registry) == (1, 1, 0)


def test_the_dispatcher_sweeps(client, registry, expired, body):
    first = post(client, body)
    dispatcher = EmbeddedDispatcher(1, 3600)
    dispatcher.start(registry.outbox)
    try:
        wait_for(lambda: count(registry, IdempotencyKey) == 1, "expired keys are gone")
    finally:
        dispatcher.stop()
    assert_repeated(post(client, body), first)


# -- secrets ------------------------------------------------------------------------------------------------------


def test_an_answer_that_carries_a_secret_is_never_kept(make_app, database_kind, client_of):
    vault = client_of(make_app(database_kind, plugins="scripted vault"))
    first = post(vault, {}, path="/api/vault/")
    assert is_new(first)
    assert first.headers["Cache-Control"] == "no-store"
    gone = post(vault, {}, path="/api/vault")
    assert_problem(gone, 409, "idempotency-answer-gone")
    assert first.json["secret"] not in gone.text
    # whoever sends something else is told that, secret or not
    assert_problem(post(vault, {"other": 1}, path="/api/vault/"), 422, "idempotency-key-reused")
    with vault.app.registry.database.transaction(writes=False) as session:
        (row,) = session.execute(text("SELECT * FROM idempotency_keys")).all()
    assert "POST /api/vault/" in row
    assert first.json["secret"] not in str(row)
    assert is_new(post(vault, {}, "key-2", path="/api/vault/"))


# -- at the same time ---------------------------------------------------------------------------------------------


@on_postgresql
def test_while_one_is_under_way_the_other_is_told_to_come_back(client, clerk, registry, listen, body):
    held = Held()
    listen(held)
    with ThreadPoolExecutor(1) as pool:
        try:
            under_way = pool.submit(post, client, body)
            assert held.inside.wait(30)
            for _ in range(2):
                busy = post(client, body)
                assert_problem(busy, 409, "idempotency-key-in-use")
                assert busy.headers["Retry-After"] == "1"
            # which keeps nobody else
            assert is_new(post(client, body, "key-2"))
            assert is_new(post(client, {"username": "Jane", "phone_number": "0713812939"}, path=CUSTOMERS))
            assert is_new(post(clerk, body))
        finally:
            held.go_on.set()
        first = under_way.result(30)
    assert is_new(first)
    assert_repeated(post(client, body), first)
    assert made(registry) == (3, 3, 4)


@on_postgresql
def test_once_what_was_under_way_has_failed_the_other_may_go_on(client, registry, listen, body):
    held = Held()

    def fail(session, placed):
        if not held.inside.is_set():
            held(session, placed)
            raise RuntimeError("a listener is defective")

    listen(fail)
    with ThreadPoolExecutor(1) as pool:
        try:
            under_way = pool.submit(post, client, body)
            assert held.inside.wait(30)
            assert_problem(post(client, body), 409, "idempotency-key-in-use")
        finally:
            held.go_on.set()
        assert_problem(under_way.result(30), 500, "internal-error")
    assert is_new(post(client, body))
    assert made(registry) == (1, 1, 1)


@on_sqlite
def test_while_one_is_under_way_the_other_waits_and_is_answered_alike(client, registry, listen, body):
    held, waiting = Held(), threading.Event()
    listen(held)

    def comes(*_):
        if held.inside.is_set():
            waiting.set()

    event.listen(registry.database.engine, "checkout", comes)
    try:
        with ThreadPoolExecutor(2) as pool:
            try:
                under_way = pool.submit(post, client, body)
                assert held.inside.wait(30)
                other = pool.submit(post, client, body)
                assert waiting.wait(30)
                # it waits for the write lock, which the first has
                assert not other.done()
            finally:
                held.go_on.set()
            first, second = under_way.result(30), other.result(30)
    finally:
        event.remove(registry.database.engine, "checkout", comes)
    assert is_new(first)
    assert_repeated(second, first)
    assert made(registry) == (1, 1, 1)


# -- tried again by ourselves -------------------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize(
    ("key", "table"), [("key-1", "orders"), ("key-1", "notifications"), ("key-1", "idempotency_keys"), (None, "orders")]
)
@pytest.mark.parametrize("when", ["statement", "commit"])
def test_a_collision_is_tried_again_and_answered_once(client, registry, failing, body, when, key, table):
    attempts = failing(when, 1, table=table)
    first = post(client, body, key)
    assert attempts() == 2
    assert is_new(first)
    assert [item["id"] for item in client.get(ORDERS).json] == [first.json["id"]]
    assert made(registry) == (1, 1, 0 if key is None else 1)
    if key is not None:
        assert_repeated(post(client, body, key), first)
        assert attempts() == 2


@on_postgresql
@pytest.mark.parametrize("key", ["key-1", None])
@pytest.mark.parametrize("when", ["statement", "commit"])
def test_collisions_without_end_are_told_and_nothing_is_done(client, registry, failing, body, when, key):
    attempts = failing(when, 100, table="orders")
    refused = post(client, body, key)
    assert_problem(refused, 503, "unavailable")
    assert refused.headers["Retry-After"]
    assert "Location" not in refused.headers
    assert attempts() > 1
    assert made(registry) == (0, 0, 0)
    with registry.database.transaction() as session:
        session.execute(text("DROP FUNCTION conflict CASCADE"))
    assert is_new(post(client, body, key))
    assert made(registry) == (1, 1, 0 if key is None else 1)

"""What another does between two statements of one request."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select

import factories
from customer_orders import db, keyset
from customer_orders.api import idempotency
from customer_orders.api.idempotency import IdempotencyKey
from customer_orders.customers.models import Customer
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from test_lists import pages

# On SQLite a request that writes shuts every other writer out.
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


def test_a_page_of_a_search_is_one_moment(client, registry, monkeypatch, between):
    monkeypatch.setattr(keyset, "SCANNED", 5)
    ids = [factories.customer(client)["id"] for _ in range(12)][::-1]

    def add():
        columns = [column for column in Customer.__table__.c if column.name not in ("id", "reference")]
        with registry.database.transaction() as session:
            three = select(*columns).limit(3)
            session.execute(insert(Customer.__table__).from_select([column.name for column in columns], three))

    # after it was found where the search of this page ends
    done = between(add, "JOIN", "customers")
    found = [one for page in pages(client, "/api/customers/?q=customer&limit=200") for one in page]
    assert done
    assert [one for one in found if one in ids] == ids


def test_an_order_is_shown_with_the_customer_of_the_same_moment(client, registry, between):
    customer = factories.customer(client)
    factories.order(client, customer=customer["id"])

    def remove():
        with registry.database.transaction() as session:
            for table in (Notification, Order, Customer):
                session.execute(delete(table))

    done = between(remove, "FROM customers", "IN (")
    assert client.get("/api/orders/?expand=customer").json[0]["customer"] == customer
    assert done
    assert client.get("/api/orders/").json == []


@on_postgresql
def test_a_repeat_that_ends_between_look_and_lock_is_the_only_one(client, between):
    body = {"item": "Tea", "amount": 1, "customer": factories.customer(client)["id"]}
    headers = {"Idempotency-Key": "1"}
    faster = []
    between(
        lambda: faster.append(client.post_json("/api/orders/", body, headers=headers, status=201)),
        "pg_try_advisory_xact_lock",
    )
    slower = client.post_json("/api/orders/", body, headers=headers, status=201)
    assert slower.body == faster[0].body
    assert "Idempotent-Replayed" not in faster[0].headers
    assert slower.headers["Idempotent-Replayed"] == "true"
    assert len(client.get("/api/orders/").json) == 1


@on_postgresql
def test_a_reference_that_is_free_again_is_taken_at_the_next_try(client, registry, between):
    body = {"username": "Jane", "phone_number": "0713812939", "reference": "A-1"}
    first = client.post_json("/api/customers/", body, status=201).json["id"]

    def remove():
        with registry.database.transaction() as session:
            session.execute(delete(Customer))

    # after the reference was found taken, before it was asked by whom
    done = between(remove, "SELECT customers.id", "reference")
    assert client.post_json("/api/customers/", body, status=201).json["id"] > first
    assert done


@on_postgresql
def test_of_two_who_sweep_neither_waits(client, registry):
    with registry.database.transaction() as session:
        row = {"principal": "1", "operation": "POST /", "fingerprint": "0", "status": 201, "headers": {}}
        row["expires_at"] = db.now(session) - timedelta(days=1)
        session.execute(insert(IdempotencyKey), [{**row, "key": str(key)} for key in range(2 * idempotency.SWEPT)])
    first, second, swept = registry.database.session(), registry.database.session(), []
    with first, second:
        assert idempotency.sweep(first) == idempotency.SWEPT
        other = threading.Thread(target=lambda: swept.append(idempotency.sweep(second)))
        other.start()
        other.join(30)
        assert swept == [idempotency.SWEPT]
        first.commit()
        second.commit()
    with registry.database.session() as session:
        assert session.scalars(select(IdempotencyKey)).all() == []

"""What grows with the order book: bytes on disk, and the time of what is done all day.

One order is placed by a request and delivered; all others are its copies, a year of them, in every table that it left
a row in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
from ground import Ground, milliseconds, table
from messages import queue
from sqlalchemy import insert, select, update
from webtest import TestApp

from customer_orders import db, retention
from customer_orders.audit.models import AuditEntry
from customer_orders.auth.services import local_user
from customer_orders.customers.models import Customer
from customer_orders.keyset import Wanted
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt
from customer_orders.orders import services
from customer_orders.orders.models import Order

# The k-th order is this much younger than the one before: a year's worth is a million.
APART = "interval '31.536 seconds'"
# What of a copy is its own; everything else is as in the original. {n}: how many copies there are in the end.
WHEN = f"now() - interval '365 days' + g * {APART}"
OWN = {
    Customer: {"id": "g", "phone_number": "'+2547' || lpad(g::text, 8, '0')"},
    Order: {"id": "g", "customer_id": "1 + g % greatest({n} / 10, 1)", "created_at": WHEN, "updated_at": WHEN},
    Notification: {
        "id": "g",
        "order_id": "g",
        "customer_id": "1 + g % greatest({n} / 10, 1)",
        "recipient": "'+2547' || lpad((1 + g % greatest({n} / 10, 1))::text, 8, '0')",
        "reference": "'ATXid_' || md5(g::text)",
        "request_id": "md5(g::text)",
        **dict.fromkeys(("created_at", "updated_at", "sent_at", "delivered_at"), WHEN),
    },
    NotificationAttempt: {
        "id": "g",
        "notification_id": "g",
        "reference": "'ATXid_' || md5(g::text)",
        **dict.fromkeys(("started_at", "finished_at"), WHEN),
    },
    DeliveryReport: {
        "id": "g",
        "notification_id": "g",
        "reference": "'ATXid_' || md5(g::text)",
        "received_at": WHEN,
    },
    AuditEntry: {"id": "g", "subject_id": "g", "request_id": "md5(g::text)", "created_at": WHEN},
}


def run(ground: Ground) -> None:
    """Fill the book, size by size, and measure at each."""
    _original(ground)
    most = ground.sizes.rows[-1]
    with ThreadPoolExecutor(2) as pool:
        have = 0
        times: list[list[Any]] = []
        for number, rows in enumerate(ground.sizes.rows, 1):
            began = time.perf_counter()
            list(pool.map(lambda model, have=have, rows=rows: _copy(ground, model, have, rows, most), OWN))  # type: ignore[misc]
            ground.postgres.ask("VACUUM ANALYZE")
            ground.postgres.ask("CHECKPOINT")
            print(f"\n{rows:,} orders, in {time.perf_counter() - began:.0f} s", flush=True)
            have = rows
            times.append([f"{rows:,}", *_times(ground, rows, number)])
    bytes_of(ground, most)
    head = ["orders", "insert", "newest 50", "a customer's 10", "claim 64", "prune a day", "prune nothing", "count(*)"]
    table("Time by the size of the book, milliseconds (median)", head, times)


def _original(ground: Ground) -> None:
    """Place an order by a request, and have it delivered."""
    registry = ground.registry
    with registry.database.transaction() as session:
        user = local_user(session, "clerk@shop.example", "clerk").id
        now = db.now(session)
        person = {"username": "Wanjiku Kamau", "phone_number": "+254712345678", "created_at": now, "updated_at": now}
        session.execute(insert(Customer), [person])
    token = registry.access_tokens.create_token(str(user))
    asked = {"item": "Chai, 500 g", "amount": 125000, "customer": 1}
    TestApp(ground.app).post_json("/api/orders/", asked, headers={"Authorization": f"Bearer {token}"}, status=201)
    for number in registry.outbox.due(10):
        registry.outbox.deliver(number)
    with registry.database.transaction() as session:
        sent = session.scalars(select(Notification).where(Notification.order_id == 1)).one()
        if sent.status != "sent":
            raise SystemExit(f"the message is {sent.status}: {sent.reason}")
        told = {"notifier": "gateway", "reference": "first", "status": "delivered", "notification_id": sent.id}
        session.execute(insert(DeliveryReport), [{**told, "received_at": db.now(session)}])
        session.execute(
            update(Notification).values(status="delivered", delivered_at=sent.sent_at, reference="ATXid_first")
        )


def _copy(ground: Ground, model: Any, have: int, rows: int, most: int) -> None:
    name = model.__tablename__
    if model is Customer:
        have, rows = have // 10, max(1, rows // 10)
    own = {column: value.format(n=rows if model is Customer else most) for column, value in OWN[model].items()}
    columns = [column.name for column in model.__table__.columns]
    quoted = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(own.get(column, f'o."{column}"') for column in columns)
    which = "subject_kind = 'order'" if model is AuditEntry else "true"
    with psycopg.connect(ground.postgres.plain, autocommit=True) as connection:
        # no foreign key is looked up: a million times five of them take longer than all else
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        first = f"(SELECT * FROM {name} WHERE {which} ORDER BY id LIMIT 1)"
        ids = f"generate_series({max(have, 1) + 1}, {rows})"
        connection.execute(
            f"INSERT INTO {name} ({quoted}) SELECT {values} FROM {first} o, {ids} g ON CONFLICT DO NOTHING"
        )  # type: ignore[arg-type]
        connection.execute(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))")  # type: ignore[arg-type]


def _times(ground: Ground, rows: int, number: int) -> list[float]:
    database, repeats = ground.registry.database, ground.sizes.repeats

    def place() -> None:
        with database.transaction() as session:
            asked = {"item": "Chai, 500 g", "amount": 125000, "customer": 1}
            services.create_order(session, asked, currency="KES")

    def page(**filters: Any) -> Callable[[], None]:
        def read() -> None:
            with database.transaction(writes=False) as session:
                services.list_orders(session, Wanted(50, filters=filters))

        return read

    def claim() -> None:
        ground.registry.outbox.release(ground.registry.outbox.claim(64))

    def count() -> None:
        ground.postgres.ask("SELECT count(*) FROM orders")

    told = [milliseconds(place, repeats), milliseconds(page(), repeats), milliseconds(page(customer=7), repeats)]
    with database.transaction() as session:
        queue(session, 500)
    told.append(milliseconds(claim, max(1, repeats // 6)))
    settings = ground.registry.sections["retention"]
    # by then the copies of another day were kept for long enough
    database.clock_offset = timedelta(days=number)
    told += [
        milliseconds(lambda: retention.prune(database, settings, lambda _: None, dry_run=False), 1) for _ in range(2)
    ]
    database.clock_offset = timedelta()
    return [*told, milliseconds(count, 3)]


def bytes_of(ground: Ground, rows: int) -> None:
    """Bytes that an order takes, table by table."""
    told: list[list[Any]] = []
    for model in OWN:
        name = model.__tablename__
        heap, whole = (
            ground.postgres.ask(f"SELECT {size}('{name}')") for size in ("pg_table_size", "pg_total_relation_size")
        )
        told.append([name, heap / rows, (whole - heap) / rows, whole / rows])
    total = sum(row[3] for row in told)
    told.append(["all", *(sum(row[column] for row in told) for column in (1, 2, 3))])
    table("Bytes of an order that is placed and whose message is delivered", ["table", "rows", "indexes", "all"], told)
    year = total * 86400 * 365 / 1e9
    table("Gigabytes a year", ["orders a second", "GB a year"], [[rate, rate * year] for rate in (1, 10, 100)])

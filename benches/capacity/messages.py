"""Messages: how many a second N worker processes deliver from one outbox, and the CPU of each."""

from __future__ import annotations

import time
from typing import Any

from ground import Ground, Meter, table, workers
from provider import PHONE
from sqlalchemy import func, insert, select

from customer_orders import db
from customer_orders.notifications.models import Notification

# Messages that each process sends at a time; the provider takes 50 ms for each.
CONCURRENCY = 16


def run(ground: Ground) -> None:
    """By each number of processes."""
    head = [
        "worker processes",
        "messages a second",
        "each",
        "worker ms",
        "PostgreSQL ms",
        "of a worker's core /s",
        "of PostgreSQL's /s",
    ]
    rows = []
    for number, concurrency in [*((number, CONCURRENCY) for number in ground.sizes.workers), (1, 4 * CONCURRENCY)]:
        with workers(ground, number, concurrency) as pids:
            rate, spent = emptied(ground, pids)
        ours, theirs = (1000 * spent[name] / ground.sizes.messages for name in ("workers", "db"))
        told = [f"{number}, concurrency {concurrency}", rate, rate / number, ours, theirs]
        rows.append([*told, *(1000 / each if each else 0.0 for each in (ours, theirs))])
    table("Messages: one outbox, N worker processes, a provider that takes 50 ms", head, rows)


def emptied(ground: Ground, pids: list[int]) -> tuple[float, dict[str, float]]:
    """Messages a second from when they are there until the last is recorded, and CPU seconds meanwhile."""
    database = ground.registry.database
    going = select(Notification.id).where(Notification.status.in_(("queued", "sending"))).limit(1)
    with database.transaction() as session:
        last = session.scalar(select(func.max(Notification.id))) or 0
        queue(session, ground.sizes.messages)
    meter = Meter(workers=pids, db=[ground.postgres.pid])
    began = time.perf_counter()
    ground.postgres.ask("NOTIFY customer_orders_outbox")
    working, took = True, 0.0
    while working:
        with database.transaction(writes=False) as session:
            working = session.scalar(going) is not None
        took = time.perf_counter() - began
        if took > 120:
            raise SystemExit("the outbox is not empty after two minutes")
        # each look costs PostgreSQL some of its time
        time.sleep(0.05 if working else 0)
    spent = meter.read()
    with database.transaction(writes=False) as session:
        sent = session.scalar(select(func.count()).where(Notification.id > last, Notification.status == "sent"))
    if sent != ground.sizes.messages:
        raise SystemExit(f"only {sent} of {ground.sizes.messages} messages were sent")
    return ground.sizes.messages / took, spent


def queue(session: Any, messages: int) -> None:
    """Put messages into the outbox."""
    # what requests left there before is none of ours
    session.execute(
        Notification.__table__.update()
        .where(Notification.status.in_(("queued", "sending")))
        .values(status="cancelled", next_attempt_at=None)
    )
    now = db.now(session)
    row: dict[str, Any] = {"event": "order_placed", "channel": "sms", "recipient": PHONE, "text": "Hello"}
    row |= {"status": "queued", "attempts": 0, "next_attempt_at": now, "created_at": now, "updated_at": now}
    session.execute(insert(Notification), [row] * messages)

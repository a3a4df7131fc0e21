"""The restore drill: backups are taken while orders are placed, restored by docs/backups.md, and used.

``DRILL=full`` (``make restore-drill``) has thousands of orders, and tells figures as it goes.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from webtest import AppError, TestApp

import factories
from conftest import STAGE, settings_for
from customer_orders import main, migrations
from customer_orders.auth import sessions
from customer_orders.auth.services import local_user
from customer_orders.interfaces import Rejected, Unavailable, Uncertain
from customer_orders.notifications.models import Notification
from customer_orders.notifications.worker import Worker
from customer_orders.settings import section
from customer_orders.tables import Base
from inis import write_ini
from serving import BIN, ROOT, unmeasured, wait_for

FULL = os.environ.get("DRILL") == "full"
CUSTOMERS, ORDERS = (200, 2000) if FULL else (10, 60)
PAGE = ROOT / "docs" / "backups.md"
ROLE = "orders_app"
# Nobody in a drill waits for long.
TIMEOUT = pytest.mark.timeout(1200 if FULL else 120)

pytestmark = [TIMEOUT, pytest.mark.processes]


def say(what: str, **figures: object) -> None:
    """A line of progress, seen with ``-s``."""
    print(f"  {what}", *(f"{name}={value}" for name, value in figures.items()), flush=True)


@contextmanager
def timed(what: str):
    """Says how long the block took."""
    began = time.monotonic()
    yield
    say(what, seconds=f"{time.monotonic() - began:.2f}")


def block(heading: str) -> str:
    """The commands that the page has under a heading."""
    section_of_page = re.split(r"(?m)^#+ ", PAGE.read_text().partition(f" {heading}\n")[2])[0]
    return "\n".join(line.strip() for line in section_of_page.splitlines() if line.startswith("    "))


def run(commands: str, folder: Path, programs: str = "", **environ: str) -> str:
    """Run what the page says, in a folder. ``programs``: where those of PostgreSQL are."""
    assert commands
    path = os.pathsep.join(filter(None, [programs, str(BIN), os.environ["PATH"]]))
    modules = os.pathsep.join(filter(None, [STAGE, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        # where the plugin is that tests script
        env={**unmeasured(), "PYTHONWARNINGS": "ignore", "PATH": path, "PYTHONPATH": modules, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Shop:
    """The real application on a database, and all that it does."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self.app = main({}, **settings_for(url, **{"jwt.private_key": key}))
        self.registry = self.app.registry
        self.engine = self.registry.database.engine
        self.notifier = self.registry.plugins.notifiers["scripted"]

    def client(self) -> TestApp:
        """One that is signed in as an admin."""
        with self.registry.database.transaction() as session:
            user_id = local_user(session, "owner@shop.example", "admin").id
        made = TestApp(self.app)
        made.authorization = ("Bearer", self.registry.access_tokens.create_token(str(user_id)))
        return made

    def fill(self) -> None:
        """Rows in every table, in every state."""
        chance, client = random.Random(1), self.client()
        with self.registry.database.transaction() as session:
            for number in range(20):
                user = local_user(session, f"clerk-{number}@shop.example", "clerk")
                session.flush()
                sessions.begin(session, user.id, self.registry.sections["auth"])
        client.post_json("/api/api-keys/", {"name": "Till", "role": "clerk"}, status=201)
        customers = [factories.customer(client)["id"] for _ in range(CUSTOMERS)]
        for number in range(ORDERS):
            body = {"item": f"Tea {number}", "amount": number, "customer": chance.choice(customers)}
            client.post_json("/api/orders/", body, headers={"Idempotency-Key": f"k-{number}"}, status=201)
        # never so many failures in a row that the notifier pauses
        outcomes = cycle([None, Uncertain("no answer"), None, Rejected("not a number"), None, Unavailable("busy")])
        for notification_id in self.registry.outbox.due(ORDERS * 3 // 4):
            self.notifier.script.append(next(outcomes))
            self.registry.outbox.deliver(notification_id)
        secret = section(self.registry, "notifications").report_secrets[0]
        for first in range(1, ORDERS // 3, 20):
            told = [{"reference": f"scripted-{first + n}", "status": "delivered"} for n in range(20)]
            TestApp(self.app).post_json(f"/api/notifications/reports/scripted/{secret}", told, status=200)
        # a process that holds some when the backup is taken
        assert len(self.registry.outbox.claim(5)) == 5

    def end(self) -> None:
        """Let go of the database."""
        self.registry.dispatcher.stop()
        self.notifier.reset()
        self.engine.dispose()


@contextmanager
def placing_orders(shop: Shop):
    """Orders are placed, two at a time, for the block; yields their ids, each once it is committed."""
    placed: list[int] = []
    failed: list[Exception] = []
    over = threading.Event()
    clients = [shop.client() for _ in range(2)]
    customer = factories.customer(clients[0])["id"]

    def place(client: TestApp) -> None:
        try:
            while not over.is_set():
                placed.append(factories.order(client, customer=customer)["id"])
        except AppError as error:
            failed.append(error)

    threads = [threading.Thread(target=place, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(placed) > 5, "orders are placed")
        yield placed
        more = len(placed)
        wait_for(lambda: len(placed) > more or failed, "orders go on being placed")
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert failed == []


@pytest.fixture
def shops(tmp_path):
    """Makes shops: ``shops(url)``; all have one key."""
    made, key = [], secrets.token_urlsafe(64)

    def make(url: str) -> Shop:
        made.append(Shop(url, key))
        return made[-1]

    yield make
    for one in made:
        one.end()


def ini_of(shop: Shop, folder: Path) -> str:
    """An INI without a database, which the page's variable names."""
    settings = settings_for("", **{"jwt.private_key": shop.key})
    del settings["sqlalchemy.url"]
    return write_ini(folder / "orders.ini", settings)


def in_flight(shop: Shop) -> list[int]:
    with shop.registry.database.transaction(writes=False) as session:
        found = session.query(Notification.id).filter(Notification.status.in_(["queued", "sending"]))
        return [one.id for one in found.order_by(Notification.id)]


def sends_only_what_is_new(shop: Shop, doubted: list[int]) -> None:
    """A worker runs, long after, and an order is placed: its message is the only one that goes out."""
    assert doubted
    shop.notifier.reset()
    worker = Worker(shop.registry.outbox, 2, 3600)
    worker.start()
    try:
        client = shop.client()
        order = factories.order(client)
        worker.wake()
        path = f"/api/orders/{order['id']}"
        wait_for(lambda: client.get(path).json["notification"]["status"] == "sent", "the new message is sent")
        shop.registry.outbox.sweep()
    finally:
        worker.stop()
    assert [one.key for one in shop.notifier.sent] == [f"notification-{order['notification']['id']}"]
    with shop.registry.database.transaction(writes=False) as session:
        told = session.query(Notification.status, Notification.reason).filter(Notification.id.in_(doubted))
        assert set(told) == {("unknown", "restored")}


def works(shop: Shop, highest: int) -> None:
    """The application is ready, reads what there is, and goes on."""
    assert TestApp(shop.app).get("/readyz").json["checks"] == {"database": "ok", "migrations": "ok"}
    client = shop.client()
    (first,) = client.get("/api/orders/?ordering=id&limit=1").json
    changed = client.patch_json(f"/api/orders/{first['id']}", {"item": "Coffee"}).json
    assert changed["item"] == "Coffee"
    assert client.get("/api/audit/").json[0]["action"] == "order.changed"
    # beyond what was placed between the backup and its restoration
    assert factories.order(client)["id"] > highest
    with pytest.raises(DBAPIError, match=r"permission denied|only grows"), shop.engine.begin() as connection:
        connection.execute(text("UPDATE audit_entries SET action = 'x'"))


# -- PostgreSQL ---------------------------------------------------------------------------------------------------


@contextmanager
def connected(url):
    """An engine for the block."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


# What else a dump has to hold.
DEFINED = {
    "(constraints)": "SELECT concat(conrelid::regclass, conname, pg_get_constraintdef(oid)) AS one FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "(indexes)": "SELECT indexdef AS one FROM pg_indexes WHERE schemaname = 'public'",
}


def checksums(connection) -> dict[str, tuple[int, str]]:
    """Rows and a checksum of all of their values, by table; and the same of what is defined."""
    connection.execute(text("SET LOCAL TimeZone = 'UTC'"))
    found = {name: f"SELECT t::text AS one FROM {name} t" for name in [*Base.metadata.tables, "alembic_version"]}  # noqa: S608
    sums = {}
    for name, rows in sorted({**found, **DEFINED}.items()):
        total = f"SELECT count(*), md5(string_agg(md5(one), '' ORDER BY one)) FROM ({rows}) found"  # noqa: S608
        sums[name] = tuple(connection.execute(text(total)).one())
    return sums


def test_a_dump_of_postgresql_is_restored_and_used(new_database, shops, tmp_path):
    url = new_database("postgresql", migrated=True)
    shop = shops(url)
    with timed(f"filled: {CUSTOMERS} customers, {ORDERS} orders"):
        shop.fill()
    with shop.engine.connect() as connection:
        # of the server's own version
        programs = connection.execute(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'")).scalar_one()
    plain = make_url(url).set(drivername="postgresql")
    source = plain.render_as_string(hide_password=False)
    name = f"restored_{secrets.token_hex(4)}"
    target = plain.set(database=name).render_as_string(hide_password=False)
    with placing_orders(shop) as placed:
        # the very moment that the dump is of
        with connected(url) as engine, engine.connect().execution_options(isolation_level="REPEATABLE READ") as moment:
            snapshot = moment.execute(text("SELECT pg_export_snapshot()")).scalar_one()
            expected = checksums(moment)
            before = len(placed)
            with timed("dumped"):
                dump = block("A dump of PostgreSQL").replace("pg_dump ", f"pg_dump --snapshot={snapshot} ", 1)
                run(dump, tmp_path, programs, ORDERS=source)
        wait_for(lambda: len(placed) > before, "orders are placed since the snapshot")
    size = (tmp_path / "orders.dump").stat().st_size
    say("the dump", bytes=size, rows=sum(count for count, _ in expected.values()), placed_since=len(placed) - before)
    highest = max(placed)

    with shop.engine.begin() as connection:
        connection.execute(text(f"DROP ROLE IF EXISTS {ROLE}"))
        connection.execute(text(f"CREATE ROLE {ROLE} LOGIN"))
    lines = block("PostgreSQL, step by step").replace("orders_restored", name).splitlines()
    before_use = next(number for number, line in enumerate(lines) if line.startswith("psql"))
    environ = {"ORDERS": source, "RESTORED": target, "INI": ini_of(shop, tmp_path)}
    with timed("restored"):
        run("\n".join(lines[:before_use]), tmp_path, programs, **environ)
    restored = make_url(url).set(database=name)
    with connected(restored) as engine, engine.begin() as connection:
        assert checksums(connection) == expected
        assert migrations.current(connection) == migrations.head()
        counts = {table: count for table, (count, _) in expected.items()}
        # each table was put to the test
        assert min(counts.values()) > 0
    for table, count in counts.items():
        say("same as at that moment:", table=table, rows=count)
    with timed("made fit"):
        said = run("\n".join(lines[before_use:]), tmp_path, programs, **environ)
    say(said.replace("\n", "; "))

    used = shops(restored.set(username=ROLE).render_as_string(hide_password=False))
    run(block("Verifying"), tmp_path, INI=environ["INI"], SQLALCHEMY_URL=restored.render_as_string(False))
    doubted = re.search(r"may have been sent since the backup: (\d+)", said)
    with used.registry.database.transaction(writes=False) as session:
        ids = [one.id for one in session.query(Notification.id).filter_by(reason="restored", attempts=0)]
    assert in_flight(used) == []
    assert int(doubted[1]) >= len(ids) >= 1
    works(used, highest)
    # what works() placed
    for left in in_flight(used):
        used.registry.outbox.deliver(left)
    sends_only_what_is_new(used, ids)
    used.end()
    with connected(url) as engine, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE "{name}"'))
    with shop.engine.begin() as connection:
        connection.execute(text(f"DROP ROLE {ROLE}"))


# -- SQLite -------------------------------------------------------------------------------------------------------


def rows_up_to(file: Path, last: dict[str, int]) -> dict[str, list[tuple]]:
    """What only grows: the audit trail, and orders that nobody changes, up to an id."""
    connection = sqlite3.connect(file)
    found = {
        table: connection.execute(f"SELECT * FROM {table} WHERE id <= ? ORDER BY id", (number,)).fetchall()  # noqa: S608
        for table, number in last.items()
    }
    connection.close()
    return found


def test_a_copy_of_sqlite_is_restored_and_used(new_database, shops, tmp_path):
    url = new_database("sqlite", migrated=True)
    file, copy = Path(make_url(url).database), tmp_path / "orders-backup.sqlite"
    shop = shops(url)
    with timed(f"filled: {CUSTOMERS} customers, {ORDERS} orders"):
        shop.fill()
    command = block("A copy of SQLite")
    with placing_orders(shop) as placed:
        before = set(placed)
        with timed("copied"):
            if shutil.which("sqlite3"):
                run(command, tmp_path, DATABASE=str(file))
            else:
                connection = sqlite3.connect(file)
                connection.execute(
                    re.search('"(VACUUM INTO .*)"', command)[1].replace("orders-", f"{tmp_path}/orders-")
                )
                connection.close()
        after = len(placed)
        wait_for(lambda: len(placed) > after, "orders are placed since the copy")
        highest = max(placed)
    say("the copy", bytes=copy.stat().st_size)

    connection = sqlite3.connect(copy)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    last = {
        table: connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("orders", "audit_entries")
    }
    # of one moment: each order has its message and its entry, and there is neither without
    for table, column, more in (("notifications", "order_id", ""), ("audit_entries", "subject_id", "order.placed")):
        which = f" WHERE action = '{more}'" if more else ""
        told = {row[0] for row in connection.execute(f"SELECT {column} FROM {table}{which}")}  # noqa: S608
        assert told == {row[0] for row in connection.execute("SELECT id FROM orders")}
    connection.close()
    assert before <= set(range(1, last["orders"] + 1))
    assert last["orders"] < highest
    assert rows_up_to(copy, last) == rows_up_to(file, last)

    restored = tmp_path / "restored.sqlite"
    environ = {"RESTORED": str(restored), "INI": ini_of(shop, tmp_path)}
    with timed("restored and made fit"):
        say(run(block("SQLite, step by step"), tmp_path, **environ).replace("\n", "; "))
    used = shops(f"sqlite:///{restored}")
    with used.registry.database.transaction(writes=False) as session:
        ids = [one.id for one in session.query(Notification.id).filter_by(reason="restored", attempts=0)]
    assert in_flight(used) == []
    works(used, highest)
    for left in in_flight(used):
        used.registry.outbox.deliver(left)
    sends_only_what_is_new(used, ids)

"""SQLite and PostgreSQL behave alike: reading, writing, at once, and what time it is."""

from __future__ import annotations

import logging
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import Engine, delete, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

import databases
import factories
from conftest import settings_for
from customer_orders import db, main
from customer_orders.api.fields import Metadata
from customer_orders.customers.models import Customer
from customer_orders.db import Database
from customer_orders.events import OrderPlaced
from customer_orders.interfaces import Cost, Receipt
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from customer_orders.settings import section

# For what only one of them can do.
on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def listen(registry):
    """Adds a listener for orders placed, for one test; it is heard last."""
    listeners = registry.database.listeners[OrderPlaced]
    before = list(listeners)
    yield listeners.append
    listeners[:] = before


def customer_row(**fields):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Customer(
        **{
            "username": "Amina",
            "phone_number": "+254700000001",
            "extra": {},
            "sms_opt_out": False,
            "created_at": now,
            "updated_at": now,
            **fields,
        }
    )


# -- reading and writing ------------------------------------------------------------------------------------------


def test_a_session_that_reads_cannot_write(registry, client):
    customer = factories.customer(client)
    with (
        pytest.raises(DBAPIError, match=r"read-?only"),
        registry.database.transaction(writes=False) as session,
    ):
        session.get(Customer, customer["id"]).username = "Changed"
    assert client.get(f"/api/customers/{customer['id']}").json["username"] == customer["username"]


def test_a_connection_that_read_can_write_again(registry, client):
    # more often than the pool has connections
    for _ in range(section(registry, "sqlalchemy").pool_size + 1):
        with registry.database.transaction(writes=False) as session:
            session.scalars(select(Customer)).all()
        factories.customer(client)
    assert len(client.get("/api/customers/").json) == section(registry, "sqlalchemy").pool_size + 1


def test_reading_waits_for_no_writer_and_sees_what_is_committed(registry, client):
    customer = factories.customer(client)
    with registry.database.transaction() as writer:
        writer.get(Customer, customer["id"]).username = "Changed"
        writer.flush()
        # the writer's transaction is open, and on SQLite holds the only write lock
        for path in ("/api/customers/", f"/api/customers/{customer['id']}", "/api/orders/", "/readyz"):
            client.get(path, status=200)
        assert client.get(f"/api/customers/{customer['id']}").json["username"] == customer["username"]
    assert client.get(f"/api/customers/{customer['id']}").json["username"] == "Changed"


def test_a_reading_request_keeps_no_writer_waiting(registry, client):
    customer = factories.customer(client)
    with registry.database.transaction(writes=False) as reader:
        assert reader.get(Customer, customer["id"]).username == customer["username"]
        client.patch_json(f"/api/customers/{customer['id']}", {"username": "Changed"}, status=200)
        # one reading transaction of SQLite sees one state; READ COMMITTED may see the next
        reader.expire_all()
        assert reader.get(Customer, customer["id"]).username in (customer["username"], "Changed")


@pytest.fixture
def as_deployed():
    """The tests' own haste left out."""
    event.remove(Engine, "connect", databases.do_not_sync)
    yield
    event.listen(Engine, "connect", databases.do_not_sync)


def test_sqlite_is_set_up_to_lose_nothing(new_database, as_deployed):
    app = main({}, **settings_for(new_database("sqlite")))
    with app.registry.database.transaction(writes=False) as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == 10_000
        # nothing here turns the disk's own promise off
        assert session.scalar(text("PRAGMA synchronous")) in (1, 2)
    app.registry.database.engine.dispose()


def test_eight_threads_of_updates_lose_nothing(registry, client):
    order = factories.order(client, amount=0)
    together = threading.Barrier(8)

    def add(_):
        together.wait(30)
        for _ in range(25):
            with registry.database.transaction() as session:
                found = session.get(Order, order["id"], with_for_update=True)
                found.amount = found.amount + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert client.get(f"/api/orders/{order['id']}").json["amount"] == 8 * 25


def test_eight_threads_of_requests_lose_nothing(client):
    customer = factories.customer(client)
    path = f"/api/customers/{customer['id']}"
    together = threading.Barrier(8)

    def merge(thread):
        together.wait(30)
        for number in range(5):
            client.patch_json(path, {"metadata": {f"key-{thread}-{number}": "here"}}, status=200)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(merge, range(8)))
    assert len(client.get(path).json["metadata"]) == 40


def test_foreign_keys_hold(client, registry):
    customer = factories.customer(client)
    factories.order(client, customer=customer["id"])
    with registry.database.session() as session, pytest.raises(IntegrityError):
        session.execute(delete(Customer))


@pytest.mark.parametrize("kind", ["customers", "orders"])
def test_an_id_is_never_used_again(client, kind):
    make = factories.customer if kind == "customers" else factories.order
    first = make(client)["id"]
    client.delete(f"/api/{kind}/{first}", status=204)
    assert make(client)["id"] > first


# -- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 29, 0, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 29, 3, 0, tzinfo=timezone(timedelta(hours=3))),
        datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_a_time_comes_back_as_it_was_in_utc(registry, moment):
    with registry.database.transaction() as session:
        session.add(written := customer_row(created_at=moment))
        session.flush()
        customer_id = written.id
    with registry.database.transaction(writes=False) as session:
        read = session.get(Customer, customer_id).created_at
        assert session.scalar(select(Customer.id).where(Customer.created_at == moment)) == customer_id
    assert read == moment
    assert read.utcoffset() == timedelta()


def test_a_time_that_is_not_there_stays_so(registry, client):
    factories.order(client)
    with registry.database.transaction() as session:
        row = session.scalars(select(Notification)).one()
        row.next_attempt_at = None
    with registry.database.transaction(writes=False) as session:
        assert session.scalars(select(Notification)).one().next_attempt_at is None


@pytest.mark.parametrize("amount", ["0.0001", "0.8000", "9999999999.9999", "0.0000"])
def test_four_places_come_back_as_they_were(registry, client, notifier, deliver, amount):
    order = factories.order(client)
    notifier.script.append(Receipt("reference", Cost(Decimal(amount), "KES")))
    deliver()
    with registry.database.transaction(writes=False) as session:
        assert session.scalars(select(Notification)).one().cost_amount == Decimal(amount)
    assert client.get(f"/api/orders/{order['id']}").json["notification"]["cost"]["amount"] == amount


def test_now_is_the_time_of_the_database_and_can_be_moved_for_tests(registry):
    with registry.database.transaction(writes=False) as session:
        first = db.now(session)
        assert first.utcoffset() == timedelta()
        assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
        registry.database.clock_offset = timedelta(days=400)
        moved = db.now(session)
    assert timedelta(days=400) <= moved - first < timedelta(days=400, minutes=1)


def test_time_goes_on_within_a_transaction(registry):
    with registry.database.transaction(writes=False) as session:
        moments = [db.now(session) for _ in range(3)]
        assert moments == sorted(moments)
        # CURRENT_TIMESTAMP of PostgreSQL would stand still
        assert moments[0] < moments[-1]


@pytest.mark.parametrize(
    ("old", "changes", "new"),
    [
        ({}, {"a": "1"}, {"a": "1"}),
        ({"a": "1", "b": "2"}, {"b": "3", "c": "4"}, {"a": "1", "b": "3", "c": "4"}),
        ({"a": "1", "b": "2"}, {"a": None, "z": None}, {"b": "2"}),
        ({"a": "1"}, {}, {"a": "1"}),
        ({"a": "1"}, None, {}),
    ],
)
def test_metadata_is_merged(old, changes, new):
    before = dict(old)
    assert Metadata.changed(old, changes) == new
    assert old == before


# -- transactions -------------------------------------------------------------------------------------------------


def test_after_a_commit_hooks_are_called_once(registry):
    called = []
    with registry.database.session() as session:
        session.add(customer_row())
        db.after_commit(session, lambda: called.append("first"))
        db.after_commit(session, lambda: called.append("second"))
        session.flush()
        assert called == []
        session.commit()
        assert called == ["first", "second"]
        session.add(customer_row())
        session.commit()
    assert called == ["first", "second"]


def test_a_hook_may_be_left_before_the_first_statement(registry):
    called = []
    with registry.database.session() as session:
        db.after_commit(session, lambda: called.append("here"))
        session.commit()
    assert called == ["here"]


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_after_a_rollback_hooks_are_forgotten(registry, end):
    called = []
    with registry.database.session() as session:
        session.add(customer_row())
        session.flush()
        db.after_commit(session, lambda: called.append("never"))
        getattr(session, end)()
        session.add(customer_row())
        session.commit()
    assert called == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_savepoint_is_not_the_commit_that_hooks_wait_for(registry, end):
    called = []
    with registry.database.session() as session:
        session.add(customer_row())
        db.after_commit(session, lambda: called.append("here"))
        with session.begin_nested():
            session.add(customer_row())
        assert called == []
        getattr(session, end)()
        assert called == (["here"] if end == "commit" else [])
        with session.begin_nested():
            session.add(customer_row())
        session.commit()
    assert called == (["here"] if end == "commit" else [])


def test_a_listener_that_raises_rolls_everything_back(client, registry, listen):
    customer = factories.customer(client)

    def fail(session, event):
        session.execute(text("UPDATE customers SET username = 'Changed'"))
        raise RuntimeError("a listener is defective")

    listen(fail)
    answer = client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer["id"]}, status=500)
    assert answer.json["code"] == "internal-error"
    assert client.get("/api/orders/").json == []
    assert client.get(f"/api/customers/{customer['id']}").json["username"] == customer["username"]
    with registry.database.transaction(writes=False) as session:
        assert session.scalars(select(Notification)).all() == []


def test_what_a_listener_writes_is_committed_with_the_order(client, listen):
    customer = factories.customer(client)

    def rename(session, event):
        session.get(Customer, event.customer.id).username = f"Bought {event.order.item}"

    listen(rename)
    factories.order(client, customer=customer["id"])
    assert client.get(f"/api/customers/{customer['id']}").json["username"] == "Bought Tea"


@on_postgresql
def test_a_serialization_failure_is_tried_again(client, registry, listen):
    customer = factories.customer(client)
    tries = []

    def fail_once(session, event):
        tries.append(event)
        if len(tries) == 1:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'collision' USING ERRCODE = '40001'; END $$"))

    listen(fail_once)
    factories.order(client, customer=customer["id"])
    assert len(tries) == 2
    assert len(client.get("/api/orders/").json) == 1


@on_postgresql
def test_a_serialization_failure_at_commit_is_tried_again(client, registry):
    with registry.database.transaction() as session:
        # nextval is not rolled back, so only the first commit fails
        session.execute(text("CREATE SEQUENCE commits"))
        session.execute(
            text(
                "CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF nextval('commits') = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF; "
                "RETURN NULL; END $$"
            )
        )
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER fail_once AFTER INSERT ON customers DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION fail_once()"
            )
        )
    try:
        factories.customer(client)
        assert len(client.get("/api/customers/").json) == 1
        with registry.database.transaction(writes=False) as session:
            assert session.scalar(text("SELECT last_value FROM commits")) == 2
    finally:
        with registry.database.transaction() as session:
            session.execute(text("DROP TRIGGER fail_once ON customers"))
            session.execute(text("DROP FUNCTION fail_once"))
            session.execute(text("DROP SEQUENCE commits"))


@on_postgresql
def test_a_connection_that_the_server_ended_is_replaced(client, registry):
    customer = factories.customer(client)
    with registry.database.transaction() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
        )
    client.get(f"/api/customers/{customer['id']}", status=200)


@on_sqlite
def test_a_writer_that_waits_too_long_gets_a_503(client, registry, monkeypatch):
    monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT", 1)
    registry.database.engine.dispose()
    customer = factories.customer(client)
    with registry.database.transaction() as session:
        # SQLite's only write lock is held from the first statement, though it only reads
        session.scalars(select(Customer.id)).all()
        answer = client.patch_json(f"/api/customers/{customer['id']}", {"username": "Changed"}, expect_errors=True)
    registry.database.engine.dispose()
    assert answer.status_int == 503
    assert answer.json["code"] == "unavailable"
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    "statement",
    [
        # a column that must not be null: PostgreSQL quotes the whole row
        "INSERT INTO customers (username, phone_number) VALUES (:username, :phone)",
        "INSERT INTO customers (username) SELECT :username FROM nowhere WHERE :phone = ''",
    ],
)
def test_a_statement_that_fails_puts_no_value_into_the_log(client, listen, caplog, statement):
    customer = factories.customer(client)
    values = {"username": "Secretive", "phone": "+254799999999"}
    listen(lambda session, event: session.execute(text(statement), values))
    answer = client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer["id"]}, status="5*")
    assert "INSERT INTO customers" in caplog.text
    assert not [value for value in values.values() if value in caplog.text + answer.text]


def test_statements_may_be_logged_and_no_value_is(client, deliver, caplog):
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    person = {"username": "A name like no other", "phone_number": "+254713812939", "reference": "ref-4711"}
    customer = factories.customer(client, **person)
    factories.order(client, customer=customer["id"])
    assert deliver() == 1
    assert client.get("/api/customers/").json == [customer]
    assert "INSERT INTO customers" in caplog.text
    assert not [value for value in person.values() if value in caplog.text]


@pytest.fixture
def altered(registry):
    """Runs a statement for one test, and its opposite in the end: ``altered(change, back)``."""
    backs = []

    def run(statement):
        # a connection of SQLite renames by the columns that it knew before
        registry.database.engine.dispose()
        with registry.database.transaction() as session:
            session.execute(text(statement))

    def change(statement, back):
        run(statement)
        backs.append(back)

    yield change
    for back in backs:
        run(back)


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER TABLE customers RENAME TO gone", "ALTER TABLE gone RENAME TO customers"),
        (
            "ALTER TABLE customers RENAME COLUMN language TO gone",
            "ALTER TABLE customers RENAME COLUMN gone TO language",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_schema_that_is_missing_or_old_is_told_to_the_operator(client, altered, caplog, change, back, method):
    altered(change, back)
    body = {"username": "Amina", "phone_number": "+254700000001"}
    answer = (
        client.get("/api/customers/", status=503)
        if method == "GET"
        else client.post_json("/api/customers/", body, status=503)
    )
    assert (answer.json["code"], answer.json["detail"]) == ("unavailable", "The database is not ready.")
    assert "customer-orders db upgrade" in caplog.text
    assert "does not answer" not in caplog.text


@on_sqlite
def test_a_sqlite_file_that_nobody_may_write_is_a_defect_and_not_away(client, listen, caplog):
    customer = factories.customer(client)

    def forbid(session, event):
        session.execute(text("PRAGMA query_only=ON"))
        session.execute(text("UPDATE customers SET username = 'Changed'"))

    listen(forbid)
    answer = client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer["id"]}, status=500)
    assert answer.json["code"] == "internal-error"
    assert "unexpected error" in caplog.text


# -- the file -----------------------------------------------------------------------------------------------------


def database(url):
    return Database(SimpleNamespace(url=url, pool_size=1, max_overflow=0, pool_timeout=1))


def test_the_folder_of_a_sqlite_file_is_made(tmp_path):
    made = database(f"sqlite:///{tmp_path}/some/where/orders.sqlite")
    db.make_folder(made)
    db.make_folder(made)
    assert (tmp_path / "some" / "where").is_dir()
    with made.transaction(writes=False) as session:
        assert session.scalar(text("SELECT 1")) == 1
    made.engine.dispose()


def test_a_new_file_that_another_is_opening_is_waited_for(tmp_path, monkeypatch):
    path, waits = f"{tmp_path}/orders.sqlite", []
    other = sqlite3.connect(path, isolation_level=None)
    for statement in ("CREATE TABLE new (id INTEGER)", "BEGIN", "SELECT * FROM new"):
        other.execute(statement).fetchall()

    def wait(seconds):
        waits.append(seconds)
        other.execute("ROLLBACK")

    # time stands still
    monkeypatch.setattr(db, "time", SimpleNamespace(monotonic=lambda: 0, sleep=wait))
    monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT", 1)
    made = database(f"sqlite:///{path}")
    with made.transaction() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    assert len(waits) == 1
    made.engine.dispose()
    other.close()


def test_a_new_file_that_another_keeps_is_unreachable(tmp_path, monkeypatch):
    path = f"{tmp_path}/orders.sqlite"
    other = sqlite3.connect(path, isolation_level=None)
    for statement in ("CREATE TABLE new (id INTEGER)", "BEGIN", "SELECT * FROM new"):
        other.execute(statement).fetchall()
    monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT", 1)
    made = database(f"sqlite:///{path}")
    with pytest.raises(OperationalError) as error, made.transaction() as session:
        session.connection()
    assert db.is_unreachable(error.value)
    made.engine.dispose()
    other.close()


def test_nothing_is_made_for_a_server():
    db.make_folder(database("postgresql+psycopg://127.0.0.1:1/orders"))


def test_a_server_that_is_not_there_is_unreachable_and_no_defect():
    away = database("postgresql+psycopg://127.0.0.1:1/orders")
    with pytest.raises(OperationalError) as error, away.transaction() as session:
        session.connection()
    assert db.is_unreachable(error.value)
    assert not db.lacks_schema(error.value)
    assert not db.is_unreachable(ValueError("a defect"))
    assert not db.lacks_schema(ValueError("a defect"))


def test_a_file_that_cannot_be_opened_is_unreachable(tmp_path):
    away = database(f"sqlite:///{tmp_path}/no/such/folder/orders.sqlite")
    with pytest.raises(OperationalError) as error, away.transaction() as session:
        session.connection()
    assert db.is_unreachable(error.value)


def test_a_connection_that_comes_back_to_a_pool_that_is_over_is_closed(make_app, database_kind):
    engine = make_app(database_kind).registry.database.engine
    connection = engine.connect()
    connection.execute(text("SELECT 1"))
    driver = connection.connection.driver_connection
    engine.dispose()
    connection.close()
    with pytest.raises((psycopg.OperationalError, sqlite3.ProgrammingError)):
        driver.execute("SELECT 1")
    # and others are had as before
    with engine.connect() as another:
        assert another.execute(text("SELECT 1")).scalar_one() == 1
    assert engine.pool.checkedout() == 0

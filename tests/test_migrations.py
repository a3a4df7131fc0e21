"""The migrations, on both databases."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from conftest import settings_for
from customer_orders import main, migrations
from customer_orders.tables import Base


@pytest.fixture
def start(new_database, database_kind):
    """Makes an application on an empty database; on the given one if told."""
    started = []

    def make(url=None):
        started.append(main({}, **settings_for(url or new_database(database_kind))))
        return started[-1].registry.database.engine

    yield make
    for app in started:
        app.registry.database.engine.dispose()


def tables(engine):
    return set(inspect(engine).get_table_names())


def revision(engine):
    with engine.connect() as connection:
        return migrations.current(connection)


def test_the_migrations_make_what_the_models_say(start):
    engine = start()
    migrations.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert tables(engine) == {*Base.metadata.tables, "alembic_version"}


def test_constraints_that_a_comparison_does_not_see_are_those_of_the_models(start):
    engine = start()
    migrations.upgrade(engine)
    for name, table in Base.metadata.tables.items():
        known = inspect(engine)
        declared = {str(one.name) for one in table.constraints if type(one).__name__ == "CheckConstraint"}
        assert {one["name"] for one in known.get_check_constraints(name)} == declared
        actions = {one["name"]: one["options"].get("ondelete") for one in known.get_foreign_keys(name)}
        assert actions == {one.name: one.ondelete for one in table.foreign_key_constraints}


def test_an_id_is_never_used_twice(start):
    engine = start()
    migrations.upgrade(engine)
    insert = text("INSERT INTO users (email, name, disabled, created_at, updated_at) VALUES ('', '', :no, :at, :at)")
    given = {"no": False, "at": "2030-01-01 00:00:00+00:00"}
    ids = []
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(insert, given)
            ids.append(connection.execute(text("SELECT max(id) FROM users")).scalar_one())
            connection.execute(text("DELETE FROM users"))
    assert ids == [1, 2]


def test_upgrading_twice_changes_nothing(start):
    engine = start()
    assert revision(engine) is None
    migrations.upgrade(engine)
    before = tables(engine)
    migrations.upgrade(engine)
    assert revision(engine) == migrations.head()
    assert tables(engine) == before


def test_down_to_nothing_and_up_again(start):
    engine = start()
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO users (email, name, disabled, created_at, updated_at) VALUES ('', '', :no, :at, :at)"),
            {"no": False, "at": "2030-01-01 00:00:00+00:00"},
        )
    migrations.downgrade(engine, "base")
    assert tables(engine) == {"alembic_version"}
    assert revision(engine) is None
    migrations.upgrade(engine)
    assert tables(engine) == {*Base.metadata.tables, "alembic_version"}


def test_of_several_upgrades_at_once_the_others_wait(start):
    engines = [start()]
    engines += [start(engines[0].url.render_as_string(hide_password=False)) for _ in range(3)]
    together = threading.Barrier(len(engines))
    failed = []

    def upgrade(engine):
        together.wait(30)
        try:
            migrations.upgrade(engine)
        except DBAPIError as error:
            failed.append(error)

    threads = [threading.Thread(target=upgrade, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert revision(engines[0]) == migrations.head()


def test_a_migration_that_fails_leaves_nothing_behind(start):
    engine = start()
    with engine.begin() as connection:
        # in the way of the migration, after it has made other tables
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
    with pytest.raises(DBAPIError, match="orders"):
        migrations.upgrade(engine)
    assert tables(engine) == {"orders"}
    assert revision(engine) is None
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE orders"))
    migrations.upgrade(engine)
    assert revision(engine) == migrations.head()


# -- from one to the next ----------------------------------------------------------------------------------------


def insert_orders(engine, *references):
    """Orders of one customer, as the first migration knows them."""
    given = {"no": False, "at": "2030-01-01 00:00:00+00:00"}
    customer = (
        "INSERT INTO customers (username, phone_number, metadata, sms_opt_out, created_at, updated_at) "
        "VALUES ('Amina', '+254700000001', '{}', :no, :at, :at)"
    )
    order = (
        "INSERT INTO orders (customer_id, item, amount, currency, status, reference, metadata, created_at, updated_at) "
        "VALUES (1, 'Tea', 1, 'KES', 'placed', :reference, '{}', :at, :at)"
    )
    with engine.begin() as connection:
        connection.execute(text(customer), given)
        for reference in references:
            connection.execute(text(order), {**given, "reference": reference})


def test_what_was_there_before_versions_begins_at_one(start):
    engine = start()
    migrations.upgrade(engine, "0001")
    insert_orders(engine, None, None, "A-1")
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM orders")).scalars().all() == [1, 1, 1]


def test_references_given_twice_are_told_and_nothing_is_migrated(start):
    engine = start()
    migrations.upgrade(engine, "0001")
    insert_orders(engine, "A-1", "A-2", "A-1", None, None)
    with pytest.raises(RuntimeError, match=r"orders 1 and 3.*PATCH"):
        migrations.upgrade(engine)
    assert revision(engine) == "0001"
    with engine.begin() as connection:
        connection.execute(text("UPDATE orders SET reference = 'A-3' WHERE id = 3"))
    migrations.upgrade(engine)
    assert revision(engine) == migrations.head()


def test_a_message_knows_whom_it_was_for_and_when_it_was_sent(start):
    engine = start()
    migrations.upgrade(engine, "0002")
    insert_orders(engine, None)
    insert = text(
        "INSERT INTO notifications (order_id, event, channel, recipient, text, status, attempts, created_at, "
        "updated_at) VALUES (:order, 'order_placed', 'sms', '+254700000001', 'Thank you', :status, 1, :at, :at)"
    )
    at = "2030-01-01 00:00:00+00:00"
    with engine.begin() as connection:
        for order, status in ((1, "sent"), (1, "queued"), (None, "unknown")):
            connection.execute(insert, {"order": order, "status": status, "at": at})
    migrations.upgrade(engine)
    notifications = Base.metadata.tables["notifications"].c
    read = select(notifications.customer_id, notifications.sent_at == notifications.updated_at, notifications.unburned)
    with engine.connect() as connection:
        told = connection.execute(read.order_by(notifications.id)).all()
    assert told == [(1, True, 0), (1, None, 0), (None, True, 0)]


def test_who_was_anonymized_has_an_empty_number_on_the_way_back(start):
    engine = start()
    migrations.upgrade(engine, "0005")
    insert_orders(engine, "A-1")
    migrations.upgrade(engine, "0007")
    with engine.begin() as connection:
        connection.execute(text("UPDATE customers SET phone_number = NULL, anonymized_at = updated_at"))
    migrations.downgrade(engine, "0005")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT username, phone_number FROM customers")).one() == ("Amina", "")
        assert connection.execute(text("SELECT customer_id, reference FROM orders")).one() == (1, "A-1")
    for table, column in (("customers", "phone_number"), ("notifications", "recipient")):
        assert [one["nullable"] for one in inspect(engine).get_columns(table) if one["name"] == column] == [False]
    migrations.upgrade(engine)
    assert revision(engine) == migrations.head()


def test_the_audit_trail_goes_with_its_migration_and_comes_back_empty(populated):
    migrations.downgrade(populated, "0004")
    assert "audit_entries" not in tables(populated)
    migrations.upgrade(populated, LAST)
    with populated.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_entries")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar_one() == 1


# -- the next ones ------------------------------------------------------------------------------------------------

LAST = migrations.head()

REBUILD = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "next", "LAST"


def upgrade():
    for name in ("users", "customers", "orders", "notifications"):
        # on SQLite: a new table in the place of the old
        with op.batch_alter_table(name, table_kwargs={"sqlite_autoincrement": True}) as batch:
            batch.alter_column("created_at", existing_type=sa.DateTime(timezone=True), nullable=True)


def downgrade():
    op.execute("DELETE FROM customers")
"""


@pytest.fixture
def next_migration(monkeypatch, tmp_path):
    """A migration after those that there are, which changes every table that others refer to."""
    (tmp_path / "next.py").write_text(REBUILD.replace("LAST", LAST))
    plain = migrations._config

    def config():
        made = plain()
        ours = Path(migrations.__file__).parent / "versions"
        made.set_main_option("version_locations", os.pathsep.join([str(ours), str(tmp_path)]))
        return made

    monkeypatch.setattr(migrations, "_config", config)


@pytest.fixture
def populated(start, next_migration):
    """A database before that migration, with rows that refer to one another."""
    engine = start()
    migrations.upgrade(engine, LAST)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    times = {"created_at": at, "updated_at": at}
    rows = {
        "users": {"email": "jane@shop.example", "name": "Jane", "disabled": False, **times},
        "external_identities": {"user_id": 1, "provider": "google", "subject": "1", "created_at": at},
        "refresh_families": {"user_id": 1, "created_at": at, "used_at": at, "expires_at": at},
        "refresh_tokens": {"user_id": 1, "family_id": 1, "token_hash": "0", "created_at": at, "expires_at": at},
        "api_keys": {"name": "Till", "role": "clerk", "secret_hash": "0", "created_by": 1, **times},
        "customers": {"username": "Amina", "phone_number": "+254700000001", "sms_opt_out": False, **times},
        "orders": {"customer_id": 1, "item": "Tea", "amount": 1, "currency": "KES", "status": "placed", **times},
        "notifications": {
            "order_id": 1,
            "customer_id": 1,
            "event": "order_placed",
            "channel": "sms",
            "recipient": "+254700000001",
            "text": "Thank you",
            "status": "sent",
            "attempts": 1,
            **times,
        },
        "idempotency_keys": {
            "principal": "1",
            "operation": "POST /api/orders/",
            "key": "1",
            "fingerprint": "0",
            "status": 201,
            "headers": {},
            "body": "{}",
            "expires_at": at,
        },
        "notification_attempts": {
            "notification_id": 1,
            "number": 1,
            "lease_owner": "x",
            "notifier": "scripted",
            "started_at": at,
        },
        "delivery_reports": {
            "notifier": "scripted",
            "reference": "1",
            "status": "delivered",
            "notification_id": 1,
            "received_at": at,
        },
        "audit_entries": {"created_at": at, "action": "order.placed", "subject_kind": "order", "fields": []},
        "channels": {"notifier": "scripted", "failures": 0, "pauses": 0, "updated_at": at},
    }
    with engine.begin() as connection:
        for name, row in rows.items():
            table = Base.metadata.tables[name]
            connection.execute(table.insert(), row | ({"metadata": {}} if "metadata" in table.c else {}))
    return engine


def contents(engine):
    with engine.connect() as connection:
        return {name: connection.execute(select(table)).all() for name, table in Base.metadata.tables.items()}


def keys_hold(engine):
    """Whether a row may not refer to what is not there, on the connection that a migration used."""
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text("UPDATE orders SET customer_id = 999999"))
    return True


def test_a_migration_that_rebuilds_tables_loses_nothing(populated):
    before = contents(populated)
    assert {len(rows) for rows in before.values()} == {1}
    migrations.upgrade(populated)
    assert revision(populated) == "next"
    columns = inspect(populated).get_columns("notifications")
    assert [one["nullable"] for one in columns if one["name"] == "created_at"] == [True]
    assert contents(populated) == before
    assert keys_hold(populated)


def test_a_migration_that_leaves_rows_without_what_they_refer_to_changes_nothing(populated, database_kind):
    migrations.upgrade(populated)
    before = contents(populated)
    error, told = {"sqlite": (RuntimeError, "rows of notifications, orders"), "postgresql": (IntegrityError, "orders")}[
        database_kind
    ]
    with pytest.raises(error, match=told):
        migrations.downgrade(populated, LAST)
    assert revision(populated) == "next"
    assert contents(populated) == before
    assert keys_hold(populated)


# -- each step down and up again ----------------------------------------------------------------------------------


def multiply(engine, times):
    """Doubles the customers, orders, messages and attempts, ``times`` times."""
    with engine.begin() as connection:
        for name in ("customers", "orders", "notifications", "notification_attempts"):
            columns = ", ".join(column.name for column in Base.metadata.tables[name].columns if column.name != "id")
            for _ in range(times):
                # no reference is set, so none is given twice
                connection.execute(text(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {name}"))  # noqa: S608


def as_it_is(engine):
    """The rows of every table as they are, by column; no model has to know it."""
    found = {}
    with engine.connect() as connection:
        for name in tables(engine) - {"alembic_version"}:
            rows = connection.execute(text(f"SELECT * FROM {name} ORDER BY 1"))  # noqa: S608
            names, values = list(rows.keys()), rows.all()
            found[name] = {column: [row[number] for row in values] for number, column in enumerate(names)}
    return found


def test_each_step_down_and_up_again_keeps_all_that_both_sides_can_hold(populated):
    multiply(populated, 10)
    script = ScriptDirectory.from_config(migrations._config())
    steps = [one for one in script.walk_revisions() if one.revision != "next" and one.down_revision]
    assert steps[0].revision == LAST
    for step in steps:
        above = as_it_is(populated)
        assert len(above["orders"]["id"]) == 1024
        migrations.downgrade(populated, step.down_revision)
        below = as_it_is(populated)
        for name, columns in below.items():
            for column, values in columns.items():
                if name in above and column in above[name]:
                    assert values == above[name][column], (step.revision, name, column)
        migrations.upgrade(populated, step.revision)
        again = as_it_is(populated)
        assert {name: set(columns) for name, columns in again.items()} == {
            name: set(columns) for name, columns in above.items()
        }
        for name, columns in below.items():
            for column, values in columns.items():
                if column in again[name]:
                    assert again[name][column] == values, (step.revision, name, column)
        if step.revision == "0005":
            # what it makes of what there is: each token that is good has a family of its own
            assert again["refresh_tokens"]["family_id"] == again["refresh_tokens"]["id"]
        assert keys_hold(populated)
        # for the next
        migrations.downgrade(populated, step.down_revision)
    assert revision(populated) == "0001"
    migrations.upgrade(populated, LAST)
    assert len(as_it_is(populated)["notification_attempts"]["id"]) == 1024

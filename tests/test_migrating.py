"""Migrating while others use the database: whom it waits for, for how long, and what is true if it dies."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, inspect, text
from webtest import TestApp

import factories
import inis
from conftest import settings_for
from customer_orders import main as application
from customer_orders import migrations
from customer_orders.cli import main
from customer_orders.migrations import steps
from customer_orders.migrations.locks import LOCK, Blocked, Patience
from serving import ROOT, unmeasured, wait_for

BEFORE = "0005"


@pytest.fixture
def write_ini(tmp_path):
    """Writes an INI for the database of a URL and tells its path."""

    return lambda url, **more: inis.write_ini(tmp_path / "orders.ini", settings_for(url, **more))


@pytest.fixture
def url(new_database):
    """A PostgreSQL database some migrations before the one that alters a table which others use."""
    made = new_database("postgresql")
    engine = create_engine(made)
    migrations.upgrade(engine, BEFORE)
    engine.dispose()
    return made


@pytest.fixture
def engine(url):
    made = create_engine(url)
    yield made
    made.dispose()


@contextmanager
def reading(engine):
    """Somebody's transaction that read the customers, and goes on; its session's id."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET application_name = 'a forgotten console'"))
        connection.execute(text("SELECT count(*) FROM customers"))
        yield connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


def revision(engine):
    with engine.connect() as connection:
        return migrations.current(connection)


def columns(engine):
    return {one["name"] for one in inspect(engine).get_columns("customers")}


# -- in the way ---------------------------------------------------------------------------------------------------


def test_a_migration_gives_way_says_for_whom_and_changes_nothing(engine):
    before, said = columns(engine), []
    with reading(engine) as pid, pytest.raises(Blocked) as told:
        migrations.upgrade(engine, patience=Patience(1, 2), tell=said.append)
    assert (revision(engine), columns(engine)) == (BEFORE, before)
    who = rf"pid {pid} \(\w+, a forgotten console, idle in transaction since 20\d\d-.* UTC\) was in the way"
    (line,) = said
    assert re.match(f"Try 1 of 2: {who}, so it gives way; the next try is in 1 s", line)
    assert re.search(who, str(told.value))
    assert f"SELECT pg_terminate_backend({pid})" in str(told.value)
    assert "migrations.lock_timeout" in str(told.value)
    # neither does it keep what it held
    migrations.upgrade(engine, patience=Patience(1, 1))
    assert revision(engine) == migrations.head()


def test_it_succeeds_once_they_are_gone(engine):
    done = threading.Event()
    with reading(engine):
        said = []

        def tell(line):
            said.append(line)
            done.set()

        thread = threading.Thread(target=migrations.upgrade, args=(engine, "head", Patience(1, 60), tell))
        thread.start()
        assert done.wait(60)
        assert revision(engine) == BEFORE
    thread.join(60)
    assert said
    assert revision(engine) == migrations.head()


def test_requests_are_served_while_a_migration_cannot_go_on(new_database, client_of, next_migration):
    app = application({}, **settings_for(new_database("postgresql", migrated=True)))
    next_migration("op.add_column('customers', sa.Column('later', sa.Integer()))")
    client, other = client_of(app), create_engine(app.registry.database.url)
    customer = factories.customer(client)["id"]
    happened, over = [], threading.Event()

    def place_orders():
        while not over.is_set():
            happened.append(factories.order(client, customer=customer)["id"])

    asking = threading.Thread(target=place_orders)
    asking.start()
    try:
        with reading(other), pytest.raises(Blocked):
            migrations.upgrade(other, patience=Patience(1, 3), tell=happened.append)
    finally:
        over.set()
        asking.join(60)
    TestApp(app).get("/readyz", status=200)
    migrations.upgrade(other)
    assert "later" in columns(other)
    # the processes of the version before go on
    TestApp(app).get("/readyz", status=200)
    factories.order(client, customer=customer)
    app.registry.database.engine.dispose()
    other.dispose()
    told = [number for number, one in enumerate(happened) if isinstance(one, str)]
    assert len(told) == 2
    # requests had their turn between two tries
    assert told[1] - told[0] > 5


def test_the_command_says_who_is_in_the_way_and_exits_with_1(url, engine, write_ini):
    ini = write_ini(url, **{"migrations.lock_timeout": "1", "migrations.attempts": "2"})
    with reading(engine) as pid:
        done = CliRunner().invoke(main, ["db", "upgrade", "-c", ini])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Try 1 of 2: pid {pid} " in done.stderr
    assert "Error: The database cannot be upgraded: others held a lock that it needs, and 2 times" in done.stderr
    assert revision(engine) == BEFORE


# -- two at once, and one that dies -------------------------------------------------------------------------------


def test_a_second_one_says_that_it_waits_and_finds_nothing_to_do(engine):
    other, waits, said = create_engine(engine.url), threading.Event(), []

    def tell(line):
        said.append(line)
        waits.set()

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        holder = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        thread = threading.Thread(target=migrations.upgrade, args=(other, "head", Patience(1, 1), tell))
        thread.start()
        assert waits.wait(60)
        assert revision(engine) == BEFORE
        connection.invalidate()
    thread.join(60)
    other.dispose()
    assert said == [f"Another migration of this database runs (pid {holder}); this one waits for its end."]
    assert revision(engine) == migrations.head()


NEXT = """
import sqlalchemy as sa
from alembic import op
from customer_orders.migrations import steps

revision, down_revision = "next", "{last}"


def upgrade():
    {change}


def downgrade():
    pass
"""


@pytest.fixture
def next_migration(monkeypatch, tmp_path):
    """Adds a migration that makes the given change: ``next_migration("op.drop_table('orders')")``; tells its folder."""
    folder = tmp_path / "versions"
    folder.mkdir()
    plain, last = migrations._config, migrations.head()
    # what the code of now knows, it knows without that one
    migrations._known()

    def config():
        made = plain()
        ours = Path(migrations.__file__).parent / "versions"
        made.set_main_option("version_locations", os.pathsep.join([str(ours), str(folder)]))
        return made

    def add(change):
        (folder / "next.py").write_text(NEXT.format(last=last, change=change))
        monkeypatch.setattr(migrations, "_config", config)
        return folder

    return add


# What a process does that migrates with a migration more than there is.
PROCESS = """
import os, sys
from pathlib import Path
from sqlalchemy import create_engine
from customer_orders import main, migrations

plain = migrations._config


def config():
    made = plain()
    ours = Path(migrations.__file__).parent / "versions"
    made.set_main_option("version_locations", os.pathsep.join([str(ours), sys.argv[2]]))
    return made


migrations._config = config
app = main({}, **{
    "app.public_url": "http://127.0.0.1:6543", "sqlalchemy.url": sys.argv[1], "jwt.private_key": sys.stdin.readline()
})
migrations.upgrade(app.registry.database.engine)
"""


def test_one_that_is_killed_in_the_middle_leaves_the_database_as_it_was(new_database, database_kind, next_migration):
    url = new_database(database_kind, migrated=True)
    last = migrations.head()
    folder = next_migration(
        "op.add_column('customers', sa.Column('later', sa.Integer()));"
        "op.execute('DELETE FROM alembic_version');"
        "print('in the middle', flush=True);"
        "__import__('sys').stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=unmeasured() | {"PYTHONWARNINGS": "ignore"},
        text=True,
    )
    process.stdin.write(f"{secrets.token_urlsafe(64)}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "in the middle\n"
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    for pipe in (process.stdin, process.stdout):
        pipe.close()
    app = application({}, **settings_for(url))
    engine = app.registry.database.engine
    assert (revision(engine), "later" in columns(engine)) == (last, False)
    next_migration("op.add_column('customers', sa.Column('later', sa.Integer()))")
    migrations.upgrade(engine)
    assert (revision(engine), "later" in columns(engine)) == ("next", True)
    engine.dispose()


# -- whether there is something to do -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "status", "said"),
    [
        ("0001", 3, "at 0001, and this version needs 0.*run `customer-orders db upgrade`"),
        (None, 0, r"at 0\d+\.$"),
        ("later", 0, "at later, which is newer than this version"),
    ],
)
def test_check_tells_by_its_status_whether_an_upgrade_is_needed(
    new_database, database_kind, write_ini, at, status, said
):
    url = new_database(database_kind, migrated=True)
    if at:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": at})
        engine.dispose()
    done = CliRunner().invoke(main, ["db", "check", "-c", write_ini(url)])
    assert done.exit_code == status
    assert re.search(said, done.stdout)


def test_a_deployment_goes_back_on_a_database_that_is_newer(new_database, database_kind, write_ini):
    url = new_database(database_kind, migrated=True)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    done = CliRunner().invoke(main, ["db", "upgrade", "--or-newer", "-c", write_ini(url)])
    assert (done.exit_code, revision(engine)) == (0, "later")
    assert "at later, which is newer than this version" in done.stderr
    engine.dispose()


def test_a_deployment_upgrades_what_is_not_newer(new_database, database_kind, write_ini):
    url = new_database(database_kind)
    engine = create_engine(url)
    for _ in range(2):
        assert CliRunner().invoke(main, ["db", "upgrade", "--or-newer", "-c", write_ini(url)]).exit_code == 0
        assert revision(engine) == migrations.head()
    engine.dispose()


def test_check_tells_of_an_empty_database_too(new_database, database_kind, write_ini):
    done = CliRunner().invoke(main, ["db", "check", "-c", write_ini(new_database(database_kind))])
    assert done.exit_code == 3
    assert "at nothing" in done.stdout


# -- steps --------------------------------------------------------------------------------------------------------


def test_an_index_is_made_while_others_write(new_database, next_migration, client_of):
    app = application({}, **settings_for(new_database("postgresql", migrated=True)))
    next_migration("steps.create_index('ix_customers_username', 'customers', ['username'])")
    client, other = client_of(app), create_engine(app.registry.database.url)
    with other.connect() as writing:
        # a transaction that wrote, and goes on: with a plain CREATE INDEX nobody else could write meanwhile
        writing.execute(text("UPDATE customers SET language = 'en'"))
        failed = []

        def upgrade():
            try:
                # it waits for longer than it would for a lock that keeps others out
                migrations.upgrade(other, patience=Patience(1, 1))
            except Blocked as error:
                failed.append(error)

        thread = threading.Thread(target=upgrade)
        thread.start()

        def waits():
            with app.registry.database.engine.connect() as connection:
                found = text(
                    "SELECT clock_timestamp() - query_start > '2 s' FROM pg_stat_activity WHERE query LIKE "
                    "'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
                )
                return connection.execute(found).scalar()

        wait_for(waits, "CREATE INDEX CONCURRENTLY waits")
        factories.customer(client)
        writing.commit()
    thread.join(60)
    assert failed == []
    assert [one["name"] for one in inspect(other).get_indexes("customers") if one["name"] == "ix_customers_username"]
    assert revision(other) == "next"
    app.registry.database.engine.dispose()
    other.dispose()


def test_an_index_that_was_left_half_made_is_made_anew(new_database, next_migration, database_kind):
    app = application({}, **settings_for(new_database(database_kind, migrated=True)))
    engine = app.registry.database.engine
    next_migration("steps.create_index('ix_customers_username', 'customers', ['username'])")
    if database_kind == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("CREATE INDEX ix_customers_username ON customers (username)"))
            connection.execute(
                text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_customers_username'::regclass")
            )
    migrations.upgrade(engine)
    with engine.connect() as connection:
        if database_kind == "postgresql":
            valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_customers_username'::regclass")
            assert connection.execute(valid).scalar_one()
    assert [one["name"] for one in inspect(engine).get_indexes("customers") if one["name"] == "ix_customers_username"]
    engine.dispose()


def test_a_step_that_failed_leaves_nobody_waiting_behind_the_next_try(new_database, next_migration, monkeypatch):
    engine = create_engine(new_database("postgresql", migrated=True))
    deadlock = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"
    waits = []

    def lose_the_first_time():
        waits.append(steps.op.get_bind().execute(text("SHOW lock_timeout")).scalar_one())
        with steps.outside_transaction():
            if len(waits) == 1:
                steps.op.execute(deadlock)
        waits.append(steps.op.get_bind().execute(text("SHOW lock_timeout")).scalar_one())

    monkeypatch.setattr(steps, "backfill", lose_the_first_time)
    next_migration("steps.backfill()")
    migrations.upgrade(engine, patience=Patience(1, 2))
    assert waits == ["1s", "1s", "1s"]
    assert revision(engine) == "next"
    engine.dispose()


def test_what_others_write_while_rows_are_filled_stays(new_database, database_kind, next_migration, monkeypatch):
    app = application({}, **settings_for(new_database(database_kind, migrated=True)))
    engine = app.registry.database.engine
    insert = text(
        "INSERT INTO customers (username, phone_number, metadata, sms_opt_out, created_at, updated_at) "
        "VALUES (:name, :number, '{}', :out, :at, :at)"
    )
    with engine.begin() as connection:
        for name, number in (("Amina", "+254700000001"), ("Juma", "+254700000002")):
            row = {"name": name, "number": number, "out": False, "at": "2030-01-01 00:00:00+00:00"}
            connection.execute(insert, row)
    empty = steps._empty

    def interrupted(*args):
        if not (ids := empty(*args)):
            return ids
        # somebody who knows better, between the look and the change
        known = text("UPDATE customers SET language = 'sw' WHERE username = 'Juma'")
        if database_kind == "postgresql":
            with engine.begin() as other:
                other.execute(known)
        else:
            steps.op.get_bind().execute(known)
        return ids

    monkeypatch.setattr(steps, "_empty", interrupted)
    next_migration("steps.backfill('customers', 'language', 'en')")
    migrations.upgrade(engine)
    with engine.connect() as connection:
        told = connection.execute(text("SELECT language FROM customers ORDER BY id")).scalars().all()
    assert told == ["en", "sw"]
    engine.dispose()


def steps_of_the_page():
    """The migrations that docs/migrations.md shows, in their order."""
    page = (ROOT / "docs" / "migrations.md").read_text()
    shown = re.findall(r"(?m)^    def upgrade\(\) -> None:\n((?:        .+\n)+)", page)
    return [textwrap.dedent(one).strip() for one in shown]


def test_the_steps_of_the_page_work_on_a_table_with_rows(new_database, database_kind, next_migration, monkeypatch):
    """Each of them twice: a migration that was ended in the middle begins anew."""
    monkeypatch.setattr(steps, "BATCH", 2)
    app = application({}, **settings_for(new_database(database_kind, migrated=True)))
    engine = app.registry.database.engine
    insert = text(
        "INSERT INTO customers (username, phone_number, metadata, sms_opt_out, created_at, updated_at) "
        "VALUES ('Amina', '+254700000001', '{}', :out, :at, :at)"
    )
    with engine.begin() as connection:
        for out in (True, False, False, True, False):
            connection.execute(insert, {"out": out, "at": "2030-01-01 00:00:00+00:00"})
    shown = steps_of_the_page()
    assert len(shown) == 4
    last = migrations.head()
    for change in shown:
        next_migration(change)
        if "set_not_null" in change and database_kind == "postgresql":
            with engine.begin() as connection:
                # what one that was ended in the middle left
                name = "customers_tier_not_null_yet"
                connection.execute(text(f"ALTER TABLE customers ADD CONSTRAINT {name} CHECK (tier = 1) NOT VALID"))
        for _ in range(1 if "op." in change or ("create_index" in change and database_kind == "sqlite") else 2):
            migrations.upgrade(engine)
            with engine.begin() as connection:
                if "add_column" not in change:
                    assert connection.execute(text("SELECT count(*) FROM customers WHERE tier IS NULL")).scalar() == 0
                connection.execute(text("UPDATE alembic_version SET version_num = :last"), {"last": last})
    with engine.connect() as connection:
        tiers = connection.execute(text("SELECT tier FROM customers ORDER BY id")).scalars().all()
    assert tiers == [0, 1, 1, 0, 1]
    (column,) = [one for one in inspect(engine).get_columns("customers") if one["name"] == "tier"]
    assert not column["nullable"]
    assert [one["column_names"] for one in inspect(engine).get_indexes("customers") if "tier" in one["name"]] == [
        ["tier", "id"]
    ]
    assert [one["name"] for one in inspect(engine).get_check_constraints("customers")] == []
    engine.dispose()

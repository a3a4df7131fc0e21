"""The migrations, on both databases."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from conftest import settings_for
from customer_orders import main, migrations
from customer_orders.db import Base


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

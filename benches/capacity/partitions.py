"""Orders in partitions, on tables of their own: by month, as one thinks of first, and by the range of their id.

Ids come from a sequence, so a range of them is a stretch of time too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
from ground import Ground, milliseconds, table

COLUMNS = """
    id bigint NOT NULL, customer_id bigint NOT NULL, item varchar(255) NOT NULL, amount bigint NOT NULL,
    currency varchar(3) NOT NULL, status varchar(16) NOT NULL, reference varchar(255), metadata json NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, version integer NOT NULL
"""
INDEXES = ("customer_id, id", "status, id", "created_at, id", "updated_at, id", "reference")
KEYS = {"none": "PRIMARY KEY (id)", "id": "PRIMARY KEY (id)", "month": "PRIMARY KEY (id, created_at)"}
# The k-th row is of the time k seconds after this one.
START = "timestamptz '2016-01-01Z'"
ROW = "1 + g % 5000, 'Chai, 500 g', 125000, 'KES', 'placed', 'R' || g, '{}', " + f"{START} + g * interval '1 second'"
# a placeholder is what else begins so
INSERT = (
    f"INSERT INTO orders SELECT g, {ROW.replace('%', '%%')}, {START}, 1 FROM generate_series(%s::bigint, %s::bigint) g"
)
NEWEST = "SELECT * FROM orders ORDER BY id DESC LIMIT 51"
BY_TIME = "SELECT * FROM orders ORDER BY created_at DESC, id DESC LIMIT 51"
CUSTOMERS = "SELECT * FROM orders WHERE customer_id = %s ORDER BY id DESC LIMIT 51"
ONE = "SELECT * FROM orders WHERE id = %s"
REFERENCE = "SELECT * FROM orders WHERE reference = %s"

# What one would like to say, and PostgreSQL refuses.
WISHES = {
    "month: `PRIMARY KEY (id)`": f"CREATE TABLE wish ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY RANGE (created_at)",
    "month: `UNIQUE (reference)`": f"CREATE TABLE wish ({COLUMNS}, UNIQUE (reference)) PARTITION BY RANGE (created_at)",
    "month: a foreign key to `orders (id)`": f"CREATE TABLE wish ({COLUMNS}, PRIMARY KEY (id, created_at)) "
    "PARTITION BY RANGE (created_at); CREATE TABLE about (order_id bigint REFERENCES wish (id))",
    "id: `PRIMARY KEY (id)`": f"CREATE TABLE wish ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "id: `UNIQUE (reference)`": f"CREATE TABLE wish ({COLUMNS}, UNIQUE (reference)) PARTITION BY RANGE (id)",
    "id: a foreign key to `orders (id)`": f"CREATE TABLE wish ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY RANGE (id); "
    "CREATE TABLE about (order_id bigint REFERENCES wish (id) ON DELETE SET NULL)",
    "id: a partition gone that a message points to": f"CREATE TABLE wish ({COLUMNS}, PRIMARY KEY (id)) "
    "PARTITION BY RANGE (id); CREATE TABLE old PARTITION OF wish FOR VALUES FROM (1) TO (100); "
    f"CREATE TABLE about (order_id bigint REFERENCES wish (id)); INSERT INTO wish SELECT g, {ROW}, {START}, 1 "
    "FROM generate_series(1, 5) g; INSERT INTO about VALUES (1); ALTER TABLE wish DETACH PARTITION old",
}


def run(ground: Ground) -> None:
    """Insert, read and drop, on one table and on such of several partitions."""
    sizes = ground.sizes
    rows = sizes.each * max(sizes.partitions)
    ground.postgres.ask("CREATE DATABASE partitions")
    url = ground.postgres.plain.replace("/postgres?", "/partitions?")
    told, dropped = [], []
    with psycopg.connect(url, autocommit=True) as connection:
        # what a commit takes is the disk's time, and the same for all
        connection.execute("SET synchronous_commit = off")
        for by in KEYS:
            for parts in sizes.partitions if by != "none" else (1,):
                _make(connection, by, parts, rows)
                told.append(
                    [f"{by}, {parts}" if by != "none" else "not partitioned", *_times(connection, rows, sizes.repeats)]
                )
                if parts == sizes.partitions[1] or by == "none":
                    dropped.append([told[-1][0], *_drop(connection, by, rows // sizes.partitions[1])])
        wishes = [[what, _wished(connection, statement)] for what, statement in WISHES.items()]
        switched = _switch(connection, rows)
    head = [
        "partitioned by",
        "insert",
        "one by id",
        "by reference",
        "newest 50",
        "newest 50 by time",
        "a customer's 50",
    ]
    table(f"Partitions: {rows:,} orders, milliseconds (median), without waiting for the disk", head, told)
    what = f"the oldest {rows // sizes.partitions[1]:,} orders"
    table(f"Partitions: to do away with {what}", ["table", "milliseconds", "MB of WAL"], dropped)
    table("Partitions: the table of now becomes the first one", ["step", "milliseconds"], switched)
    table("Partitions: what PostgreSQL says", ["wish", "answer"], wishes)


def _make(connection: psycopg.Connection[Any], by: str, parts: int, rows: int) -> None:
    connection.execute("DROP TABLE IF EXISTS orders")
    what = {"none": "", "id": "PARTITION BY RANGE (id)", "month": "PARTITION BY RANGE (created_at)"}[by]
    connection.execute(f"CREATE TABLE orders ({COLUMNS}, {KEYS[by]}) {what}")  # type: ignore[arg-type]
    each = rows // parts
    for number in range(parts) if by != "none" else ():
        # the last has room for what is inserted later
        bounds = (number * each + 1, (number + 1) * each + 1 if number < parts - 1 else 10 * rows)
        ends = [str(end) if by == "id" else f"({START} + interval '{end} seconds')" for end in bounds]
        values = f"FOR VALUES FROM ({ends[0]}) TO ({ends[1]})"
        connection.execute(f"CREATE TABLE part_{number} PARTITION OF orders {values}")  # type: ignore[arg-type]
    for columns in INDEXES:
        connection.execute(f"CREATE INDEX ON orders ({columns})")  # type: ignore[arg-type]
    connection.execute(INSERT, (1, rows))
    connection.execute("VACUUM ANALYZE orders")


def _times(connection: psycopg.Connection[Any], rows: int, repeats: int) -> list[float]:
    choose = random.Random(1)  # noqa: S311 - the same for all
    ids = iter(range(rows + 1, 2 * rows))

    def insert() -> None:
        number = next(ids)
        connection.execute(INSERT, (number, number))

    def ask(statement: str, value: Callable[[], Any] | None = None) -> Callable[[], object]:
        return lambda: connection.execute(statement, (value(),) if value else None).fetchall()  # type: ignore[arg-type]

    acts = [
        insert,
        ask(ONE, lambda: choose.randint(1, rows)),
        ask(REFERENCE, lambda: f"R{choose.randint(1, rows)}"),
        ask(NEWEST),
        ask(BY_TIME),
        ask(CUSTOMERS, lambda: choose.randint(1, 5000)),
    ]
    return [milliseconds(act, repeats) for act in acts]


def _drop(connection: psycopg.Connection[Any], by: str, rows: int) -> list[float]:
    before = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    began = time.perf_counter()
    if by == "none":
        connection.execute("DELETE FROM orders WHERE id <= %s", (rows,))
        connection.execute("VACUUM orders")
    else:
        connection.execute("ALTER TABLE orders DETACH PARTITION part_0 CONCURRENTLY")
        connection.execute("DROP TABLE part_0")
    took = (time.perf_counter() - began) * 1000
    written = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", before).fetchone()
    return [took, float(written[0]) / 1e6 if written else 0.0]


def _switch(connection: psycopg.Connection[Any], rows: int) -> list[list[Any]]:
    """Make partitions by id of a table that has rows; everybody else waits for the last step only."""
    _make(connection, "none", 1, rows)
    check = f"ALTER TABLE orders ADD CONSTRAINT old CHECK (id <= {rows}) NOT VALID"
    switch = [
        "ALTER TABLE orders RENAME TO part_0",
        f"CREATE TABLE orders ({COLUMNS}, {KEYS['id']}) PARTITION BY RANGE (id)",
        *(f"CREATE INDEX ON orders ({columns})" for columns in INDEXES),
        f"ALTER TABLE orders ATTACH PARTITION part_0 FOR VALUES FROM (MINVALUE) TO ({rows + 1})",
        f"CREATE TABLE part_1 PARTITION OF orders FOR VALUES FROM ({rows + 1}) TO ({2 * rows})",
    ]
    steps = {
        "`ADD CONSTRAINT ... CHECK (id < ...) NOT VALID`": [check],
        "`VALIDATE CONSTRAINT`, beside all else": ["ALTER TABLE orders VALIDATE CONSTRAINT old"],
        "in one transaction: rename it, make the new one with its indexes, attach": switch,
    }
    told = []
    for what, statements in steps.items():
        began = time.perf_counter()
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]
        told.append([what, (time.perf_counter() - began) * 1000])
    return told


def _wished(connection: psycopg.Connection[Any], statements: str) -> str:
    try:
        with connection.transaction(force_rollback=True):
            for statement in statements.split("; "):
                connection.execute(statement)  # type: ignore[arg-type]
    except psycopg.Error as error:
        return f"no: {error.diag.message_primary}"
    return "yes"

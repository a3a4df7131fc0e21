"""Writing many rows at once: one statement with one parameter where each statement costs a round trip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, JSON, BigInteger, Table, Text, any_, bindparam, cast, column, func, insert, select, update
from sqlalchemy.orm import Session

Rows = Sequence[Mapping[str, Any]]


def insert_rows(session: Session, table: Table, rows: Rows) -> None:
    """Insert rows that name the same columns."""
    if rows and _apart(session):
        session.connection().execute(_insert(table, tuple(rows[0])), {"rows": _json(rows)})
    elif rows:
        session.connection().execute(insert(table), rows)


def update_rows(session: Session, table: Table, rows: Rows) -> None:
    """Change the rows of these ids; each names the same columns."""
    if rows and _apart(session):
        given = {"changes": _json(rows), "ids": [row["id"] for row in rows]}
        session.connection().execute(_update(table, tuple(rows[0])), given)
    elif rows:
        session.connection().execute(_update_one(table, tuple(rows[0])), [{**row, "of": row["id"]} for row in rows])


def change_and_insert(session: Session, changed: Table, changes: Rows, table: Table, rows: Rows) -> None:
    """:func:`update_rows` of one table and :func:`insert_rows` into another, in one round trip."""
    if changes and rows and _apart(session):
        both = _change_and_insert(changed, tuple(changes[0]), table, tuple(rows[0]))
        given = {"changes": _json(changes), "ids": [row["id"] for row in changes], "rows": _json(rows)}
        session.connection().execute(both, given)
    else:
        update_rows(session, changed, changes)
        insert_rows(session, table, rows)


def _apart(session: Session) -> bool:
    """Whether the database is another process, perhaps far away."""
    return session.get_bind().dialect.name == "postgresql"


def _json(rows: Rows) -> str:
    # as PostgreSQL reads them: times with their zone, decimals to the last digit
    return json.dumps(rows, default=str)


@cache
def _insert(table: Table, names: tuple[str, ...]) -> Any:
    return insert(table).from_select(names, select(_rows("rows", table, names)))


@cache
def _change_and_insert(changed: Table, of: tuple[str, ...], table: Table, names: tuple[str, ...]) -> Any:
    # PostgreSQL executes it whether or not anybody looks at it
    return _insert(table, names).add_cte(_update(changed, of).returning(changed.c.id).cte("changed"))


@cache
def _update(table: Table, names: tuple[str, ...]) -> Any:
    rows = _rows("changes", table, names)
    # the ids again: without statistics PostgreSQL thinks of many rows, and reads the whole table
    found = (table.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))) & (table.c.id == rows.c.id)
    return update(table).where(found).values({name: rows.c[name] for name in names if name != "id"})


@cache
def _update_one(table: Table, names: tuple[str, ...]) -> Any:
    changed: dict[str, Any] = {name: bindparam(name) for name in names if name != "id"}
    return update(table).where(table.c.id == bindparam("of")).values(changed)


def _rows(parameter: str, table: Table, names: tuple[str, ...]) -> Any:
    """A parameter as a table."""
    typed = [column(name, table.c[name].type) for name in names]
    given = func.json_to_recordset(cast(bindparam(parameter, type_=Text), JSON))
    return given.table_valued(*typed, name="given").render_derived(with_types=True)

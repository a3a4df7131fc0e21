"""Writing many rows at once: one statement with one parameter where each statement costs a round trip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, JSON, BigInteger, Table, Text, any_, bindparam, cast, column, func, insert, select, update
from sqlalchemy.orm import Session


def insert_rows(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that name the same columns."""
    if rows and _apart(session):
        session.connection().execute(_insert(table, tuple(rows[0])), {"rows": _json(rows)})
    elif rows:
        session.connection().execute(insert(table), rows)


def update_rows(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Change the rows of these ids; each names the same columns."""
    if rows and _apart(session):
        given = {"rows": _json(rows), "ids": [row["id"] for row in rows]}
        session.connection().execute(_update(table, tuple(rows[0])), given)
    elif rows:
        session.connection().execute(_update_one(table, tuple(rows[0])), [{**row, "of": row["id"]} for row in rows])


def _apart(session: Session) -> bool:
    """Whether the database is another process, perhaps far away."""
    return session.get_bind().dialect.name == "postgresql"


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    # as PostgreSQL reads them: times with their zone, decimals to the last digit
    return json.dumps(rows, default=str)


@cache
def _insert(table: Table, names: tuple[str, ...]) -> Any:
    return insert(table).from_select(names, select(_rows(table, names)))


@cache
def _update(table: Table, names: tuple[str, ...]) -> Any:
    rows = _rows(table, names)
    # the ids again: without statistics PostgreSQL thinks of many rows, and reads the whole table
    found = (table.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))) & (table.c.id == rows.c.id)
    return update(table).where(found).values({name: rows.c[name] for name in names if name != "id"})


@cache
def _update_one(table: Table, names: tuple[str, ...]) -> Any:
    changed: dict[str, Any] = {name: bindparam(name) for name in names if name != "id"}
    return update(table).where(table.c.id == bindparam("of")).values(changed)


def _rows(table: Table, names: tuple[str, ...]) -> Any:
    """The parameter ``rows`` as a table."""
    typed = [column(name, table.c[name].type) for name in names]
    given = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
    return given.table_valued(*typed, name="given").render_derived(with_types=True)

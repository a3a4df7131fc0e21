"""What the application's own PostgreSQL role may do: all that it needs, and no more.

The tables belong to another role, which runs the migrations. So whoever gets hold of the application can add to the
audit trail and read it, and can neither change nor shorten it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from customer_orders.tables import Base


def statements(role: str) -> Iterator[str]:
    """The SQL, for the owner of the tables to run in their database; running it again changes nothing."""
    to = quoted(role)
    tables = sorted(Base.metadata.tables)
    yield f"GRANT USAGE ON SCHEMA public TO {to}"
    # what it was given before
    yield f"REVOKE ALL ON {', '.join(map(quoted, [*tables, 'alembic_version']))} FROM {to}"
    for name, may in needed().items():
        yield f"GRANT {', '.join(may)} ON {quoted(name)} TO {to}"
    for sequence in sequences():
        yield f"GRANT USAGE ON SEQUENCE {quoted(sequence)} TO {to}"


def needed() -> dict[str, tuple[str, ...]]:
    """The privileges that the application needs, by table."""
    # to know the version of the schema
    found: dict[str, tuple[str, ...]] = {"alembic_version": ("SELECT",)}
    for name, table in sorted(Base.metadata.tables.items()):
        found[name] = ("SELECT", "INSERT") if _is_trail(table) else ("SELECT", "INSERT", "UPDATE", "DELETE")
    return found


def withheld() -> dict[str, tuple[str, ...]]:
    """The privileges by which it could change what nothing may change, by table."""
    return {name: ("UPDATE", "DELETE", "TRUNCATE") for name, table in Base.metadata.tables.items() if _is_trail(table)}


def _is_trail(table: Table) -> bool:
    return bool(table.info.get("append_only"))


def quoted(name: str) -> str:
    """A name as PostgreSQL's manual has it in section 4.1.1: between double quotes, its own ones twice."""
    return '"{}"'.format(name.replace('"', '""'))


def sequences() -> list[str]:
    """What hands out the ids (bigserial)."""
    columns = [table.autoincrement_column for _, table in sorted(Base.metadata.tables.items())]
    return [f"{column.table.name}_{column.name}_seq" for column in columns if column is not None]

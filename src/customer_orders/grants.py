"""What the application's own PostgreSQL role may do: all that it needs, and no more.

The tables belong to another role, which runs the migrations. So whoever gets hold of the application can add to the
audit trail and read it, and can neither change nor shorten it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from customer_orders.db import Base


def statements(role: str) -> Iterator[str]:
    """The SQL, for the owner of the tables to run in their database; running it again changes nothing."""
    to = _quoted(role)
    tables = sorted(Base.metadata.tables)
    yield f"GRANT USAGE ON SCHEMA public TO {to}"
    # what it was given before
    yield f"REVOKE ALL ON {', '.join(map(_quoted, [*tables, 'alembic_version']))} FROM {to}"
    # to know the version of the schema
    yield f"GRANT SELECT ON alembic_version TO {to}"
    for name in tables:
        table = Base.metadata.tables[name]
        may = "SELECT, INSERT" if table.info.get("append_only") else "SELECT, INSERT, UPDATE, DELETE"
        yield f"GRANT {may} ON {_quoted(name)} TO {to}"
        for sequence in _sequences(table):
            yield f"GRANT USAGE ON SEQUENCE {_quoted(sequence)} TO {to}"


def _quoted(name: str) -> str:
    """A name as PostgreSQL's manual has it in section 4.1.1: between double quotes, its own ones twice."""
    return '"{}"'.format(name.replace('"', '""'))


def _sequences(table: Table) -> list[str]:
    """What hands out the ids of a table (bigserial)."""
    column = table.autoincrement_column
    return [] if column is None else [f"{table.name}_{column.name}_seq"]

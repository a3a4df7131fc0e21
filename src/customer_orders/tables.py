"""What tables are made of: their base, types of columns, keys, metadata and versions; alike on both databases."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, Numeric, String, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from customer_orders.errors import Stale


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which keeps no zone, is given UTC and believed."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FourPlaces(TypeDecorator[Decimal]):
    """A decimal with four places; text on SQLite, which has no decimals."""

    impl = Numeric(14, 4)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String(20) if dialect.name == "sqlite" else Numeric(14, 4))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:.4f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """Every table. Constraints have predictable names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UTCDateTime}
    # Without it SQLite hands the id of a deleted row to the next one.
    __table_args__: Any = {"sqlite_autoincrement": True}


BigInt = BigInteger().with_variant(Integer, "sqlite")


def primary_key() -> Any:
    """An integer id that is never used twice."""
    return mapped_column(BigInt, primary_key=True)


class json_text(FunctionElement[str]):  # noqa: N801 - reads as a function
    """The string that an object in a JSON column has under a key; null if none."""

    type = String()
    inherit_cache = True


@compiles(json_text, "postgresql")
def _json_text_of_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} ->> {key})"


# Not ->>, which would read some keys as paths. It is filled with names of columns and of parameters, never with values.
JSON_TEXT_OF_SQLITE = "(SELECT value FROM json_each({column}) WHERE key = {key})"


@compiles(json_text, "sqlite")
def _json_text_of_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return JSON_TEXT_OF_SQLITE.format(column=column, key=key)


def has_metadata(column: Any, wanted: Mapping[str, str]) -> list[Any]:
    """The criteria for a JSON column that has each of these keys with its value."""
    return [json_text(column, literal(key)) == value for key, value in wanted.items()]


class Versioned:
    """What clients change: each change counts ``version`` up, and a write finds only the version that was read."""

    version: Mapped[int] = mapped_column(default=1, server_default="1")

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - of the class that inherits
        return {"version_id_col": cls.version}


def require_version(found: Any, versions: Collection[int] | None) -> None:
    """Raises ``Stale`` unless what is about to be written is one of ``versions``; None: whichever it is."""
    if versions is not None and found.version not in versions:
        odd = "" if versions else " No version of it was named: a tag that a proxy has weakened (W/) names none."
        raise Stale(f"It is at version {found.version} by now.{odd}")

"""What makes a database cheap enough for each test to have its own: copies of one that is migrated, and no fsync."""

from __future__ import annotations

import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

from customer_orders import migrations


@event.listens_for(Engine, "connect")
def do_not_sync(connection: Any, _record: object) -> None:
    """Nothing here needs to survive a power cut."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF").close()


def migrate(url: str) -> None:
    """Bring a database to the present schema, and leave no connection to it."""
    engine = create_engine(url)
    migrations.upgrade(engine)
    engine.dispose()


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "migrated.sqlite"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()


def migrated_sqlite(folder: Path) -> str:
    """The URL of the database of a folder; a new one has the whole schema, without having walked its migrations."""
    file = folder / "orders.sqlite"
    if not file.exists():
        file.write_bytes(_migrated())
    return f"sqlite:///{file}"

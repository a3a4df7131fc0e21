"""What makes a database cheap enough for each test to have its own: it is a copy of one that is migrated."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine

from customer_orders import migrations


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

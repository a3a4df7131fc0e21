"""The real application with the devtools plugin switched on, on a database of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from customer_orders import main
from databases import migrated_sqlite

HOST = "127.0.0.1:6543"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The file of the simulated phones."""
    return tmp_path / "inbox.jsonl"


@pytest.fixture
def make_app(tmp_path: Path, inbox: Path) -> Iterator[Callable[..., Any]]:
    """Makes an application, by the settings of a laptop and whatever else is told."""
    made = []

    def make(global_config: dict[str, str] | None = None, **more: str) -> Any:
        settings = {
            "app.public_url": f"http://{HOST}",
            "sqlalchemy.url": migrated_sqlite(tmp_path),
            "jwt.private_key": secrets.token_urlsafe(64),
            "auth.default_role": "admin",
            "plugins": "devtools",
            "notifications.sms": "devtools",
            # tests deliver by hand, when they mean to
            "notifications.dispatcher": "worker",
            "devtools.inbox": str(inbox),
            **more,
        }
        app = main(global_config or {}, **settings)
        made.append(app)
        return app

    yield make
    for app in made:
        app.registry.database.engine.dispose()


@pytest.fixture
def app(make_app: Callable[..., Any]) -> Any:
    """The application."""
    return make_app()


@pytest.fixture
def browser(app: Any) -> TestApp:
    """A browser on this machine."""
    return TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": HOST})

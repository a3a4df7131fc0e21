"""The canary run: whatever the tests used that no log may hold, looked for in all that was logged.

A plugin of pytest (``-p canary``, see ``make canary``). In each process of the run it notes every phone number that the
application read, every token that it made or was sent, every code, and every secret of its settings; and writes down
all that is logged, every column that says why, and the metrics. In the end all of these, and the log files of all
servers that the tests started, are searched for all of those.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pyramid.router import Router
from sqlalchemy import String, select

from customer_orders.api.fields import Phone
from customer_orders.auth import api_keys, sessions, sign_in
from customer_orders.auth.tokens import AccessTokens
from customer_orders.metrics.exposing import Scrape
from customer_orders.settings import Sections
from customer_orders.tables import Base

# Letters of a value that are looked for: those of a number as it is dialled within its country.
SIGNIFICANT = 9
# What is shorter than this is a word that a test made up, and stands anywhere.
SHORTEST = 16


def needle(value: str) -> str:
    """The part of a value that gives it away: the last digits of a number, the end of anything else.

    The end, since tokens of one key begin alike.
    """
    return value[-SIGNIFICANT:]


def search(values: Mapping[str, str], files: Iterable[Path]) -> list[str]:
    """Where any of the values is, and of what kind it is; ``values``: what it is, by value."""
    needles = {needle(value): what for value, what in values.items()}
    found = []
    for file in files:
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            starts = range(len(line) - SIGNIFICANT + 1)
            kinds = {needles[part] for at in starts if (part := line[at : at + SIGNIFICANT]) in needles}
            found += [f"{file}:{number}: {kind}" for kind in sorted(kinds)]
    return found


class Canaries:
    """What one process of the run notes and writes down, in a folder that all of them share."""

    def __init__(self, folder: Path) -> None:
        self.values: dict[str, str] = {}
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.log = folder / f"process-{os.getpid()}.log"
        handler = logging.FileHandler(self.log)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)

    def note(self, what: str, value: str | None) -> None:
        """Remember a value."""
        if value and len(value) >= (SIGNIFICANT if what == "phone" else SHORTEST):
            self.values[value] = what

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Note what goes by."""

        def after(owner: Any, name: str, note: Callable[..., None]) -> None:
            plain = getattr(owner, name)

            @functools.wraps(plain)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                result = plain(*args, **kwargs)
                note(result, *args)
                return result

            patch.setattr(owner, name, wrapped)

        after(Phone, "e164", lambda number, *_: self.note("phone", number))
        after(AccessTokens, "create_token", lambda token, *_: self.note("access token", token))
        after(sessions, "begin", lambda begun, *_: self.note("refresh token", begun.token))
        after(sessions, "renew", lambda renewed, *_: self.note("refresh token", renewed and renewed.token))
        after(api_keys, "create", lambda made, *_: self.note("API key", made[1]))
        after(sign_in, "begin", lambda begun, *_: self._begun(begun))
        after(Sections, "add", lambda read, *_: self._settings(read))
        after(Router, "__call__", lambda _, router, environ, *__: self._request(environ))

    def _begun(self, begun: Any) -> None:
        for name in ("state", "nonce", "code_verifier"):
            self.note(name, getattr(begun, name))

    def _settings(self, read: Any) -> None:
        for setting in read:
            if getattr(setting.node, "secret", False):
                several = setting.value if isinstance(setting.value, tuple) else (setting.value or "").split()
                for value in several:
                    self.note(setting.key, value)

    def _request(self, environ: Mapping[str, str]) -> None:
        self.note("what was sent as Authorization", environ.get("HTTP_AUTHORIZATION", "").rpartition(" ")[2])
        code = re.search(r"(?:^|&)code=([\w.-]+)", environ.get("QUERY_STRING", ""))
        self.note("code", code and code[1])

    def write_down(self, app: Any) -> None:
        """Every column that says why, and the metrics, as they are now."""
        with self.log.open("a") as log, app.registry.database.session(writes=False) as session:
            for table in Base.metadata.sorted_tables:
                for column in table.c:
                    if column.name in ("reason", "error") and isinstance(column.type, String):
                        told = session.scalars(select(column).where(column.is_not(None)).distinct())
                        log.writelines(f"{table.name}.{column.name}: {one!r}\n" for one in told)
            everything = CollectorRegistry()
            everything.register(Scrape(app.registry))
            log.write(generate_latest(everything).decode())


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin, in each process."""
    folder = Path(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    # each process of pytest-xdist has a folder of its own in that of the whole run
    folder = folder.parent if hasattr(config, "workerinput") else folder
    config.stash[NOTED] = Canaries(folder / "canary")
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    config.stash[NOTED].listen(patch)


NOTED = pytest.StashKey[Canaries]()
FOUND = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Before the next test empties it, what the database says."""
    app = getattr(item, "funcargs", {}).get("app")
    if hasattr(app, "registry"):
        try:
            item.config.stash[NOTED].write_down(app)
        except Exception as error:  # noqa: BLE001 - the test took it away
            logging.getLogger(__name__).info("%s left nothing to look into: %s", item.nodeid, error)
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search, once all processes have told what they noted."""
    noted = session.config.stash[NOTED]
    (noted.folder / f"values-{os.getpid()}.json").write_text(json.dumps(noted.values))
    if hasattr(session.config, "workerinput"):
        return
    values: dict[str, str] = {}
    for file in noted.folder.glob("values-*.json"):
        values |= json.loads(file.read_text())
    logs = sorted(noted.folder.parent.rglob("*.log"))
    session.config.stash[FOUND] = found = search(values, logs)
    told = (
        f"canary: {len(values)} values looked for in {len(logs)} logs, {sum(one.stat().st_size for one in logs)} bytes"
    )
    print(f"\n{told}", *found[:100], sep="\n")
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

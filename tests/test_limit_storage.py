"""Where requests are counted: in a real Redis, together, and what happens while it is away."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from webtest import TestApp

from conftest import settings_for
from contract import assert_problem
from customer_orders import main
from customer_orders.api import counting
from customer_orders.cli import main as command
from inis import write_ini
from serving import free_port, wait_for

SERVER = shutil.which("redis-server")


class RedisServer:
    """A Redis of a test's own on loopback, which keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.password = folder, free_port(), secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SERVER, "there is no redis-server on this machine (Debian: apt-get install redis-server)"
        written = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
        }
        file = self.folder / "redis.conf"
        file.write_text("".join(f"{key} {value}\n" for key, value in written.items()))
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([SERVER, str(file)], stdout=log, stderr=log)
        wait_for(self.answers, f"redis-server answers (see {self.folder}/redis.log)")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def server(tmp_path):
    if not SERVER and not os.environ.get("REQUIRE_REDIS"):
        pytest.skip("no redis-server on this machine (Debian: apt-get install redis-server)")
    started = RedisServer(tmp_path)
    started.start()
    yield started
    started.client.close()
    started.end()


@pytest.fixture
def make(make_app):
    """Makes a client of an application of its own, that takes three reading requests a day.

    On SQLite alone: what is counted does not know of databases.
    """

    def client(storage, **more):
        app = make_app("sqlite", **{"limits.storage": storage, "limits.read": "3/day", **more})
        return TestApp(app, extra_environ={"REMOTE_ADDR": "192.0.2.1"})

    return client


def ask(client):
    return client.get("/api/", status="*").status_int


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def limiter(client):
    return client.app.registry.limiter


def test_processes_count_together_in_redis_and_each_for_itself_in_memory(make, server):
    first, second = make(server.url), make(server.url)
    assert [ask(client) for client in (first, second, first, second, first)] == [200, 200, 200, 429, 429]
    first, second = make("memory://"), make("memory://")
    assert [ask(client) for client in (first, second) for _ in range(4)] == [200, 200, 200, 429] * 2


def taken_at_once(told):
    """How many of 160 requests, eight at a time, are taken."""
    with ThreadPoolExecutor(8) as pool:
        return sum(counted[0].taken for counted in pool.map(lambda _: told.count("read", "address", "a"), range(160)))


def test_many_at_once_get_no_more_in_than_one_after_the_other(make, server):
    assert taken_at_once(limiter(make(server.url, **{"limits.read": "50/day"}))) == 50
    # in memory two at the very end may keep each other out
    assert 40 < taken_at_once(limiter(make("memory://", **{"limits.read": "50/day"}))) <= 50


def test_an_answer_tells_the_same_as_with_memory(make, server):
    client = make(server.url)
    for left in (2, 1, 0):
        told = client.get("/api/").headers
        assert told["RateLimit-Policy"] == '"read-address-86400";q=3;w=86400'
        # the window begins with the first request here
        name, quota, reset = told["RateLimit"].split(";")
        assert (name, quota) == ('"read-address-86400"', f"r={left}")
        assert 86000 < int(reset.removeprefix("t=")) <= 86400
    answer = client.get("/api/", status="*")
    assert_problem(answer, 429, "too-many-requests")
    assert 86000 < int(answer.headers["Retry-After"]) <= 86400


def test_what_is_counted_goes_by_itself_and_holds_no_token(make, server, client_of):
    client = make(server.url)
    token = client_of(client.app).authorization[1]
    client.get("/api/me", headers={"Authorization": f"Bearer {token}"}, status=200)
    keys = server.client.keys()
    assert len(keys) == 2
    for key in keys:
        assert key.startswith(b"customer-orders:")
        assert token.encode() not in key
        # two windows at most
        assert 0 < server.client.ttl(key) <= 2 * 86400


def test_while_redis_is_away_requests_pass_and_the_log_says_so_once_a_minute(make, server, caplog):
    client = make(server.url)
    told = limiter(client)
    clock = [1000.0]
    told.clock = lambda: clock[0]
    assert [ask(client) for _ in range(4)] == [200, 200, 200, 429]
    server.end()
    for _ in range(59):
        assert ask(client) == 200
        clock[0] += 1
    (said,) = errors(caplog)
    assert "limits.storage (variable LIMITS_STORAGE) does not answer, so no request is limited until it does" in said
    assert str(server.port) in said
    assert server.password not in said
    clock[0] += 60
    assert ask(client) == 200
    assert len(errors(caplog)) == 2
    # back again: what it had counted went with it
    server.start()
    clock[0] += counting.PAUSE
    with caplog.at_level(logging.INFO):
        assert [ask(client) for _ in range(4)] == [200, 200, 200, 429]
    assert "limits.storage answers again; requests are limited" in caplog.text
    assert len(errors(caplog)) == 2


def test_a_redis_that_restarts_between_two_requests_is_no_error(make, server, caplog):
    client = make(server.url)
    assert ask(client) == 200
    server.end()
    server.start()
    assert [ask(client) for _ in range(4)] == [200, 200, 200, 429]
    assert errors(caplog) == []


def test_a_redis_that_never_answers_is_asked_by_one_request_in_a_while(make, caplog, monkeypatch):
    monkeypatch.setattr(counting, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        calls = []

        def accept():
            while True:
                try:
                    calls.append(mute.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        client = make(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        told = limiter(client)
        clock = [1000.0]
        told.clock = lambda: clock[0]
        assert [ask(client) for _ in range(20)] == [200] * 20
        # a second try at once, in case that the first had a stale connection
        wait_for(lambda: len(calls) == 2, "it was called twice")
        clock[0] += counting.PAUSE
        assert [ask(client) for _ in range(20)] == [200] * 20
        wait_for(lambda: len(calls) == 4, "it was called twice more")
        assert len(errors(caplog)) == 1
        mute.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        assert len(calls) == 4
        for connection in calls:
            connection.close()


def test_a_wrong_password_is_told_and_not_repeated(make, server, caplog):
    wrong = secrets.token_urlsafe(16)
    client = make(server.url.replace(server.password, wrong))
    assert [ask(client) for _ in range(5)] == [200] * 5
    (said,) = errors(caplog)
    assert "AuthenticationError" in said
    assert wrong not in said


@pytest.mark.parametrize("form", ["redis://:{}@host/0", "rediss://user:{}@host:6380", "redis://host/0?password={}"])
def test_the_settings_show_no_password(form):
    password = secrets.token_urlsafe(16)
    url = form.format(password)
    setting = main({}, **{**settings_for("sqlite:///x.sqlite"), "limits.storage": url}).registry.sections["limits"]
    assert setting.storage == url
    assert password not in setting["storage"].display()
    assert "host" in setting["storage"].display()


def test_the_doctor_asks_it(server, tmp_path):
    def examine(url):
        settings = settings_for("sqlite:////nowhere/orders.sqlite", **{"limits.storage": url})
        words = ["doctor", "-c", write_ini(tmp_path / "orders.ini", settings), "--only", "limits_storage"]
        done = CliRunner().invoke(command, words, catch_exceptions=False)
        assert server.password not in done.output
        return done.exit_code, done.stdout

    code, printed = examine(server.url)
    assert (code, "Redis answers." in printed) == (0, True)
    other = secrets.token_urlsafe(16)
    code, printed = examine(server.url.replace(server.password, other))
    assert (code, "limits.storage does not answer: AuthenticationError" in printed) == (1, True)
    assert other not in printed

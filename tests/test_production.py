"""``customer-orders serve``: what is under way is finished, and what is too much is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy import text

from customer_orders.auth.services import local_user
from customer_orders.customers.models import Customer
from customer_orders.notifications.models import Notification, Status
from customer_orders.settings import section
from inis import PLAIN, write_ini
from serving import BIN, Server, wait_for

pytestmark = [
    pytest.mark.processes,
    # what is of the server is the same on both
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]

SETTINGS = {
    "plugins": "",
    "server.workers": "2",
    "server.threads": "2",
    "server.header_seconds": "1",
    "server.header_bytes": "8192",
    "server.drain_seconds": "20",
}


@pytest.fixture
def server(tmp_path, make_app, database_kind):
    """A server that is not started yet; ``registry`` and ``headers`` of an application on the same database."""
    registry = make_app(database_kind).registry
    ini = tmp_path / "shop.ini"
    write_ini(ini, SETTINGS, logs=PLAIN)
    made = Server(
        ini,
        {
            "SQLALCHEMY_URL": registry.database.url.render_as_string(hide_password=False),
            "JWT_PRIVATE_KEY": section(registry, "jwt").private_key,
            "APP_PUBLIC_URL": section(registry, "app").public_url,
        },
        tmp_path / "server.log",
        production=True,
    )
    with registry.database.transaction() as session:
        user = local_user(session, "owner@shop.example", "admin").id
    made.registry = registry
    made.headers = {"Authorization": f"Bearer {registry.access_tokens.create_token(str(user))}"}
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


class Held:
    """Keeps requests that add customers under way, until it is let go."""

    def __init__(self, server, count):
        self.server, self.answers = server, []
        self.connection = server.registry.database.engine.connect()
        self.connection.execute(text("LOCK TABLE customers IN EXCLUSIVE MODE"))
        self.threads = [threading.Thread(target=self._add) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self._waiting() == count, f"{count} requests are under way")

    def _add(self):
        body = {"username": "Amina", "phone_number": "0713 812 939"}
        answer = requests.post(f"{self.server.url}/api/customers/", json=body, headers=self.server.headers, timeout=60)
        self.answers.append(answer.status_code)

    def _waiting(self):
        asked = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass")
        return self.connection.execute(asked).scalar_one()

    def let_go(self):
        self.connection.rollback()
        self.connection.close()
        for thread in self.threads:
            thread.join(30)


def refuses(server):
    # a request would wait for a thread, if it were taken in just before
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return False


def test_told_to_stop_it_takes_nothing_in_and_finishes_what_is_under_way(server):
    server.start()
    held = Held(server, 2)
    server.process.send_signal(signal.SIGTERM)
    try:
        wait_for(lambda: refuses(server), "nothing new is taken in")
    finally:
        held.let_go()
    assert held.answers == [201] * 2
    assert server.process.wait(30) == 0
    with server.registry.database.transaction(writes=False) as session:
        assert session.query(Customer).count() == 2


def readiness(server):
    """What each of some connections is told; the kernel shares them out between the processes."""
    told = [requests.get(f"{server.url}/readyz", timeout=30) for _ in range(8)]
    return {(answer.status_code, answer.json()["checks"].get("server")) for answer in told}


def test_told_to_stop_all_its_processes_are_unready_first_and_serve_on(server):
    server.environ["SERVER_UNREADY_SECONDS"] = "3600"
    server.start()
    wait_for(lambda: server.log.read_text().count("Started worker-") == 2, "both are there")
    assert readiness(server) == {(200, None)}
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: readiness(server) == {(503, "draining")}, "all are unready")
    held = Held(server, 2)
    held.let_go()
    assert held.answers == [201] * 2
    # one that ends meanwhile shortens nothing
    os.kill(_children(server.process.pid)[0], signal.SIGKILL)
    wait_for(lambda: "Unexpected exit" in server.log.read_text(), "it is noticed")
    assert readiness(server) == {(503, "draining")}
    assert server.end() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_hurry_it_stops_at_once_and_finishes_what_is_under_way(server, number):
    server.environ["SERVER_UNREADY_SECONDS"] = "3600"
    server.start()
    held = Held(server, 2)
    if number == signal.SIGTERM:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "unready for 3600 s" in server.log.read_text(), "it waits")
    server.process.send_signal(number)
    try:
        wait_for(lambda: refuses(server), "nothing new is taken in")
    finally:
        held.let_go()
    assert held.answers == [201] * 2
    assert server.process.wait(30) == 0


def test_told_to_stop_while_it_starts_it_waits_for_nothing(server):
    server.environ["SERVER_DRAIN_SECONDS"] = "3600"
    with server.log.open("ab") as log:
        command = [*server.program, str(server.ini)]
        server.process = subprocess.Popen(command, env=server.environ, stdout=log, stderr=log)
    wait_for(lambda: server.log.read_text().count("Spawning worker-") == 2, "its processes begin")
    assert server.end() == 0


def test_told_to_read_its_ini_anew_it_finishes_what_is_under_way(server):
    server.start()
    held = Held(server, 2)
    write_ini(server.ini, {**SETTINGS, "api.max_body": "2000"}, logs=PLAIN)
    server.process.send_signal(signal.SIGHUP)
    held.let_go()
    assert held.answers == [201] * 2

    def bound():
        try:
            return requests.get(f"{server.url}/api/", timeout=5).json()["limits"]["body_bytes"]
        except requests.ConnectionError:
            # waited to be taken in by a process that ended: granian closes such connections unanswered
            return None

    wait_for(lambda: {bound() for _ in range(8)} == {2000}, "all processes have read it")
    assert server.end() == 0


def test_told_to_stop_while_it_reads_its_ini_anew_it_replaces_no_more_processes(server):
    server.environ["SERVER_DRAIN_SECONDS"] = "3"
    server.start()
    wait_for(lambda: server.log.read_text().count("Started worker-") == 2, "both are there")
    with ExitStack() as stack:
        # the kernel shares them out: both processes are kept from ending
        for _ in range(12):
            client = stack.enter_context(connect(server))
            client.sendall(b"POST /api/orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Respawning worker-1" in server.log.read_text(), "it is at it")
        assert server.end() == 0
    assert "Respawning worker-2" not in server.log.read_text()


def test_whoever_keeps_it_from_ending_has_no_message_cut_off(server):
    server.environ |= {
        "PLUGINS": "devtools",
        "DEVTOOLS_INBOX": str(server.ini.parent / "inbox.jsonl"),
        "DEVTOOLS_TIMEOUT": "2",
        "NOTIFICATIONS_SMS": "devtools",
        "NOTIFICATIONS_CONCURRENCY": "1",
        "SERVER_WORKERS": "1",
        "SERVER_DRAIN_SECONDS": "7",
    }
    server.start()
    # for each message the provider takes as long as it may
    body = {"username": "Amina", "phone_number": "+447700900007"}
    customer = requests.post(f"{server.url}/api/customers/", json=body, headers=server.headers, timeout=30).json()["id"]
    for _ in range(8):
        order = {"item": "Tea", "amount": 1, "customer": customer}
        requests.post(f"{server.url}/api/orders/", json=order, headers=server.headers, timeout=30).raise_for_status()

    def statuses():
        with server.registry.database.transaction(writes=False) as session:
            return {status for (status,) in session.query(Notification.status)}

    with connect(server) as client:
        client.sendall(b"POST /api/orders/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        wait_for(lambda: Status.UNKNOWN in statuses(), "one is sent, and the next one is being sent")
        assert server.end() == 0
    assert "Killing worker-1" in server.log.read_text()
    # one that is being sent is sent again once its lease is over
    assert statuses() == {Status.UNKNOWN, Status.QUEUED}


def test_a_process_that_is_killed_is_replaced(server):
    server.start()
    wait_for(lambda: server.log.read_text().count("Started worker-") == 2, "both are there")
    children = _children(server.process.pid)
    os.kill(children[0], signal.SIGKILL)
    wait_for(lambda: server.log.read_text().count("Started worker-") == 3, "another is there")
    assert children[0] not in _children(server.process.pid)
    assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 200
    assert server.end() == 0


def _children(pid):
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in told.stdout.split()]


def test_a_body_without_a_length_is_bounded_too(server):
    server.start()
    answer = requests.post(
        f"{server.url}/api/customers/",
        data=iter([b" " * 65536] * 4),
        headers={**server.headers, "Content-Type": "application/json"},
        timeout=30,
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def connect(server):
    return socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), 30)


def test_a_head_that_is_too_large_is_refused(server):
    server.start()
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 10_000 + b"\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_does_not_come_ends_the_connection(server):
    server.start()
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: ")
        client.settimeout(30)
        # closed, with or without a word
        while client.recv(4096):
            pass
    assert requests.get(f"{server.url}/livez", timeout=30).status_code == 200


def test_connections_without_a_request_keep_nobody_out(server):
    # so that it is not their end that lets others in
    server.environ["SERVER_HEADER_SECONDS"] = "300"
    server.start()
    with ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(connect(server))
            if number % 2:
                # answered, and kept open for the next one
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("192.0.2.1:6543", "cannot serve at 192.0.2.1:6543"),
        ("127.0.0.1:6543 127.0.0.1:6544", "this server listens at one address"),
        ("6543", "write an address and a port, such as 0.0.0.0:6543"),
        ("::1:6543", "write an address and a port, such as 0.0.0.0:6543"),
        ("127.0.0.1:65536", "write an address and a port, such as 0.0.0.0:6543"),
    ],
)
def test_where_it_cannot_listen_it_says_so(server, listen, says):
    command = [str(BIN / "customer-orders"), "serve", "-c", str(server.ini)]
    environ = {**server.environ, "SERVER_LISTEN": listen}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "SERVER_LISTEN" in done.stderr

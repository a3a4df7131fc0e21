"""Real server processes, killed and ended: what was answered with 201 is told, whatever happens to the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from http.client import HTTPConnection

import pytest
import requests
from sqlalchemy import select

from customer_orders.auth.services import local_user
from customer_orders.notifications.models import Notification, NotificationAttempt
from customer_orders.settings import section
from serving import BIN, ROOT, Server, free_port, wait_for

pytestmark = pytest.mark.processes

INI = """
[app:main]
use = egg:customer-orders
plugins = devtools
notifications.sms = devtools
notifications.dispatcher = embedded
# nothing here waits longer than it must
notifications.poll_interval = 1
notifications.retry_base = 1
notifications.retry_cap = 1
notifications.lease = 5
devtools.timeout = 1

[server:main]
use = egg:customer-orders#waitress
listen = 127.0.0.1:6543
"""


class Shop:
    """A server, its database and its phones, as a merchant has them."""

    def __init__(self, folder, make_app, database_kind):
        self.inbox = folder / "phones" / "inbox.jsonl"
        self.inbox.parent.mkdir()
        ini = folder / "shop.ini"
        ini.write_text(INI)
        self.server = Server(ini, {"DEVTOOLS_INBOX": str(self.inbox)}, folder / "server.log")
        # an application of the same settings, to look into the database with
        self.registry = registry = make_app(database_kind, **{"app.public_url": self.server.url}).registry
        self.server.environ |= {
            "SQLALCHEMY_URL": registry.database.url.render_as_string(hide_password=False),
            "JWT_PRIVATE_KEY": section(registry, "jwt").private_key,
        }
        with registry.database.transaction() as session:
            user = local_user(session, "owner@shop.example", "admin").id
        self.headers = {"Authorization": f"Bearer {registry.access_tokens.create_token(str(user))}"}

    def start_without_a_request(self):
        """Start the process and leave it alone."""
        with self.server.log.open("ab") as log:
            command = [str(BIN / "pserve"), str(self.server.ini)]
            self.server.process = subprocess.Popen(command, env=self.server.environ, stdout=log, stderr=log)

    def post(self, path, **body):
        answer = requests.post(f"{self.server.url}{path}", json=body, headers=self.headers, timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def order(self):
        customer = self.post("/api/customers/", username="Amina", phone_number="+254700000001")
        return self.post("/api/orders/", item="Tea", amount=1, customer=customer["id"])

    def kill(self):
        assert self.server.end(signal.SIGKILL) == -signal.SIGKILL

    def messages(self):
        """What the phones got; nothing while there is no inbox."""
        if not self.inbox.is_file():
            return []
        return [json.loads(line) for line in self.inbox.read_text().splitlines()]

    def rows(self, model):
        with self.registry.database.transaction(writes=False) as session:
            return session.scalars(select(model).order_by(model.id)).all()

    def statuses(self):
        return [row.status for row in self.rows(Notification)]


@pytest.fixture
def shop(tmp_path, make_app, database_kind):
    """A shop with an empty, migrated database; its server is not started yet."""
    shop = Shop(tmp_path, make_app, database_kind)
    yield shop
    process = shop.server.process
    if process is not None and process.poll() is None:
        process.kill()
        process.wait(30)


def test_killed_straight_after_the_answer_the_message_is_sent(shop):
    shop.server.start()
    shop.order()
    shop.kill()
    shop.start_without_a_request()
    wait_for(lambda: shop.statuses() == ["sent"], "the message is sent")
    # at least once: it may have been killed between sending and saying so
    assert {message["key"] for message in shop.messages()} == {f"notification-{shop.rows(Notification)[0].id}"}


def test_killed_before_it_could_deliver_the_message_is_sent_once(shop):
    shop.server.environ["NOTIFICATIONS_DISPATCHER"] = "worker"
    shop.server.start()
    assert shop.order()["notification"]["status"] == "queued"
    shop.kill()
    assert shop.statuses() == ["queued"]
    assert shop.messages() == []

    del shop.server.environ["NOTIFICATIONS_DISPATCHER"]
    shop.start_without_a_request()
    wait_for(lambda: shop.statuses() == ["sent"], "the message is sent")
    assert [message["to"] for message in shop.messages()] == ["+254700000001"]


def test_killed_while_the_provider_is_down_the_message_is_sent(shop):
    shop.inbox.parent.rmdir()
    shop.inbox.parent.touch()
    shop.server.start()
    shop.order()
    wait_for(lambda: shop.rows(Notification)[0].attempts, "an attempt")
    shop.kill()
    assert shop.messages() == []

    shop.inbox.parent.unlink()
    shop.start_without_a_request()
    wait_for(lambda: shop.statuses() == ["sent"], "the message is sent")
    assert len(shop.messages()) == 1
    *failed, accepted = [attempt.outcome for attempt in shop.rows(NotificationAttempt)]
    assert accepted == "accepted"
    assert set(failed) <= {"unavailable", "abandoned"}
    assert failed


def test_killed_while_it_sends_the_message_is_sent_again_after_its_lease(shop):
    # a provider that hangs: nobody reads at the other end of the pipe
    os.mkfifo(shop.inbox)
    shop.server.start()
    shop.order()
    wait_for(lambda: shop.statuses() == ["sending"], "an attempt under way")
    # which keeps nobody from ordering
    assert shop.order()["notification"]["status"] == "queued"
    shop.kill()
    first, second = shop.statuses()
    assert first == "sending"
    # it may be under way too by then: several are at a time
    assert second in ("queued", "sending")

    shop.inbox.unlink()
    shop.start_without_a_request()
    wait_for(lambda: shop.statuses() == ["sent", "sent"], "both messages are sent")
    first, second = shop.rows(Notification)
    keys = sorted(message["key"] for message in shop.messages())
    assert keys == [f"notification-{first.id}", f"notification-{second.id}"]
    outcomes = [one.outcome for one in shop.rows(NotificationAttempt) if one.notification_id == first.id]
    assert outcomes == ["abandoned", "accepted"]


def test_told_to_end_it_finishes_the_message_in_flight(shop):
    os.mkfifo(shop.inbox)
    # so that the second order's has to wait
    shop.server.environ["NOTIFICATIONS_CONCURRENCY"] = "1"
    shop.server.start()
    shop.order()
    wait_for(lambda: shop.statuses() == ["sending"], "an attempt under way")
    shop.order()
    shop.server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: _refuses(shop.server.url), "it serves no more")
    assert shop.server.process.poll() is None
    # now the provider answers
    with shop.inbox.open() as pipe:
        assert json.loads(pipe.readline())["to"] == "+254700000001"
        assert shop.server.process.wait(30) == 0
    assert shop.statuses() == ["sent", "queued"]


def _refuses(url):
    try:
        requests.get(f"{url}/livez", timeout=5)
    except requests.ConnectionError:
        return True
    return False


@pytest.mark.parametrize(("number", "by_variable"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_told_to_end_it_ends(shop, number, by_variable):
    environ, ini = shop.server.environ, shop.server.ini
    environ["SERVER_LISTEN"] += f" 127.0.0.1:{free_port()}"
    if not by_variable:
        ini.write_text(ini.read_text().replace("127.0.0.1:6543", environ.pop("SERVER_LISTEN")))
    shop.server.measure()
    shop.server.start()
    assert shop.server.end(number) == 0
    assert "Traceback" not in shop.server.log.read_text()


def test_behind_a_filter_the_dispatcher_starts_with_the_first_request(shop):
    ini = shop.server.ini
    ini.write_text(
        ini.read_text().replace("[app:main]", "[app:orders]")
        + """
[pipeline:main]
pipeline = prefix orders

[filter:prefix]
use = egg:PasteDeploy#prefix
prefix = /shop

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys =

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""
    )
    shop.server.measure()
    shop.server.start()
    assert "its dispatcher starts with the first request" in shop.server.log.read_text()
    shop.order()
    wait_for(lambda: shop.statuses() == ["sent"], "the message is sent")
    assert shop.server.end() == 0
    assert "Traceback" not in shop.server.log.read_text()


# no database is asked
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("option", "refused", "taken"),
    [("", 2 * 1024 * 1024, 1024 * 1024 - 1), ("max_request_body_size = 3000000", 3_000_000, 2 * 1024 * 1024)],
)
def test_a_body_that_is_far_too_large_is_refused_before_it_comes(shop, option, refused, taken):
    ini = shop.server.ini
    ini.write_text(f"{ini.read_text()}{option}\n")
    shop.server.start()
    connection = HTTPConnection("127.0.0.1", int(shop.server.url.rpartition(":")[2]), timeout=20)
    connection.putrequest("POST", "/api/orders/")
    connection.putheader("Content-Length", str(refused))
    # and not one byte of it
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.headers.get_content_type()) == (413, "text/plain")
    connection.close()
    # what is only somewhat too large gets the application's own answer
    answer = requests.post(f"{shop.server.url}/api/orders/", data=b"x" * taken, headers=shop.headers, timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")


def test_it_lives_while_the_database_is_away(shop, tmp_path, database_kind):
    away = {
        "sqlite": f"sqlite:///{tmp_path}/no/such/folder/orders.sqlite",
        "postgresql": "postgresql+psycopg://127.0.0.1:1/orders",
    }
    shop.server.environ["SQLALCHEMY_URL"] = away[database_kind]
    shop.server.start()
    assert requests.get(f"{shop.server.url}/livez", timeout=30).json() == {"status": "ok"}
    ready = requests.get(f"{shop.server.url}/readyz", timeout=30)
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "does not answer"
    assert requests.get(f"{shop.server.url}/api/orders/", headers=shop.headers, timeout=30).status_code == 503
    wait_for(lambda: "what is due could not be claimed" in shop.server.log.read_text(), "the dispatcher looked")
    assert requests.get(f"{shop.server.url}/livez", timeout=30).ok
    assert shop.server.end() == 0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("listen", ["127.0.0.1", "nonsense", "127.0.0.1:0x1", "256.0.0.1:80", "taken"])
def test_an_address_it_cannot_listen_on_is_told_in_a_sentence(shop, listen):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        if listen == "taken":
            listen = f"127.0.0.1:{other.getsockname()[1]}"
        shop.server.environ |= {"SERVER_LISTEN": listen, "PLUGINS": "scripted", "NOTIFICATIONS_SMS": "scripted"}
        shop.server.environ["PYTHONPATH"] = str(ROOT / "tests" / "stage")
        shop.server.measure()
        done = subprocess.run(
            [str(BIN / "pserve"), str(shop.server.ini)],
            env=shop.server.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()
    assert listen in said
    assert "SERVER_LISTEN" in said

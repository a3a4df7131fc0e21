"""Metrics of real processes: two that serve and one that delivers, killed, replaced, and compared with the database."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
import requests
from sqlalchemy import func, select

from customer_orders.auth.services import local_user
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import Order
from customer_orders.settings import section
from inis import PLAIN, write_ini
from scraping import scrape
from serving import BIN, Server, free_port, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

SETTINGS = {
    "plugins": "devtools",
    "notifications.sms": "devtools",
    "notifications.dispatcher": "worker",
    "notifications.retry_base": "1",
    "notifications.retry_cap": "1",
    "notifications.max_attempts": "2",
    "notifications.poll_interval": "1",
    "server.workers": "2",
    "server.threads": "4",
}

REFUSED, BUSY, UNCERTAIN = "+447700900001", "+447700900003", "+447700900008"
ACCEPTED = "+447700900200"


def children(pid):
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in told.stdout.split()]


class Shop:
    """Two processes that serve, one that delivers, their database, and where their metrics are."""

    def __init__(self, folder, make_app, database_kind):
        self.registry = registry = make_app(database_kind).registry
        ini = folder / "shop.ini"
        write_ini(ini, SETTINGS, logs=PLAIN)
        self.metrics, self.worker_metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        (folder / "tmp").mkdir()
        self.server = Server(
            ini,
            {
                "SQLALCHEMY_URL": registry.database.url.render_as_string(hide_password=False),
                "JWT_PRIVATE_KEY": section(registry, "jwt").private_key,
                "APP_PUBLIC_URL": section(registry, "app").public_url,
                "DEVTOOLS_INBOX": str(folder / "inbox.jsonl"),
                "METRICS_LISTEN": self.metrics,
                "TMPDIR": str(folder / "tmp"),
            },
            folder / "server.log",
            production=True,
        )
        self.tmp, self.worker_log, self.worker = folder / "tmp", folder / "worker.log", None
        with registry.database.transaction() as session:
            user = local_user(session, "owner@shop.example", "admin").id
        self.headers = {"Authorization": f"Bearer {registry.access_tokens.create_token(str(user))}"}
        self.started = 0
        self.local = threading.local()

    def start(self):
        self.server.start()
        self.all_serve()

    def all_serve(self):
        self.started += 2
        wait_for(lambda: self.log().count("Started worker-") >= self.started, "both serve")

    def log(self):
        return self.server.log.read_text()

    def start_worker(self):
        environ = {**self.server.environ, "METRICS_LISTEN": self.worker_metrics}
        command = [str(BIN / "customer-orders"), "worker", "-c", str(self.server.ini)]
        with self.worker_log.open("ab") as log:
            self.worker = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        wait_for(lambda: "The worker is delivering." in self.worker_log.read_text(), "it delivers")

    def end(self):
        for process in (self.server.process, self.worker):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(60)

    def ask(self, method, path, **more):
        """Each thread keeps its connection."""
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        return self.local.session.request(method, f"{self.server.url}{path}", timeout=120, **more)

    def post(self, path, body, **headers):
        return self.ask("POST", path, json=body, headers={**self.headers, **headers})

    def customer(self, number=ACCEPTED):
        answer = self.post("/api/customers/", {"username": "Amina", "phone_number": number})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def rows(self, *selected):
        with self.registry.database.transaction(writes=False) as session:
            return session.execute(select(*selected)).all()


@pytest.fixture(scope="module")
def shop(tmp_path_factory, make_app, database_kind):
    made = Shop(tmp_path_factory.mktemp("shop"), make_app, database_kind)
    try:
        made.start()
        yield made
    finally:
        made.end()


MIXED = 1000


@pytest.fixture(scope="module")
def told(shop):
    """The statuses of the answers, once every message is settled."""
    shop.start_worker()
    customers = {number: shop.customer(number) for number in (ACCEPTED, REFUSED, BUSY, UNCERTAIN)}

    def ask(number):
        body = {"item": "Tea", "amount": 100, "customer": customers[ACCEPTED]}
        match number % 10:
            case 0:
                return shop.post("/api/orders/", body | {"amount": -1})
            case 1:
                return shop.post("/api/orders/?dry_run=true", body)
            case 2 | 3:
                # each key comes twice
                return shop.post("/api/orders/", body, **{"Idempotency-Key": f"key-{number // 10}"})
            case 4:
                return shop.post("/api/orders/", body | {"customer": customers[REFUSED]})
            case 5 if number % 200 == 5:
                return shop.post("/api/orders/", body | {"customer": customers[BUSY]})
            case 6 if number % 200 == 6:
                return shop.post("/api/orders/", body | {"customer": customers[UNCERTAIN]})
            case 7:
                return shop.ask("GET", f"/api/orders/{number}", headers=shop.headers)
            case 8:
                return shop.ask("GET", f"/nothing/{secrets.token_hex(8)}")
            case 9:
                return shop.ask("BREW", "/api/orders/")
            case _:
                return shop.ask("GET", "/api/orders/?limit=1", headers=shop.headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(MIXED)))
    settled = ("sent", "failed", "unknown")
    wait_for(lambda: all(status in settled for (status,) in shop.rows(Notification.status)), "all is settled", 120)
    return Counter((answer.request.method, answer.status_code) for answer in answers)


def test_orders_are_counted_as_the_database_has_them(shop, told):
    ((orders,),) = shop.rows(func.count(Order.id))
    assert 200 < orders < told["POST", 201]
    assert scrape(shop.metrics).total("orders_created_total") == orders


def test_requests_are_counted_by_pattern_method_and_status(shop, told):
    found = scrape(shop.metrics)
    orders = found.by("http_requests_total", "status", route="/api/orders/", method="POST")
    assert orders == {str(status): count for (method, status), count in told.items() if method == "POST"}
    read = found.by("http_requests_total", "status", route="/api/orders/{id}", method="GET")
    assert sum(read.values()) == MIXED / 10
    assert found.total("http_requests_total", route="none", method="GET", status="404") == MIXED / 10
    assert found.total("http_requests_total", method="_OTHER") == MIXED / 10
    assert found.total("http_request_duration_seconds_count") == found.total("http_requests_total")
    assert found.total("http_requests_in_progress") == 0


def test_messages_are_counted_as_the_database_has_them(shop, told):
    served, worked = scrape(shop.metrics), scrape(shop.worker_metrics)
    by_status = Counter(status for (status,) in shop.rows(Notification.status))
    assert set(by_status) == {"sent", "failed", "unknown"}
    assert served.by("notifications_total", "status") == {"queued": sum(by_status.values())}
    assert worked.by("notifications_total", "status") == by_status
    reasons = worked.by("notifications_total", "reason")
    assert set(reasons) == {"none", "rejected", "unavailable", "uncertain"}
    assert worked.total("notification_handover_seconds_count", notifier="devtools") == by_status["sent"]
    assert worked.total("outbox_depth") == served.total("outbox_depth") == 0
    assert worked.total("outbox_oldest_seconds") == 0


def test_costs_are_summed_as_the_database_has_them(shop, told):
    costs = Counter()
    for amount, currency in shop.rows(Notification.cost_amount, Notification.cost_currency):
        if amount is not None:
            costs[currency] += amount
    assert costs
    found = scrape(shop.worker_metrics).by("sms_cost_total", "currency")
    assert {name: Decimal(f"{value:.4f}") for name, value in found.items()} == costs


def counted(shop):
    return scrape(shop.metrics).total("orders_created_total")


def place(shop, customer, orders):
    # what the processes of before had open is closed
    shop.local = threading.local()
    for _ in range(orders):
        assert shop.post("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer}).status_code == 201


def test_processes_that_are_killed_or_replaced_take_no_count_with_them(shop):
    pid = shop.server.process.pid
    customer = shop.customer()
    before = counted(shop)
    place(shop, customer, 5)
    assert counted(shop) == before + 5
    size = scrape(shop.metrics).total("db_pool_size")
    first = children(pid)
    for process in first:
        os.kill(process, signal.SIGKILL)
    shop.all_serve()
    assert not set(first) & set(children(pid))
    found = scrape(shop.metrics)
    assert found.total("orders_created_total") == before + 5
    # gauges are of those that live
    wait_for(lambda: scrape(shop.metrics).total("db_pool_size") == size, "pools are of those that live")
    place(shop, customer, 5)
    second = children(pid)
    shop.server.process.send_signal(signal.SIGHUP)
    shop.all_serve()
    wait_for(lambda: not set(second) & set(children(pid)), "both are replaced", 60)
    place(shop, customer, 5)
    found = scrape(shop.metrics)
    assert found.total("orders_created_total") == before + 15
    assert found.total("db_pool_size") == size
    assert found.total("http_requests_in_progress") == 0
    ((orders,),) = shop.rows(func.count(Order.id))
    assert orders == before + 15
    # the dead have one file of each kind, whatever their number
    (folder,) = shop.tmp.glob("customer-orders-metrics-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    living = set(map(str, children(pid)))
    assert {file.stem.rpartition("_")[2] for file in folder.glob("*.db")} == {"dead", *living}


def test_the_port_tells_nothing_but_metrics_and_the_api_tells_none(shop):
    answer = requests.get(f"{shop.server.url}/metrics", timeout=30)
    assert answer.status_code == 404
    told = scrape(shop.metrics).text
    assert "+44" not in told
    assert "Amina" not in told
    assert shop.headers["Authorization"].rpartition(" ")[2] not in told


def test_a_second_server_does_not_start_where_the_first_tells(shop):
    command = [str(BIN / "customer-orders"), "serve", "-c", str(shop.server.ini)]
    environ = {**shop.server.environ, "SERVER_LISTEN": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.search(rf"cannot tell metrics at {shop.metrics}: .+ METRICS_LISTEN", done.stderr)
    assert "Traceback" not in done.stderr


def test_without_a_place_for_its_files_it_says_so(shop):
    command = [str(BIN / "customer-orders"), "serve", "-c", str(shop.server.ini)]
    environ = {
        **shop.server.environ,
        "SERVER_LISTEN": f"127.0.0.1:{free_port()}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
    }
    # where nothing can be a folder, whoever asks
    code = "import sys, tempfile; tempfile.tempdir = '/dev/null'; from customer_orders.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command[1:]],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no place to add up the metrics" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_in_the_end_nothing_is_left(shop):
    assert shop.server.end() == 0
    assert list(shop.tmp.iterdir()) == []
    with pytest.raises(requests.ConnectionError):
        scrape(shop.metrics)

"""Real servers, workers and providers, killed, stopped and cut off: no message is lost, and none is sent at random.

Small storms by themselves; full ones, which take minutes, with ``make storms``, which sets ``STORMS=full``.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from select import select as select_ready

import pytest
import requests
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import OperationalError

from conftest import STAGE
from customer_orders.notifications.models import Channel, Notification, NotificationAttempt
from customer_orders.orders.models import Order
from loopback import Answer, break_off, provider
from serving import BIN, serving, wait_for

FULL = os.environ.get("STORMS") == "full"
# Orders placed, processes killed meanwhile, and how many messages each worker sends at a time.
ORDERS, KILLS, CONCURRENCIES = (2000, 40, [1, 4]) if FULL else (120, 4, [1])
# Messages that take up to twice their lease, workers, and what each sends at a time.
SLOW, WORKERS, AT_A_TIME = (1000, 4, 64) if FULL else (32, 4, 8)
# Seconds; the shortest that there is.
LEASE = 5

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900 if FULL else 120)]


class Shop:
    """A server, its workers, and a look into its database.

    :param environ: of the server and of the workers alike.
    """

    def __init__(self, server, url):
        self.server = server
        self.engine = create_engine(url)
        self.token = server.token("clerk")
        self.workers = []

    def post(self, path, body, **headers):
        headers["Authorization"] = f"Bearer {self.token}"
        return requests.post(f"{self.server.url}{path}", json=body, headers=headers, timeout=30)

    def get(self, path):
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.get(f"{self.server.url}{path}", headers=headers, timeout=30).json()

    def customer(self):
        body = {"username": "Amina", "phone_number": "+254700000001"}
        return self.post("/api/customers/", body).json()["id"]

    def orders(self, count):
        """Place orders; their ids."""
        customer = self.customer()

        def place(_):
            return self.post("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer}).json()["id"]

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(place, range(count)))

    def work(self, concurrency=4):
        """Start a worker; it delivers by and by."""
        command = [
            str(BIN / "customer-orders"),
            "worker",
            "-c",
            str(self.server.ini),
            "--concurrency",
            str(concurrency),
        ]
        with self.server.log.open("ab") as log:
            self.workers.append(subprocess.Popen(command, env=self.server.environ, stdout=log, stderr=log))
        return self.workers[-1]

    def rows(self, model):
        with self.engine.connect() as connection:
            return connection.execute(select(model.__table__).order_by(*model.__table__.primary_key)).all()

    def counts(self):
        """How many notifications there are of each status."""
        query = select(Notification.status, func.count()).group_by(Notification.status)
        with self.engine.connect() as connection:
            return dict(connection.execute(query).all())

    def ended(self):
        return not {"queued", "sending"} & set(self.counts())

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                # one that is stopped hears nothing else
                worker.kill()
            worker.wait(30)
        self.engine.dispose()


@contextmanager
def shop_with(tmp_path, url, plugin, **environ):
    common = {
        "PLUGINS": f"devtools {plugin}",
        "PYTHONPATH": os.pathsep.join(filter(None, (STAGE, os.environ.get("PYTHONPATH")))),
        "NOTIFICATIONS_DISPATCHER": "worker",
        "NOTIFICATIONS_SMS": plugin,
        "NOTIFICATIONS_POLL_INTERVAL": "1",
    }
    with serving(tmp_path, url, **common, **environ) as server:
        shop = Shop(server, url)
        try:
            yield shop
        finally:
            shop.close()


@pytest.fixture
def gateway():
    """A provider that takes each message, and gives it a reference of its own."""
    with provider() as running:
        running.answer = lambda asked: Answer(secrets.token_hex(8).encode())
        yield running


@pytest.fixture
def url(new_database, database_kind):
    """The URL of an empty database."""
    return new_database(database_kind)


@pytest.fixture
def shop(tmp_path, url, gateway):
    """A shop whose messages go to the gateway, with short leases."""
    with shop_with(tmp_path, url, "gateway", GATEWAY_URL=gateway.url, NOTIFICATIONS_LEASE=str(LEASE)) as open_shop:
        yield open_shop


def keys(gateway):
    """How often each message arrived, by its key."""
    return Counter(asked.body.decode() for asked in gateway.asked)


# -- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_whatever_is_killed_every_order_stands_and_every_message_goes_out(shop, gateway, capsys, concurrency):
    customer = shop.customer()
    chance = random.Random(7)
    placed, over = [], threading.Event()
    workers = [shop.work(concurrency) for _ in range(2)]

    def place(number):
        """Until it is placed, with one key, as a client should."""
        body = {"item": "Tea", "amount": 1, "customer": customer}

        def try_once():
            with suppress(requests.RequestException):
                answer = shop.post("/api/orders/", body, **{"Idempotency-Key": f"order-{number}"})
                if answer.status_code == 201:
                    placed.append(answer.json()["id"])
                    return True
                assert answer.status_code in (409, 503), answer.text
            return False

        wait_for(try_once, "the order is placed", 120)

    def kill():
        """Kill one of the processes, at random, every now and then, and start another in its place."""
        for number in range(KILLS):
            # as far apart as the orders are many: it goes on until they are placed
            target = ORDERS * (number + 1) // (KILLS + 1)
            wait_for(lambda target=target: len(placed) >= target, "so many orders are placed", 300)
            over.wait(chance.random() / 5)
            which = chance.randrange(5)
            if which == 4:
                shop.server.end(signal.SIGKILL)
                shop.server.start()
            else:
                workers[which % 2].kill()
                workers[which % 2].wait(30)
                workers[which % 2] = shop.work(concurrency)

    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(kill)
        for done in [pool.submit(place, number) for number in range(ORDERS)]:
            done.result(600)
        killer.result(600)
    wait_for(shop.ended, f"every message ends: {shop.counts()}", 300)

    assert len(placed) == len(set(placed)) == ORDERS
    assert {row.id for row in shop.rows(Order)} == set(placed)
    notifications = {f"notification-{row.id}": row for row in shop.rows(Notification)}
    assert {row.order_id for row in notifications.values()} == set(placed)
    assert shop.counts() == {"sent": ORDERS}
    arrived = keys(gateway)
    assert set(arrived) == set(notifications), "a message was lost, or came from nowhere"
    again = {key: number - 1 for key, number in arrived.items() if number > 1}
    abandoned = {row.notification_id for row in shop.rows(NotificationAttempt) if row.outcome == "abandoned"}
    for key in again:
        assert notifications[key].attempts > 1
        assert notifications[key].id in abandoned
    with capsys.disabled():
        print(
            f"\n{ORDERS} orders, {KILLS} kills, {concurrency} at a time: 0 lost, {sum(again.values())} sent twice, "
            f"{len(abandoned)} attempts abandoned"
        )
    # one at a time cannot make it more (see notifications.worker); four at a time can, and then this tells
    assert sum(again.values()) <= KILLS


# -- slow ---------------------------------------------------------------------------------------------------------


def test_a_provider_that_takes_up_to_twice_the_lease_gets_each_message_once(shop, gateway):
    chance = random.Random(11)

    def slow(asked):
        gateway.released.wait(chance.random() * 2 * LEASE)
        return Answer(secrets.token_hex(8).encode())

    gateway.answer = slow
    shop.orders(SLOW)
    for _ in range(WORKERS):
        shop.work(AT_A_TIME)
    wait_for(lambda: shop.counts() == {"sent": SLOW}, "all are sent", 600)
    assert len(gateway.asked) == SLOW
    assert set(keys(gateway).values()) == {1}
    assert {row.outcome for row in shop.rows(NotificationAttempt)} == {"accepted"}


def stop(shop, process):
    """Stop a process, but not while it writes: on SQLite nobody else could until it goes on."""
    for _ in range(20):
        process.send_signal(signal.SIGSTOP)
        try:
            with shop.engine.begin() as connection:
                connection.execute(text("UPDATE notifications SET version = version WHERE id < 0"))
            return
        except OperationalError:
            process.send_signal(signal.SIGCONT)
    raise AssertionError("it writes all the time")


def test_a_worker_that_was_stopped_for_longer_than_its_lease_does_not_speak_for_the_message(shop, gateway):
    release = threading.Event()

    def answer(asked):
        if len(gateway.asked) == 1:
            release.wait(60)
            return Answer(b"of the first")
        return Answer(b"of the second")

    gateway.answer = answer
    shop.orders(1)
    first = shop.work()
    wait_for(lambda: gateway.asked, "the first asks")
    stop(shop, first)
    shop.work()
    wait_for(lambda: shop.counts() == {"sent": 1}, "another delivers it", 60)
    release.set()
    first.send_signal(signal.SIGCONT)
    wait_for(
        lambda: {"of the first", "of the second"} == {row.reference for row in shop.rows(NotificationAttempt)},
        "both told",
    )
    (row,) = shop.rows(Notification)
    assert (row.status, row.reference, row.attempts) == ("sent", "of the second", 2)
    assert len(gateway.asked) == 2


def test_a_worker_that_is_told_to_stop_finishes_and_gives_back(shop, gateway):
    release = threading.Event()
    gateway.answer = lambda asked: release.wait(60) and Answer(secrets.token_hex(8).encode())
    shop.orders(12)
    worker = shop.work(concurrency=2)
    wait_for(lambda: len(gateway.asked) == 2, "two are being sent")
    wait_for(lambda: shop.counts().get("sending", 0) > 2, "more are claimed")
    worker.send_signal(signal.SIGTERM)
    release.set()
    assert worker.wait(30) == 0
    counts = shop.counts()
    assert counts == {"sent": len(gateway.asked), "queued": 12 - len(gateway.asked)}
    assert {row.attempts for row in shop.rows(Notification) if row.status == "queued"} == {0}


# -- cut off, and down --------------------------------------------------------------------------------------------


@contextmanager
def dropping(target):
    """A TCP proxy that hands on what is asked, and breaks off before the answer; yields its port."""
    host, port = target.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        while not over.is_set():
            with suppress(OSError):
                client, _ = listener.accept()
                with socket.create_connection((host, int(port))) as upstream:
                    # what is asked may come in pieces
                    while upstream not in (ready := select_ready([client, upstream], [], [], 30)[0]):
                        if not ready:
                            break
                        upstream.sendall(client.recv(65536))
                    # the answer is there, and goes nowhere
                break_off(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        # close() alone does not wake who accepts
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def sms(code=101, reference="ATXid_1"):
    """An answer of Africa's Talking."""
    recipient = {
        "statusCode": code,
        "number": "+254700000001",
        "status": "Success",
        "cost": "KES 0.8000",
        "messageId": reference,
    }
    return Answer({"SMSMessageData": {"Message": "Sent to 1/1", "Recipients": [recipient]}}, 201)


def africastalking(tmp_path, url, endpoint, **more):
    return shop_with(
        tmp_path,
        url,
        "africastalking",
        AFRICASTALKING_USERNAME="shop",
        AFRICASTALKING_API_KEY=secrets.token_hex(16),
        AFRICASTALKING_ENDPOINT=endpoint,
        **more,
    )


def test_a_message_whose_answer_is_lost_is_unknown_until_its_report_comes(tmp_path, url, gateway):
    secret = secrets.token_urlsafe(32)
    gateway.answer = lambda asked: sms(reference="ATXid_of_the_lost")
    with (
        dropping(gateway.url) as port,
        africastalking(tmp_path, url, f"http://127.0.0.1:{port}", NOTIFICATIONS_REPORT_SECRETS=secret) as shop,
    ):
        (order,) = shop.orders(1)
        shop.work()
        wait_for(lambda: shop.counts() == {"unknown": 1}, "nobody knows")
        report = {
            "id": "ATXid_of_the_lost",
            "status": "Success",
            "phoneNumber": "+254700000001",
            "networkCode": "63902",
        }
        path = f"{shop.server.url}/api/notifications/reports/africastalking/{secret}"
        assert requests.post(path, data=report, timeout=30).status_code == 200
        told = shop.get(f"/api/orders/{order}")["notification"]
        assert (told["status"], told["attempts"]) == ("delivered", 1)
        assert len(gateway.asked) == 1
        assert secret not in shop.server.log.read_text()


def test_an_account_without_balance_is_asked_five_times_at_most_and_all_goes_out_afterwards(tmp_path, url, gateway):
    answered = Counter()
    lock, charged = threading.Lock(), threading.Event()

    def answer(asked):
        with lock:
            if not charged.is_set():
                answered["refused"] += 1
                return sms(405, "None")
            answered["sent"] += 1
            return sms(reference=f"ATXid_{answered['sent']}")

    gateway.answer = answer
    with africastalking(tmp_path, url, gateway.url) as shop:
        shop.orders(100)
        shop.work()
        wait_for(lambda: answered["refused"], "it is asked")
        # the account is charged five seconds later
        threading.Timer(5, charged.set).start()
        wait_for(lambda: shop.counts() == {"sent": 100}, "all are sent", 60)
        assert answered["refused"] <= 5
        assert {row.attempts - row.unburned for row in shop.rows(Notification)} == {1}
        (channel,) = shop.rows(Channel)
        assert (channel.paused_until, channel.pauses) == (None, 0)
        said = shop.server.log.read_text()
        assert "africastalking is down, pause 1" in said
        assert "africastalking works again" in said

"""The dispatchers: what a process that serves does about what is due."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from zope.interface.verify import verifyObject

import factories
from customer_orders.interfaces import ChannelDown, IDispatcher, Unavailable
from customer_orders.notifications.dispatch import EmbeddedDispatcher, WorkerDispatcher
from customer_orders.notifications.wakeup import Listener
from serving import wait_for

# Seconds between two looks: longer than any test takes, so that what is delivered was hinted at.
NEVER = 3600


class Outbox:
    """An outbox in which nothing is ever due; it counts the looks."""

    settings = SimpleNamespace(unrecorded=None)

    def __init__(self):
        self.looks = 0
        self.threads = set()

    def claim(self, limit, *, suspects):
        self.looks += 1
        self.threads.add(threading.current_thread())
        return []

    def renewing(self, held):
        return nullcontext()

    def sweep(self):
        """Nothing is kept."""


@pytest.fixture
def embedded():
    """Makes dispatchers, and stops them in the end."""
    made = []

    def make(poll_interval=NEVER):
        made.append(EmbeddedDispatcher(2, poll_interval))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.stop()


@pytest.mark.parametrize("dispatcher", [EmbeddedDispatcher(2, 1), WorkerDispatcher()])
def test_it_meets_the_interface(dispatcher):
    assert verifyObject(IDispatcher, dispatcher)


def test_it_starts_once_however_often_it_is_told(embedded):
    dispatcher, outbox = embedded(), Outbox()
    together = threading.Barrier(8)

    def start(_):
        together.wait(30)
        dispatcher.start(outbox)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
    wait_for(lambda: outbox.looks, "a first look")
    for look in range(2, 5):
        dispatcher.hint([])
        wait_for(lambda look=look: outbox.looks >= look, "another look")
    assert len(outbox.threads) == 1


def test_stopping_what_never_started_is_no_error():
    EmbeddedDispatcher(2, 1).stop()
    WorkerDispatcher().stop()


def test_stopping_what_is_about_to_start_is_no_error(embedded, monkeypatch):
    dispatcher, outbox = embedded(), Outbox()
    start = threading.Thread.start

    def late(thread):
        dispatcher.stop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    dispatcher.start(outbox)
    assert outbox.looks == 0


def looks_in_a_fork(dispatcher):
    """Fork, and start the dispatcher in the child; whether it looks there, what is due."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # whatever hangs in here ends
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            theirs = Outbox()
            dispatcher.start(theirs)
            wait_for(lambda: theirs.looks, "a look in the child", 10)
            os.write(writer, b"looked")
        finally:
            # nothing of the test run may go on in here
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        answer = told.read()
    return os.waitpid(child, 0)[1] == 0 and answer == b"looked"


in_threads = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@in_threads
def test_a_forked_process_starts_a_thread_of_its_own(embedded):
    dispatcher, outbox = embedded(), Outbox()
    dispatcher.start(outbox)
    wait_for(lambda: outbox.looks == 1, "the first look")
    assert looks_in_a_fork(dispatcher)
    assert outbox.looks == 1


@in_threads
def test_a_process_forked_during_the_start_starts_its_own_too(embedded, monkeypatch):
    dispatcher, outbox = embedded(), Outbox()
    start, parent, looked = threading.Thread.start, os.getpid(), []

    def fork_first(thread):
        if os.getpid() == parent:
            looked.append(looks_in_a_fork(dispatcher))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fork_first)
    dispatcher.start(outbox)
    assert looked
    assert all(looked)
    wait_for(lambda: outbox.looks == 1, "the first look")


# -- in the application -------------------------------------------------------------------------------------------


@pytest.fixture
def serving_app(make_app, database_kind):
    """An application with the embedded dispatcher, not started yet."""
    app = make_app(database_kind, **{"notifications.dispatcher": "embedded", "notifications.poll_interval": str(NEVER)})
    yield app
    app.registry.dispatcher.stop()


def status_of(client, order):
    return client.get(f"/api/orders/{order['id']}").json["notification"]["status"]


def test_making_an_application_starts_nothing(serving_app):
    assert serving_app.registry.dispatcher._worker.get() is None


def test_it_starts_with_the_first_request(serving_app, client_of):
    client = client_of(serving_app)
    client.get("/livez")
    first = serving_app.registry.dispatcher._worker.get()
    assert first._claimer.is_alive()
    client.get("/livez")
    assert serving_app.registry.dispatcher._worker.get() is first


def test_an_order_is_told_of_at_once(serving_app, client_of):
    client = client_of(serving_app)
    order = factories.order(client)
    wait_for(lambda: status_of(client, order) == "sent", "the message is sent")


def test_a_request_after_the_stop_starts_it_no_more(serving_app, client_of):
    client = client_of(serving_app)
    client.get("/livez")
    serving_app.registry.dispatcher.stop()
    factories.order(client)
    assert not serving_app.registry.dispatcher._worker.get()._claimer.is_alive()
    assert len(serving_app.registry.outbox.due(10)) == 1


def test_a_provider_that_hangs_neither_delays_nor_fails_an_order(serving_app, client_of):
    client = client_of(serving_app)
    notifier = serving_app.registry.plugins.notifiers["scripted"]
    sending, answer = threading.Event(), threading.Event()

    def hang(_):
        sending.set()
        assert answer.wait(60)

    notifier.script.extend([hang] * 4)
    try:
        orders = [factories.order(client)]
        assert sending.wait(30)
        # the provider hangs now, and answers only after these are done
        orders += [factories.order(client) for _ in range(3)]
        assert not answer.is_set()
        assert status_of(client, orders[0]) == "sending"
        client.patch_json(f"/api/orders/{orders[0]['id']}", {"item": "Coffee"}, status=200)
        client.delete(f"/api/orders/{orders[3]['id']}", status=204)
    finally:
        answer.set()
    for order in orders[:3]:
        wait_for(lambda order=order: status_of(client, order) == "sent", "the message is sent")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Unavailable("connection refused", retry_after=3600), "connection refused"),
        (ChannelDown("InsufficientBalance"), "InsufficientBalance"),
    ],
)
def test_a_provider_that_is_down_fails_no_order(serving_app, client_of, failure, reason):
    client = client_of(serving_app)
    notifier = serving_app.registry.plugins.notifiers["scripted"]
    notifier.script.append(failure)
    order = factories.order(client)

    def told():
        return client.get(f"/api/orders/{order['id']}").json["notification"]

    wait_for(lambda: told()["reason"] == reason, "it waits for another try")
    assert told()["status"] == "queued"
    assert factories.order(client)["notification"]["status"] == "queued"


def test_the_worker_dispatcher_leaves_the_outbox_alone(client, registry, notifier):
    assert isinstance(registry.dispatcher, WorkerDispatcher)
    order = factories.order(client)
    registry.dispatcher.start(registry.outbox)
    registry.dispatcher.hint([1])
    registry.dispatcher.stop()
    assert status_of(client, order) == "queued"
    assert notifier.sent == []


# -- from one process to another ----------------------------------------------------------------------------------


@pytest.fixture
def told(make_app):
    """An application whose orders are told to other processes."""
    app = make_app("postgresql")
    app.registry.dispatcher.start(app.registry.outbox)
    return app


@pytest.fixture
def heard(told):
    """How often a listener was woken."""
    woken = threading.Semaphore(0)
    listener = Listener(told.registry.database, woken.release)
    listener.start()
    yield woken
    listener.stop()
    if listener._thread.is_alive():
        listener._thread.join(30)


def test_an_order_wakes_the_workers_after_its_commit(told, client_of, heard):
    assert heard.acquire(timeout=30), "it looks once it listens"
    factories.order(client_of(told))
    assert heard.acquire(timeout=30), "it was told"
    assert len(told.registry.outbox.due(10)) == 1


def test_a_listener_whose_connection_breaks_listens_again(told, client_of, heard, monkeypatch):
    monkeypatch.setattr("customer_orders.notifications.wakeup.AGAIN", 0.1)
    assert heard.acquire(timeout=30)
    with told.registry.database.transaction() as session:
        session.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN customer_orders_outbox'")
        )
    assert heard.acquire(timeout=30), "it looks once it listens again"
    factories.order(client_of(told))
    assert heard.acquire(timeout=30), "it was told"

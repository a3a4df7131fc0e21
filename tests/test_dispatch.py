"""The thread that delivers, in a process that serves."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from zope.interface.verify import verifyObject

import factories
from customer_orders.interfaces import ChannelDown, IDispatcher, Unavailable
from customer_orders.notifications import dispatch
from customer_orders.notifications.dispatch import EmbeddedDispatcher, WorkerDispatcher
from serving import wait_for

# Seconds between two looks: longer than any test takes, so that what is delivered was hinted at.
NEVER = 3600


class Outbox:
    """An outbox that does as it is told: ``rounds`` are lists of ids, or exceptions."""

    def __init__(self, *rounds):
        self.rounds = list(rounds)
        self.delivered = []
        self.looks = self.sweeps = 0
        self.threads = set()
        self.on_deliver = lambda notification_id: None

    def due(self, limit):
        self.looks += 1
        self.threads.add(threading.current_thread())
        step = self.rounds.pop(0) if self.rounds else []
        if isinstance(step, Exception):
            raise step
        return step

    def deliver(self, notification_id):
        self.on_deliver(notification_id)
        self.delivered.append(notification_id)

    def sweep(self):
        self.sweeps += 1


@pytest.fixture
def embedded():
    """Makes dispatchers, and stops them in the end."""
    made = []

    def make(poll_interval=NEVER):
        made.append(EmbeddedDispatcher(poll_interval))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.stop()


@pytest.mark.parametrize("dispatcher", [EmbeddedDispatcher(1), WorkerDispatcher()])
def test_it_meets_the_interface(dispatcher):
    assert verifyObject(IDispatcher, dispatcher)


def test_it_starts_one_thread_however_often_it_is_told(embedded):
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


def test_it_sweeps_once_a_minute_however_often_it_looks(embedded, monkeypatch):
    dispatcher, outbox = embedded(), Outbox()
    dispatcher.start(outbox)
    wait_for(lambda: outbox.sweeps, "a first sweep")
    for look in range(2, 5):
        dispatcher.hint([])
        wait_for(lambda look=look: outbox.looks >= look, "another look")
    assert outbox.sweeps == 1
    monkeypatch.setattr(dispatch, "SWEEP", 0)
    dispatcher._loop.sweep_at = 0
    for sweep in range(2, 5):
        dispatcher.hint([])
        wait_for(lambda sweep=sweep: outbox.sweeps >= sweep, "another sweep")


def test_it_goes_on_until_nothing_is_due(embedded):
    dispatcher, outbox = embedded(), Outbox([1, 2], [3], [])
    dispatcher.start(outbox)
    wait_for(lambda: outbox.looks == 3, "the third look")
    assert outbox.delivered == [1, 2, 3]


def test_a_hint_wakes_it(embedded):
    dispatcher, outbox = embedded(), Outbox([])
    dispatcher.start(outbox)
    wait_for(lambda: outbox.looks == 1, "the first look")
    outbox.rounds.append([7])
    dispatcher.hint([7])
    wait_for(lambda: outbox.delivered == [7], "the delivery")


def test_a_hint_during_a_round_is_not_lost(embedded):
    dispatcher, outbox = embedded(), Outbox([])

    class Hinting(Outbox):
        def due(self, limit):
            found = super().due(limit)
            if self.looks == 1:
                # committed after the look
                self.rounds.append([7])
                dispatcher.hint([7])
            return found

    outbox = Hinting([])
    dispatcher.start(outbox)
    wait_for(lambda: outbox.delivered == [7], "the delivery")


def test_without_a_hint_it_looks_by_itself(embedded):
    dispatcher, outbox = embedded(poll_interval=0.01), Outbox([], [], [7])
    dispatcher.start(outbox)
    wait_for(lambda: outbox.delivered == [7], "the delivery")


def test_it_survives_an_outbox_that_fails(embedded, caplog):
    dispatcher, outbox = embedded(poll_interval=0.01), Outbox(OSError("the database is away"), [1, 2], [2])
    failures = [RuntimeError("and again")]

    def deliver(_):
        if failures:
            raise failures.pop()

    outbox.on_deliver = deliver
    dispatcher.start(outbox)
    wait_for(lambda: outbox.delivered == [2], "the delivery")
    assert caplog.text.count("a round of deliveries ended early") == 2


def test_stopping_finishes_the_message_in_flight_and_begins_no_other(embedded):
    dispatcher, outbox = embedded(), Outbox([1, 2, 3])
    sending, finish = threading.Event(), threading.Event()

    def deliver(_):
        sending.set()
        assert finish.wait(30)

    outbox.on_deliver = deliver
    dispatcher.start(outbox)
    assert sending.wait(30)
    stopper = threading.Thread(target=dispatcher.stop)
    stopper.start()
    wait_for(dispatcher._loop.stopping.is_set, "it is told to stop")
    assert stopper.is_alive()
    finish.set()
    stopper.join(30)
    assert not stopper.is_alive()
    assert outbox.delivered == [1]
    assert not dispatcher._loop.is_alive()


def test_stopping_what_never_started_is_no_error():
    EmbeddedDispatcher(1).stop()


def test_stopping_what_is_about_to_start_is_no_error(embedded, monkeypatch):
    dispatcher, outbox = embedded(), Outbox([1])
    start = threading.Thread.start

    def late(thread):
        dispatcher.stop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    dispatcher.start(outbox)
    dispatcher._loop.join(30)
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
            theirs = Outbox([])
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
    dispatcher, outbox = embedded(), Outbox([])
    dispatcher.start(outbox)
    wait_for(lambda: outbox.looks == 1, "the first look")
    assert looks_in_a_fork(dispatcher)
    assert outbox.looks == 1


@in_threads
def test_a_process_forked_during_the_start_starts_its_own_too(embedded, monkeypatch):
    dispatcher, outbox = embedded(), Outbox([])
    start, parent, looked = threading.Thread.start, os.getpid(), []

    def fork_first(thread):
        if os.getpid() == parent:
            looked.append(looks_in_a_fork(dispatcher))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fork_first)
    dispatcher.start(outbox)
    assert looked == [True]
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
    assert serving_app.registry.dispatcher._loop is None


def test_it_starts_with_the_first_request(serving_app, client_of):
    client = client_of(serving_app)
    client.get("/livez")
    first = serving_app.registry.dispatcher._loop
    assert first.is_alive()
    client.get("/livez")
    assert serving_app.registry.dispatcher._loop is first


def test_an_order_is_told_of_at_once(serving_app, client_of):
    client = client_of(serving_app)
    order = factories.order(client)
    wait_for(lambda: status_of(client, order) == "sent", "the message is sent")


def test_a_request_after_the_stop_starts_it_no_more(serving_app, client_of):
    client = client_of(serving_app)
    client.get("/livez")
    serving_app.registry.dispatcher.stop()
    factories.order(client)
    assert not serving_app.registry.dispatcher._loop.is_alive()
    assert len(serving_app.registry.outbox.due(10)) == 1


def test_a_provider_that_hangs_neither_delays_nor_fails_an_order(serving_app, client_of):
    client = client_of(serving_app)
    notifier = serving_app.registry.plugins.notifiers["scripted"]
    sending, answer = threading.Event(), threading.Event()

    def hang(_):
        sending.set()
        assert answer.wait(60)

    notifier.script.append(hang)
    try:
        orders = [factories.order(client)]
        assert sending.wait(30)
        # the provider hangs now, and answers only after these are done
        orders += [factories.order(client) for _ in range(3)]
        assert not answer.is_set()
        assert [status_of(client, order) for order in orders] == ["sending", "queued", "queued", "queued"]
        client.patch_json(f"/api/orders/{orders[0]['id']}", {"item": "Coffee"}, status=200)
        client.delete(f"/api/orders/{orders[3]['id']}", status=204)
    finally:
        answer.set()
    for order in orders[:3]:
        wait_for(lambda order=order: status_of(client, order) == "sent", "the message is sent")
    assert len(notifier.sent) == 3


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
    notifier.script.extend([failure] * 3)
    orders = [factories.order(client) for _ in range(3)]
    wait_for(lambda: len(notifier.sent) == 3, "each was tried")
    for order in orders:
        wait_for(lambda order=order: status_of(client, order) == "queued", "it waits for another try")
        assert client.get(f"/api/orders/{order['id']}").json["notification"]["reason"] == reason


def test_a_database_that_was_away_delays_what_is_due_and_loses_nothing(serving_app, client_of, caplog):
    client = client_of(serving_app)
    registry = serving_app.registry
    client.get("/livez")
    with registry.database.transaction() as session:
        session.execute(text("ALTER TABLE notification_attempts RENAME TO gone"))
    order = factories.order(client)
    wait_for(lambda: "a round of deliveries ended early" in caplog.text, "a round fails")
    assert registry.plugins.notifiers["scripted"].sent == []
    with registry.database.transaction() as session:
        session.execute(text("ALTER TABLE gone RENAME TO notification_attempts"))
    registry.dispatcher.hint([])
    wait_for(lambda: status_of(client, order) == "sent", "the message is sent")


def test_the_worker_dispatcher_leaves_the_outbox_alone(client, registry, notifier):
    assert isinstance(registry.dispatcher, WorkerDispatcher)
    order = factories.order(client)
    registry.dispatcher.start(registry.outbox)
    registry.dispatcher.hint([1])
    registry.dispatcher.stop()
    assert status_of(client, order) == "queued"
    assert notifier.sent == []

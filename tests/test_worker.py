"""The threads of one process that deliver: several at a time, and none of them can stop the others."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

import factories
from customer_orders.interfaces import ChannelDown, Receipt, Rejected
from customer_orders.notifications import worker as worker_module
from customer_orders.notifications.models import Notification, NotificationAttempt
from customer_orders.notifications.worker import Worker
from serving import wait_for

# Seconds between two looks: longer than any test takes, so that what is delivered was woken for.
NEVER = 3600


@pytest.fixture
def app(make_app, database_kind):
    """An application whose leases are short."""
    app = make_app(database_kind, **{"notifications.lease": "5"})
    yield app
    # each has connections of its own, and the server not that many
    app.registry.dispatcher.stop()
    app.registry.database.engine.dispose()


@pytest.fixture
def registry(app):
    return app.registry


@pytest.fixture
def outbox(registry):
    return registry.outbox


@pytest.fixture
def notifier(registry):
    found = registry.plugins.notifiers["scripted"]
    found.reset()
    return found


@pytest.fixture
def client(app, client_of):
    return client_of(app)


@pytest.fixture
def work(outbox):
    """Makes and starts workers, and stops them in the end."""
    made = []

    def make(concurrency=4, poll_interval=NEVER):
        made.append(Worker(outbox, concurrency, poll_interval))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        # what a test has stopped already would be waited for once more
        if not one.stopped:
            one.stop()


@pytest.fixture
def statuses(rows):
    return lambda: [row.status for row in rows(Notification)]


@pytest.fixture
def order(client):
    """Places orders of one customer: ``order(3)``."""
    customer = factories.customer(client)["id"]

    def place(count=1):
        return [factories.order(client, customer=customer) for _ in range(count)]

    return place


class Gate:
    """A step of the script that waits until the gate is open, and tells how many wait."""

    def __init__(self, result=None):
        self.result = result
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, _message):
        self.waiting.release()
        assert self.opened.wait(60)
        return self.result

    def arrived(self, count=1):
        for _ in range(count):
            assert self.waiting.acquire(timeout=30)


@pytest.fixture
def gate():
    """Makes gates, and opens them in the end."""
    made = []

    def make(result=None):
        made.append(Gate(result))
        return made[-1]

    yield make
    for one in made:
        one.opened.set()


def test_it_sends_several_at_a_time_and_no_more(order, notifier, work, statuses, gate):
    closed = gate()
    notifier.script.extend([closed] * 6)
    order(6)
    work(concurrency=4)
    closed.arrived(4)
    assert len(notifier.sent) == 4
    closed.opened.set()
    wait_for(lambda: statuses() == ["sent"] * 6, "all are sent")


def test_workers_share_what_is_due_and_send_each_once(order, notifier, work, statuses):
    order(60)
    for _ in range(3):
        work()
    wait_for(lambda: statuses() == ["sent"] * 60, "all are sent")
    assert sorted(message.key for message in notifier.sent) == sorted({message.key for message in notifier.sent})
    assert len(notifier.sent) == 60


def test_woken_it_looks_at_once(order, work, statuses):
    order()
    woken = work()
    wait_for(lambda: statuses() == ["sent"], "the first is sent")
    order()
    woken.wake()
    wait_for(lambda: statuses() == ["sent"] * 2, "the second is sent")


def test_unless_woken_it_looks_by_itself(order, work, statuses):
    work(poll_interval=0.05)
    order()
    wait_for(lambda: statuses() == ["sent"], "it is sent")


def test_a_notifier_that_raises_on_one_message_stops_no_other(order, notifier, work, statuses):
    notifier.script.extend([KeyError("odd"), SystemExit("odder")])
    order(10)
    work(concurrency=2)
    wait_for(lambda: sorted(statuses()) == ["sent"] * 8 + ["unknown"] * 2, "all have ended")


def test_a_message_that_hangs_loses_its_thread_and_stops_no_other(
    order, notifier, work, rows, statuses, later, gate, monkeypatch, caplog
):
    monkeypatch.setattr(worker_module, "HUNG", 0)
    closed = gate(Receipt("the first, late"))
    notifier.script.append(closed)
    order()
    working = work(concurrency=1)
    closed.arrived()
    order(3)
    wait_for(lambda: "hangs in the notifier" in caplog.text, "the thread is given up")
    working.wake()
    wait_for(lambda: statuses() == ["sending"] + ["sent"] * 3, "the others are sent")
    # nobody renews that lease any more
    later(6)
    working.wake()
    wait_for(lambda: statuses() == ["sent"] * 4, "it is sent again")
    reference = rows(Notification)[0].reference
    closed.opened.set()
    wait_for(lambda: "but it outlived its lease" in caplog.text, "the first is heard of")
    wait_for(lambda: "the first, late" in [one.reference for one in rows(NotificationAttempt)], "and kept on record")
    assert rows(Notification)[0].reference == reference != "the first, late"
    assert [one.outcome for one in rows(NotificationAttempt)] == ["accepted"] * 5


def test_a_lease_is_renewed_while_its_message_is_sent(order, outbox, later):
    order()
    (claim,) = outbox.claim(1)
    later(4)
    outbox.renew([claim])
    later(4)
    assert outbox.due(1) == []
    later(2)
    assert outbox.due(1) == [claim.notification_id]


def test_what_is_another_s_by_now_is_not_renewed(order, outbox, later):
    order()
    (first,) = outbox.claim(1)
    later(6)
    (second,) = outbox.claim(1)
    until = first.good_until
    outbox.renew([first])
    assert first.good_until == until
    outbox.renew([second])
    assert second.good_until > until


def test_what_waited_for_longer_than_its_lease_is_not_sent_by_it(order, notifier, work, rows, statuses):
    order(2)
    working = work(concurrency=1)

    def stopped(_):
        # as a process finds it that was stopped for long
        for claim in working._held:
            claim.good_until = 0

    notifier.script.append(stopped)
    working.wake()
    wait_for(lambda: statuses() == ["sent"] * 2, "both are sent", 30)
    assert len(notifier.sent) == 2


@pytest.fixture
def abandoned(order, outbox, later):
    """Messages whose process died with them."""

    def leave(count):
        order(count)
        claims = outbox.claim(count)
        later(6)
        return [claim.notification_id for claim in claims]

    return leave


def test_abandoned_messages_are_sent_one_at_a_time_and_hold_up_no_other(
    abandoned, order, notifier, work, statuses, gate
):
    abandoned(3)
    closed = gate()
    notifier.script.append(closed)
    order(5)
    work(concurrency=4)
    closed.arrived()
    wait_for(lambda: statuses() == ["sending"] * 3 + ["sent"] * 5, "the others are sent")
    assert len(notifier.sent) == 6
    closed.opened.set()
    wait_for(lambda: statuses() == ["sent"] * 8, "all are sent")


def test_stopping_finishes_what_is_being_sent_and_gives_the_rest_back(order, notifier, work, rows, statuses, gate):
    closed = gate()
    notifier.script.extend([closed] * 2)
    order(8)
    working = work(concurrency=2)
    closed.arrived(2)
    wait_for(lambda: statuses().count("sending") == 8, "the rest is claimed")
    stopper = threading.Thread(target=working.stop)
    stopper.start()
    wait_for(working._stopping.is_set, "it is told to stop")
    assert stopper.is_alive()
    closed.opened.set()
    stopper.join(30)
    assert not stopper.is_alive()
    assert sorted(statuses()) == ["queued"] * 6 + ["sent"] * 2
    assert {(row.attempts, row.lease_owner) for row in rows(Notification) if row.status == "queued"} == {(0, None)}
    assert len(notifier.sent) == len(rows(NotificationAttempt)) == 2
    assert not any(thread.is_alive() for thread in working._senders)


def test_stopping_waits_only_so_long_for_a_message_that_hangs(order, notifier, work, gate, monkeypatch, caplog):
    monkeypatch.setattr(worker_module, "DRAIN", 0.1)
    closed = gate()
    notifier.script.append(closed)
    order()
    working = work(concurrency=1)
    closed.arrived()
    working.stop()
    assert "1 messages were still being sent" in caplog.text


def test_stopped_before_it_began_it_does_not_begin(order, outbox, statuses):
    order()
    working = Worker(outbox, 1, NEVER)
    working.stop()
    working.start()
    assert not working._claimer.is_alive()
    assert statuses() == ["queued"]


def test_a_provider_that_is_down_is_asked_by_those_under_way_and_no_other(
    order, notifier, work, rows, statuses, registry, later
):
    notifier.script.extend([ChannelDown("InsufficientBalance")] * 4)
    order(40)
    working = work(concurrency=4)
    wait_for(lambda: notifier.sent and statuses() == ["queued"] * 40, "all wait")
    called = len(notifier.sent)
    assert 1 <= called <= 4
    assert {row.attempts - row.unburned for row in rows(Notification)} == {0}
    working.wake()
    notifier.script.clear()
    later(10)
    working.wake()
    wait_for(lambda: statuses() == ["sent"] * 40, "all are sent")
    assert len(notifier.sent) == called + 40


def test_a_database_that_was_away_loses_nothing(order, notifier, work, statuses, registry, caplog):
    order(3)

    def rename(old, new):
        with registry.database.transaction() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("channels", "gone")
    working = work(poll_interval=0.05)
    wait_for(lambda: "could not be claimed" in caplog.text, "a look fails")
    assert notifier.sent == []
    rename("gone", "channels")
    working.wake()
    wait_for(lambda: statuses() == ["sent"] * 3, "all are sent")


REFUSE = {
    "sqlite": [
        "CREATE TRIGGER refuse BEFORE INSERT ON notification_attempts WHEN NEW.reason = 'refused by the database' "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.reason = 'refused by the database' THEN RAISE 'refused'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON notification_attempts FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}


def test_a_result_that_cannot_be_recorded_keeps_no_other_from_it(
    order, notifier, work, statuses, registry, database_kind, gate
):
    with registry.database.transaction() as session:
        for statement in REFUSE[database_kind]:
            session.execute(text(statement))
    closed = gate()
    notifier.script.extend([closed, closed, closed, Rejected("refused by the database")])
    order(4)
    work(concurrency=4)
    closed.arrived(3)
    closed.opened.set()
    wait_for(lambda: sorted(statuses()) == ["sending"] + ["sent"] * 3, "the others are recorded")


@pytest.mark.parametrize(
    ("concurrency", "unrecorded", "most"), [(1, None, 1), (2, None, 3), (4, None, 7), (1, 3, 4), (4, 0, 4), (4, 9, 13)]
)
def test_no_more_is_sent_before_it_is_recorded_than_may_be_sent_twice(
    outbox, order, work, statuses, monkeypatch, concurrency, unrecorded, most
):
    messages = 30
    monkeypatch.setattr(outbox.settings, "unrecorded", unrecorded)
    send, record, counting = outbox.send, outbox.record, threading.Lock()
    begun, recorded, exposed = [], [], []

    def counted(claim):
        with counting:
            begun.append(claim)
            exposed.append(len(begun) - len(recorded))
        return send(claim)

    def slow(done):
        # until as many are begun as may be
        wait_for(lambda: len(begun) >= min(messages, len(recorded) + most), "the others go on meanwhile")
        record(done)
        with counting:
            recorded.extend(done)

    monkeypatch.setattr(outbox, "send", counted)
    monkeypatch.setattr(outbox, "record", slow)
    order(messages)
    work(concurrency)
    wait_for(lambda: statuses() == ["sent"] * messages, "all are sent")
    assert max(exposed) == most


def test_it_sweeps_once_a_minute_however_often_it_looks(outbox, work, monkeypatch):
    sweeps, looks = [], []
    monkeypatch.setattr(outbox, "sweep", lambda: sweeps.append(1))
    claim = outbox.claim
    monkeypatch.setattr(outbox, "claim", lambda *args, **options: looks.append(1) or claim(*args, **options))
    working = work()
    wait_for(lambda: sweeps, "a first sweep")
    for look in range(2, 5):
        working.wake()
        wait_for(lambda look=look: len(looks) >= look, "another look")
    assert len(sweeps) == 1

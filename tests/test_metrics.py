"""What is counted, and what is not, in one process."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from webtest import TestApp

import factories
from customer_orders.events import MessageChange, MessagesChanged, announce
from customer_orders.interfaces import ChannelDown, Cost, Receipt, Rejected, Unavailable, Uncertain
from customer_orders.metrics.exposing import Scrape, exposed
from customer_orders.metrics.happenings import in_a_word
from customer_orders.metrics.processes import Shared
from customer_orders.notifications.backlog import backlog
from customer_orders.notifications.models import Notification
from customer_orders.tracing import Tracing
from scraping import Scraped, scrape
from serving import free_port


def scraping(registry):
    """Scrapes, one after the other."""
    everything = CollectorRegistry()
    everything.register(Scrape(registry))
    return lambda: Scraped(generate_latest(everything).decode())


def scraped(registry):
    return scraping(registry)()


class Since:
    """What was counted since: the application is shared, and counters do not go back."""

    def __init__(self, registry):
        self.registry = registry
        self.before = scraped(registry)

    def __call__(self, name, **labels):
        return scraped(self.registry).total(name, **labels) - self.before.total(name, **labels)

    def by(self, name, label, **labels):
        now, before = scraped(self.registry).by(name, label, **labels), self.before.by(name, label, **labels)
        # a counter is a double: what others added before leaves its last digits behind
        return {word: more for word, count in now.items() if (more := round(count - before.get(word, 0), 9))}

    def news(self):
        """Messages by status and reason."""
        now, before = scraped(self.registry).samples, self.before.samples
        found = {}
        for (name, has), value in now.items():
            labels = dict(has)
            if name == "notifications_total" and (more := value - before.get((name, has), 0)):
                key = (labels["notifier"], labels["status"], labels["reason"])
                found[key] = more
        return found


@pytest.fixture
def since(registry):
    return Since(registry)


def report(client, registry, **fields):
    (secret,) = registry.sections["notifications"].report_secrets
    client.post_json(f"/api/notifications/reports/scripted/{secret}", [fields], status=200)


def test_an_order_counts_once_it_is_committed(client, since):
    factories.order(client)
    assert since("orders_created_total") == 1
    assert since.news() == {("none", "queued", "none"): 1}


def test_what_is_refused_rehearsed_or_repeated_counts_nothing(client, since):
    customer = factories.customer(client)["id"]
    body = {"item": "Tea", "amount": 1, "customer": customer}
    client.post_json("/api/orders/?dry_run=true", body, status=200)
    client.post_json("/api/orders/", body | {"amount": -1}, status=400)
    client.post_json("/api/orders/", body | {"customer": 10**9}, status=400)
    assert since("orders_created_total") == 0
    for _ in range(2):
        client.post_json("/api/orders/", body, headers={"Idempotency-Key": "once"}, status=201)
    assert since("orders_created_total") == 1
    assert since.news() == {("none", "queued", "none"): 1}


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("when", ["statement", "commit"])
def test_what_is_tried_again_after_a_conflict_counts_once(make_app, client_of, when, database_kind):
    app = make_app(database_kind)
    client, since = client_of(app), Since(app.registry)
    customer = factories.customer(client)["id"]
    with app.registry.database.transaction() as session:
        session.execute(text("CREATE SEQUENCE tries"))
        session.execute(
            text(
                "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF nextval('tries') <= 2 THEN RAISE 'conflict' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$"
            )
        )
        kind = {
            "statement": "CREATE TRIGGER conflict BEFORE INSERT ON notifications",
            "commit": "CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED",
        }
        session.execute(text(f"{kind[when]} FOR EACH ROW EXECUTE FUNCTION conflict()"))
    factories.order(client, customer=customer)
    with app.registry.database.transaction() as session:
        assert session.scalar(text("SELECT last_value FROM tries")) == 3
    assert since("orders_created_total") == 1
    assert since.news() == {("none", "queued", "none"): 1}
    assert since("http_requests_total", route="/api/orders/", method="POST") == 1
    assert since("http_request_duration_seconds_count", route="/api/orders/") == 1


OUTCOMES = {
    "accepted": (Receipt("ref-1", Cost(Decimal("0.25"), "KES")), "sent", "none"),
    "rejected": (Rejected("no such number +254713812939"), "failed", "rejected"),
    "blocked": (Rejected("blocked", suppressed=True), "suppressed", "rejected"),
    "uncertain": (Uncertain("no answer"), "unknown", "uncertain"),
    "defective": (RuntimeError("+254713812939"), "unknown", "error"),
    "in our words": (Rejected("deadline"), "failed", "rejected"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_becomes_of_a_message_is_counted_by_a_word_of_ours(client, since, notifier, deliver, name):
    step, status, reason = OUTCOMES[name]
    notifier.script.append(step)
    factories.order(client)
    deliver()
    assert since.news() == {("none", "queued", "none"): 1, ("scripted", status, reason): 1}
    handed = 1 if status == "sent" else 0
    assert since("notification_handover_seconds_count", notifier="scripted") == handed
    assert since.by("sms_cost_total", "currency") == ({"KES": 0.25} if handed else {})


def test_attempts_that_will_be_made_again_count_nothing_and_the_last_one_does(client, since, notifier, deliver, later):
    notifier.script.extend([Unavailable("busy")] * 3)
    factories.order(client)
    for _ in range(3):
        deliver()
        later(4000)
    assert since.news() == {("none", "queued", "none"): 1}
    deliver()
    assert since.news() == {("none", "queued", "none"): 1, ("scripted", "sent", "none"): 1}


def test_a_message_arrives_once_however_often_it_is_reported(client, registry, since, notifier, deliver, later):
    notifier.script.append(Receipt("ref-2"))
    factories.order(client)
    deliver()
    later(100)
    report(client, registry, reference="ref-2", status="sent")
    for _ in range(3):
        report(client, registry, reference="ref-2", status="delivered")
    report(client, registry, reference="ref-2", status="failed", reason="off")
    assert since.news() == {
        ("none", "queued", "none"): 1,
        ("scripted", "sent", "none"): 1,
        ("scripted", "delivered", "none"): 1,
    }
    assert since("order_to_handset_seconds_count", notifier="scripted") == 1
    assert 100 <= since("order_to_handset_seconds_sum", notifier="scripted") < 120
    # and the next message, of the same order, is not from when it was placed
    (order,) = client.get("/api/orders/").json
    client.patch_json(f"/api/orders/{order['id']}", {"status": "confirmed"})
    notifier.script.append(Receipt("ref-3"))
    deliver()
    report(client, registry, reference="ref-3", status="delivered")
    assert since("order_to_handset_seconds_count") == 1


def test_what_is_reported_is_counted_as_of_the_notifier_that_reported_it(client, registry, since, notifier, deliver):
    notifier.script.append(Receipt("ref-5"))
    message = factories.order(client)["notification"]["id"]
    deliver()
    with registry.database.transaction() as session:
        # another has tried since, in vain
        session.get_one(Notification, message).notifier = "pigeon"
    report(client, registry, reference="ref-5", status="delivered")
    assert since.news()[("scripted", "delivered", "none")] == 1
    assert since("order_to_handset_seconds_count", notifier="scripted") == 1


def test_a_reported_failure_and_a_report_that_never_came(client, registry, since, notifier, deliver, later):
    notifier.script.extend([Receipt("ref-4"), Receipt("ref-5")])
    for _ in range(2):
        factories.order(client)
    deliver()
    report(client, registry, reference="ref-4", status="failed", reason="0713 812 939 is off")
    later(hours=73)
    registry.outbox.sweep()
    news = since.news()
    assert news["scripted", "failed", "reported"] == 1
    assert news["scripted", "expired", "no_report"] == 1


def test_what_is_taken_back_is_counted_once(client, registry, since):
    first, second, third = (factories.order(client) for _ in range(3))
    client.patch_json(f"/api/orders/{first['id']}", {"status": "cancelled"})
    client.delete(f"/api/orders/{second['id']}", status=204)
    # of the first customer's two messages one is cancelled already
    for order in (first, third, third):
        client.post_json(f"/api/customers/{order['customer']}/anonymize", {}, status="*")
    assert since.news() == {
        ("none", "queued", "none"): 4,
        ("none", "cancelled", "order_cancelled"): 1,
        ("none", "cancelled", "order_deleted"): 1,
        ("none", "cancelled", "anonymized"): 2,
    }


def test_what_nobody_sent_in_time_and_what_is_sent_again(client, registry, since, later):
    order = factories.order(client)
    later(hours=73)
    registry.outbox.sweep()
    assert since.news() == {("none", "queued", "none"): 1, ("none", "failed", "deadline"): 1}
    message = order["notification"]["id"]
    client.post_json(f"/api/notifications/{message}/resend", {}, status="*")
    assert since.news() == {("none", "queued", "none"): 2, ("none", "failed", "deadline"): 1}


def test_the_hand_over_is_counted_from_when_a_message_might_be_sent(client, registry, since, deliver, later):
    factories.order(client)
    later(90)
    deliver()
    total = since("notification_handover_seconds_sum", notifier="scripted")
    assert 90 <= total < 110
    assert since("notification_handover_seconds_bucket", le="60.0") == 0
    assert since("notification_handover_seconds_bucket", le="120.0") == 1


def test_the_quiet_hours_are_no_delay(make_app, client_of, database_kind):
    app = make_app(database_kind, **{"notifications.quiet_hours": "00:00-23:59 UTC"})
    registry, client = app.registry, client_of(app)
    order = factories.order(client)
    row = client.get(f"/api/notifications/{order['notification']['id']}").json
    assert scraped(registry).total("outbox_oldest_seconds") == 0
    assert scraped(registry).total("outbox_depth", status="queued") == 1
    with registry.database.transaction(writes=False) as session:
        due = session.get(Notification, order["notification"]["id"]).next_attempt_at
        created = session.get(Notification, order["notification"]["id"]).created_at
    assert row["status"] == "queued"
    registry.database.clock_offset = due - created + timedelta(seconds=20)
    for message in registry.outbox.due(10):
        registry.outbox.deliver(message)
    assert 15 <= scraped(registry).total("notification_handover_seconds_sum") < 60


def test_a_channel_that_pauses(client, registry, since, notifier, deliver):
    assert scraped(registry).total("channel_paused", notifier="scripted") == 0
    notifier.script.append(ChannelDown("no credit"))
    factories.order(client)
    deliver()
    assert since("channel_pauses_total", notifier="scripted") == 1
    assert scraped(registry).total("channel_paused", notifier="scripted") == 1


def test_the_outbox_tells_what_waits_and_for_how_long(client, registry, later):
    assert scraped(registry).by("outbox_depth", "status") == {"queued": 0, "sending": 0}
    assert scraped(registry).total("outbox_oldest_seconds") == 0
    factories.order(client)
    later(50)
    factories.order(client)
    found = scraped(registry)
    assert found.total("outbox_depth", status="queued") == 2
    assert 50 <= found.total("outbox_oldest_seconds") < 70
    # a lease that nobody renews
    (_, claim) = registry.outbox.claim(2)
    assert claim.number == 1
    found = scraped(registry)
    assert (found.total("outbox_depth", status="sending"), found.total("outbox_oldest_seconds")) == (2, 0)
    later(160)
    assert 95 <= scraped(registry).total("outbox_oldest_seconds") < 115


def test_the_database_is_asked_by_an_index(registry):
    asked = []

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    engine = registry.database.engine
    with registry.database.transaction(writes=False) as session:
        event.listen(engine, "before_cursor_execute", note)
        backlog(session)
        event.remove(engine, "before_cursor_execute", note)
        of_messages = [one for one in asked if "FROM notifications" in one[0]]
        assert len(of_messages) == 3
        if engine.name == "postgresql":
            # of an empty table it would read all
            session.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN" if engine.name == "postgresql" else "EXPLAIN QUERY PLAN"
        for statement, parameters in of_messages:
            plan = str(session.connection().exec_driver_sql(f"{explain} {statement}", parameters).all())
            assert "ix_notifications_status_" in plan
            assert "Seq Scan" not in plan
            assert "SCAN notifications" not in plan


def test_while_the_database_is_away_all_else_is_told(make_app, client_of, database_kind, caplog):
    app = make_app(database_kind)
    registry = app.registry
    factories.order(client_of(app))
    assert scraped(registry).total("database_up") == 1
    with registry.database.transaction() as session:
        session.execute(text("ALTER TABLE channels RENAME TO gone"))
    again = scraping(registry)
    for _ in range(2):
        found = again()
        assert ("database_up", frozenset()) in found.samples
        assert found.total("database_up") == 0
        assert not [name for name, _ in found.samples if name.startswith(("outbox_", "channel_paused"))]
        assert found.total("orders_created_total") == 1
    # once, and not at each scrape
    assert caplog.text.count("the metrics of the outbox are absent") == 1
    with registry.database.transaction() as session:
        session.execute(text("ALTER TABLE gone RENAME TO channels"))
    assert scraped(registry).total("database_up") == 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_database_that_does_not_answer_in_time_keeps_no_scrape(make_app, database_kind, monkeypatch):
    monkeypatch.setattr("customer_orders.metrics.stored.PATIENCE", 1)
    registry = make_app(database_kind).registry
    assert scraped(registry).total("database_up") == 1
    with registry.database.engine.connect() as holding:
        holding.execute(text("LOCK TABLE channels IN ACCESS EXCLUSIVE MODE"))
        assert scraped(registry).total("database_up") == 0
        holding.rollback()
    assert scraped(registry).total("database_up") == 1


def test_requests_are_counted_by_pattern(client, anonymous, since):
    order = factories.order(client)
    for _ in range(2):
        client.get(f"/api/orders/{order['id']}", status=200)
    client.get("/api/orders/999999999", status=404)
    anonymous.get("/api/orders/1", status=401)
    anonymous.get("/some/secret/path", status=404)
    # no lint: it would not have such a method pass
    TestApp(anonymous.app, lint=False).request("/livez", method="BREW", status=405)
    assert since.by("http_requests_total", "status", route="/api/orders/{id}", method="GET") == {
        "200": 2,
        "404": 1,
        "401": 1,
    }
    assert since("http_requests_total", route="none", status="404") == 1
    assert since("http_requests_total", method="_OTHER", status="405") == 1
    text_of_all = scraped(since.registry).text
    assert "secret/path" not in text_of_all
    assert "BREW" not in text_of_all
    assert scraped(since.registry).total("http_requests_in_progress") == 0


def test_a_secret_in_a_path_is_nowhere(client, registry, since):
    (secret,) = registry.sections["notifications"].report_secrets
    client.post_json(f"/api/notifications/reports/scripted/{secret}", [{"reference": "x", "status": "sent"}])
    found = scraped(registry)
    assert secret not in found.text
    assert since("http_requests_total", route="/api/notifications/reports/{notifier}/{secret}", status="200") == 1


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (None, "none"),
        ("too_long: 7 segments, 6 is the most", "too_long"),
        ("template_error: KeyError", "template_error"),
        ("the number +254713812939 is off", "other"),
        ("", "other"),
    ],
)
def test_reasons_are_words_of_a_closed_list(reason, word):
    assert in_a_word(reason) == word


def test_a_currency_that_there_is_not_is_counted_as_other(registry, since):
    with registry.database.transaction() as session:
        announce(session, MessagesChanged([MessageChange("scripted", "sent", cost=(Decimal(1), "ZZZ"))]))
    assert since.by("sms_cost_total", "currency") == {"other": 1}


def test_what_cannot_be_counted_is_committed_all_the_same(client, registry, since, monkeypatch, caplog):
    def fail():
        raise OSError("no space left on device")

    monkeypatch.setattr(registry.measures.orders_created, "inc", fail)
    assert factories.order(client)["id"]
    assert "what was committed could not be counted" in caplog.text


def test_a_report_that_no_trace_can_be_told_of_counts_all_the_same(
    client, registry, since, notifier, deliver, monkeypatch, caplog
):
    def fail(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Tracing, "hear", fail)
    notifier.script.append(Receipt("ref-4"))
    message = factories.order(client)["notification"]["id"]
    deliver()
    with registry.database.transaction() as session:
        session.get_one(Notification, message).traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    report(client, registry, reference="ref-4", status="delivered")
    assert client.get(f"/api/notifications/{message}").json["status"] == "delivered"
    assert since.news()[("scripted", "delivered", "none")] == 1
    assert "a trace could not be told of a report" in caplog.text


@pytest.mark.parametrize("what", ["requests", "request_seconds"])
def test_a_request_that_cannot_be_counted_is_answered_all_the_same(client, registry, monkeypatch, caplog, what):
    def fail(*_):
        raise OSError("cannot allocate memory")

    monkeypatch.setattr(getattr(registry.measures, what), "labels", fail)
    client.get("/livez", status=200)
    assert "a request could not be told of" in caplog.text
    assert scraped(registry).total("http_requests_in_progress") == 0


def test_the_pool_tells_what_is_out_and_what_was_waited_for(make_app, database_kind):
    settings = {"sqlalchemy.pool_size": "2", "sqlalchemy.max_overflow": "1", "sqlalchemy.pool_timeout": "1"}
    registry = make_app(database_kind, **settings).registry
    engine, since = registry.database.engine, Since(registry)

    def told():
        # not by a scrape, which takes a connection itself
        found = Scraped(generate_latest(registry.measures.registry).decode())
        return [found.total(f"db_pool_{name}") for name in ("size", "max_overflow", "checked_out", "overflow")]

    assert told() == [2, 1, 0, 0]
    held = [engine.connect() for _ in range(3)]
    assert told() == [2, 1, 3, 1]
    with pytest.raises(PoolTimeout):
        engine.connect()
    for connection in held:
        connection.close()
    assert told() == [2, 1, 0, 0]
    assert since("db_pool_timeouts_total") == 1
    assert since("db_pool_wait_seconds_count") >= 3
    with engine.connect() as connection:
        connection.invalidate()
    assert told() == [2, 1, 0, 0]
    engine.dispose()
    with engine.connect():
        assert told() == [2, 1, 1, 0]


def test_it_is_told_at_its_own_port_and_no_longer_than_it_is_asked_to(make_app, client_of, database_kind):
    address = f"127.0.0.1:{free_port()}"
    app = make_app(database_kind, **{"metrics.listen": address})
    with exposed(app.registry) as folder:
        assert folder is None
        factories.order(client_of(app))
        assert scrape(address).total("orders_created_total") == 1
        assert "customer_orders_info" in scrape(address).text
    with pytest.raises(requests.ConnectionError):
        scrape(address)
    client_of(app).get("/metrics", status=404)


CHILD = """
import sys
from prometheus_client import CollectorRegistry
from customer_orders.metrics.processes import share
share(sys.argv[1])
from customer_orders.metrics.measures import Measures
measures = Measures()
measures.orders_created.inc(3)
measures.pool_size.set(5)
measures.handover_seconds.labels("x").observe(0.7)
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_the_dead_have_counted_stays_in_one_file_and_their_gauges_go(tmp_path):
    everything = CollectorRegistry()
    everything.register(Shared(str(tmp_path)))

    def told():
        return Scraped(generate_latest(everything).decode())

    for generation in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout.readline() == b"ready\n"
            for _ in range(2):
                found = told()
                assert found.total("orders_created_total") == 3 * generation
                assert found.total("db_pool_size") == 5
            process.kill()
        for _ in range(2):
            found = told()
            assert found.total("orders_created_total") == 3 * generation
            assert found.total("db_pool_size") == 0
            assert found.total("notification_handover_seconds_count") == generation
            assert found.total("notification_handover_seconds_bucket", le="1.0") == generation
            assert found.total("notification_handover_seconds_bucket", le="0.5") == 0
        assert {file.name for file in tmp_path.iterdir()} == {"counter_dead.db", "histogram_dead.db"}


def test_of_a_process_that_died_while_it_made_its_file_nothing_is_left(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for kind in ("counter", "gauge_livesum"):
        (tmp_path / f"{kind}_{child.pid}.db").touch()
    assert list(Shared(str(tmp_path)).collect()) == []
    assert list(tmp_path.iterdir()) == []

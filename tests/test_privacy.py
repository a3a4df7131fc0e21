"""Forgetting a customer, and telling all that is held on one."""

from __future__ import annotations

import secrets
import threading

import pytest
from sqlalchemy import JSON, String, Text, event, select, text, update

import factories
from contract import assert_problem
from customer_orders.interfaces import Receipt, Rejected, Unavailable, Uncertain
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt
from customer_orders.settings import section
from customer_orders.tables import Base
from serving import wait_for

# Every column of text, by whether it can tell who a customer is: a new one has to be put into one of the two.
PERSONAL = {
    "customers": {"username", "phone_number", "reference", "metadata", "language"},
    "orders": {"item", "reference", "metadata"},
    "notifications": {"recipient", "text", "reason", "reference"},
    "notification_attempts": {"reason", "reference"},
    "delivery_reports": {"recipient", "reason", "reference"},
    "idempotency_keys": {"body", "fingerprint"},
}
IMPERSONAL = {
    "customers": {"sms_opt_out_source"},
    "orders": {"currency", "status"},
    "notifications": {
        *("event", "channel", "language", "encoding", "status", "lease_owner", "notifier", "cost_currency"),
        # text on SQLite
        "cost_amount",
        # of the staff
        *("request_id", "traceparent"),
    },
    "notification_attempts": {"lease_owner", "notifier", "outcome"},
    "delivery_reports": {"notifier", "status"},
    # a key is the caller's own, and kept for a day
    "idempotency_keys": {"principal", "operation", "key", "headers"},
    # masked when it is written, and of the notifier
    "channels": {"notifier", "probe_owner", "reason"},
    # of the staff
    "refresh_families": {"client"},
    "api_keys": {"name", "role", "secret_hash"},
    "users": {"email", "name", "role", "granted_role"},
    "external_identities": {"provider", "subject"},
    "refresh_tokens": {"token_hash"},
    # never a value that tells of a person: see audit/fields.py
    "audit_entries": {
        *("action", "actor_kind", "actor_name", "subject_kind", "fields", "before", "after"),
        # of the staff
        *("request_id", "address"),
    },
}


@pytest.fixture
def app(make_app, database_kind):
    """An application whose messages name their customers."""
    words = "Dear {{ customer.username }}, {{ customer.reference }}: {{ order.item }}"
    templates = {
        f"notifications.template.order_{event}": words for event in ("placed", "confirmed", "fulfilled", "cancelled")
    }
    app = make_app(database_kind, **templates)
    yield app
    app.registry.dispatcher.stop()
    app.registry.database.engine.dispose()


@pytest.fixture
def client(app, client_of):
    return client_of(app)


@pytest.fixture
def notifier(registry):
    found = registry.plugins.notifiers["scripted"]
    found.reset()
    return found


class Person:
    """Somebody of whom nobody else has anything: ``canaries`` is what a search looks for."""

    def __init__(self, client):
        self.client = client
        self.digits = f"2547{secrets.randbelow(10**8):08d}"
        self.phone, self.word = f"+{self.digits}", f"canary{secrets.token_hex(6)}"
        self.body = {
            "username": f"Wanjiku {self.word}",
            "phone_number": self.phone,
            "reference": f"ref {self.word}",
            "metadata": {"address": f"12 {self.word} Road"},
            "language": "sw",
        }
        self.id = self.post("/api/customers/", **self.body)["id"]
        self.url = f"/api/customers/{self.id}"
        self.orders = []

    @property
    def canaries(self):
        return (self.word, self.digits, self.digits[3:])

    def post(self, path, *, client=None, status=201, **body):
        key = {"Idempotency-Key": secrets.token_hex(8)}
        return (client or self.client).post_json(path, body, headers=key, status=status).json

    def order(self, *, status=201, **more):
        """An order that says a lot of its customer."""
        body = {"item": f"Tea for {self.phone}", "amount": 700, "customer": self.id}
        body |= {"reference": f"{secrets.token_hex(4)} {self.digits}", "metadata": {"to": self.word}, **more}
        self.orders.append(self.post("/api/orders/", status=status, **body))
        return self.orders[-1]

    def anonymize(self):
        return self.client.post(f"{self.url}/anonymize", status=200).json


@pytest.fixture
def person(client, notifier):
    return Person(client)


@pytest.fixture
def search(registry):
    """Where any of these words is, in every column of every table: ``search("canary")``."""

    def find(*words):
        found = []
        with registry.database.engine.connect() as connection:
            for table in Base.metadata.sorted_tables:
                for row in connection.execute(select(table)).mappings():
                    found += [
                        f"{table.name}.{column}"
                        for column, value in row.items()
                        if any(word in str(value) for word in words)
                    ]
        return found

    return find


@pytest.fixture
def report(anonymous, registry):
    """Reports as the provider does."""
    path = f"/api/notifications/reports/scripted/{section(registry, 'notifications').report_secrets[0]}"
    return lambda *told: anonymous.post_json(path, told)


# -- forgetting ---------------------------------------------------------------------------------------------------


def test_every_column_of_text_is_known_to_be_personal_or_not():
    texts = {
        table.name: {column.name for column in table.c if isinstance(column.type, String | Text | JSON)}
        for table in Base.metadata.sorted_tables
    }
    for name, columns in texts.items():
        known = PERSONAL.get(name, set()) | IMPERSONAL.get(name, set())
        assert columns <= known, f"{name}: {columns - known}"
        assert not PERSONAL.get(name, set()) & IMPERSONAL.get(name, set())


@pytest.fixture
def full(person, notifier, deliver, report, registry):
    """A person of whom every column that can tell of one does."""
    person.order()
    notifier.script += [Receipt(f"id-{person.digits}")]
    deliver()
    sent = f"id-{person.digits}"
    report(
        {"reference": sent, "status": "delivered", "to": person.phone},
        {"reference": f"id-of-nobody-{secrets.token_hex(4)}", "status": "sent", "to": person.phone},
    )
    person.order()
    notifier.script += [Rejected(f"no such number: {person.phone}")]
    deliver()
    failed = person.orders[-1]["notification"]["id"]
    person.post(f"/api/notifications/{failed}/resend", status=200)
    # as versions before this one wrote it, numbers and all
    ids = select(Notification.id).where(Notification.customer_id == person.id).scalar_subquery()
    with registry.database.transaction() as session:
        for model, theirs in (
            (Notification, Notification.customer_id == person.id),
            (NotificationAttempt, NotificationAttempt.notification_id.in_(ids)),
            (DeliveryReport, DeliveryReport.recipient == person.phone),
        ):
            session.execute(
                update(model).where(theirs).values(reason=f"{model.__tablename__} {person.phone}"),
                execution_options={"synchronize_session": False},
            )
    return person


def test_export_tells_all_that_is_held_and_anonymize_leaves_nothing_of_it(full, client, search):
    person = full
    held = set(search(*person.canaries))
    # a hash tells nothing by itself, and a language is of many
    expected = {f"{table}.{column}" for table, columns in PERSONAL.items() for column in columns}
    assert held == expected - {"idempotency_keys.fingerprint", "customers.language"}
    answer = client.get(f"{person.url}/export", status=200)
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json
    assert told["customer"] == client.get(person.url).json
    assert told["customer"]["phone_number"] == person.phone
    assert [one["id"] for one in told["orders"]] == [one["id"] for one in person.orders]
    assert [one["amount"] for one in told["orders"]] == [700, 700]
    assert told["orders"][0] == client.get(f"/api/orders/{person.orders[0]['id']}").json
    messages = told["notifications"]
    assert [one["recipient"] for one in messages] == [person.phone] * 2
    assert all(person.word in one["text"] for one in messages)
    assert [one["attempt_log"][0]["reason"] for one in messages] == [f"notification_attempts {person.phone}"] * 2
    assert [one["reason"] for one in messages] == [f"notifications {person.phone}"] * 2
    (heard,) = messages[0]["delivery_reports"]
    assert (heard["reference"], heard["recipient"]) == (f"id-{person.digits}", person.phone)
    assert [one["recipient"] for one in told["delivery_reports"]] == [person.phone]
    assert [one["action"] for one in told["events"]] == ["customer.created"]
    assert {one["operation"] for one in told["kept_answers"]} == {
        "POST /api/customers/",
        "POST /api/orders/",
        "POST /api/notifications/{id}/resend",
    }
    assert {one["answer"]["id"] for one in told["kept_answers"]} >= {person.id, person.orders[0]["id"]}

    person.anonymize()
    assert search(*person.canaries) == []
    assert not any(word in client.get(f"{person.url}/export").text for word in person.canaries)
    assert client.get(f"{person.url}/export").json["kept_answers"] == []


def test_somebody_elses_data_stays_as_it_is(full, client, search, registry):
    other = Person(client)
    other.order()
    # whose id begins with the same digits, in an answer that is kept
    before = [f"{table.name}" for table in Base.metadata.sorted_tables for _ in search(other.word)]
    shown = client.get(f"{other.url}/export").json
    assert [one["action"] for one in shown["events"]] == ["customer.created"]
    full.anonymize()
    assert [f"{table.name}" for table in Base.metadata.sorted_tables for _ in search(other.word)] == before
    again = client.get(f"{other.url}/export").json
    # that it was asked for is on record
    assert again["events"].pop()["action"] == "customer.exported"
    assert again == shown


def test_orders_and_sums_stay(full, client):
    before = client.get("/api/stats").json
    orders = [client.get(f"/api/orders/{one['id']}").json for one in full.orders]
    full.anonymize()
    after = client.get("/api/stats").json
    assert (after["orders"], after["cost"]) == (before["orders"], before["cost"])
    for one in orders:
        now = client.get(f"/api/orders/{one['id']}").json
        for name in ("amount", "currency", "status", "customer", "created_at"):
            assert now[name] == one[name]
        assert (now["metadata"], now["reference"], now["item"]) == ({}, None, "Tea for anonymized")


@pytest.mark.parametrize(("name", "reference", "left"), [("Asha", "for asha, 17", None), ("Jo", "JOB-17", "JOB-17")])
def test_a_reference_that_holds_the_name_goes(client, name, reference, left):
    customer = factories.customer(client, username=name)["id"]
    placed = factories.order(client, customer=customer, reference=reference)
    client.post(f"/api/customers/{customer}/anonymize", status=200)
    assert client.get(f"/api/orders/{placed['id']}").json["reference"] == left


def test_what_the_books_need_stays_with_an_order(person, client):
    placed = person.order(item="Tea", reference="R-17")
    person.anonymize()
    now = client.get(f"/api/orders/{placed['id']}").json
    assert (now["item"], now["reference"]) == ("Tea", "R-17")


def test_an_anonymized_customer_is_shown_and_listed(person, client):
    shown = person.anonymize()
    expected = {"username": "anonymized", "phone_number": None, "reference": None, "metadata": {}, "language": None}
    assert {name: shown[name] for name in expected} == expected
    assert shown["anonymized_at"] == shown["updated_at"] > shown["created_at"]
    assert client.get(person.url).json == shown
    assert shown in client.get("/api/customers/?q=anonymized&ordering=-updated_at").json
    assert client.get("/api/customers/", {"phone": person.phone}).json == []
    placed = client.get(f"/api/orders/?customer={person.id}&expand=customer").json
    assert placed == []


def test_the_same_again_changes_nothing(person, client):
    first = person.anonymize()
    tag = client.get(person.url).headers["ETag"]
    assert person.anonymize() == first
    assert client.get(person.url).headers["ETag"] == tag


def test_nobody_is_there_to_be_forgotten_or_told_of(client):
    for answer in (
        client.post("/api/customers/4611686018427387904/anonymize", status="*"),
        client.get("/api/customers/4611686018427387904/export", status="*"),
    ):
        assert_problem(answer, 404, "not-found")


def test_their_number_and_reference_are_free_again(person, client):
    person.anonymize()
    again = client.post_json("/api/customers/", person.body, status=201).json
    assert again["id"] != person.id
    assert client.get("/api/customers/", {"phone": person.phone}).json == [again]


def test_nothing_new_is_kept_on_them(person, client):
    placed = person.order(item="Tea", reference=f"R-{person.word}")
    person.anonymize()
    order = f"/api/orders/{placed['id']}"
    own = {"username": "Jane", "phone_number": "0713812939"}
    other = factories.order(client)["id"]
    for answer in (
        client.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": person.id}, status="*"),
        client.put_json(person.url, own, status="*"),
        client.patch_json(person.url, {"metadata": {"a": "b"}}, status="*"),
        client.patch_json(f"/api/orders/{other}", {"customer": person.id}, status="*"),
        # as it was read before
        client.put_json(order, {"item": "Tea", "amount": 1, "customer": person.id, "metadata": {"a": "b"}}, status="*"),
        client.patch_json(order, {"reference": "R-18"}, status="*"),
        client.patch_json(order, {"item": "Coffee"}, status="*"),
    ):
        assert_problem(answer, 409, "customer-anonymized")
    # the order goes on, and tells nobody
    client.put_json(order, {"item": "Tea", "amount": 900, "customer": person.id}, status=200)
    moved = client.patch_json(order, {"status": "confirmed"}, status=200).json
    assert (moved["amount"], moved["status"]) == (900, "confirmed")
    assert (moved["notification"]["status"], moved["notification"]["reason"]) == ("suppressed", "anonymized")
    client.delete(order, status=204)
    client.delete(person.url, status=204)


def test_a_repeat_of_what_told_of_them_is_told_that_it_was_done(client, person):
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"item": "Tea", "amount": 1, "customer": person.id}
    client.post_json("/api/orders/", body, headers=headers, status=201)
    person.anonymize()
    for repeated in (body, {**body, "amount": 2}):
        again = client.post_json("/api/orders/", repeated, headers=headers, status="*")
        assert_problem(again, 409, "idempotency-answer-gone")
    assert len(client.get(f"/api/orders/?customer={person.id}").json) == 1


# -- messages -----------------------------------------------------------------------------------------------------


def message(client, order):
    return client.get(f"/api/notifications/{order['notification']['id']}").json


def test_what_is_queued_is_cancelled(person, client, deliver, notifier):
    placed = person.order()
    person.anonymize()
    told = message(client, placed)
    assert (told["status"], told["reason"], told["recipient"], told["text"]) == ("cancelled", "anonymized", None, "")
    deliver()
    assert [one for one in notifier.sent if person.phone == one.to] == []
    assert_problem(client.post(f"/api/notifications/{told['id']}/resend", status="*"), 409, "message-obsolete")


@pytest.mark.parametrize("comes", ["accepted", "unavailable", "rejected", "uncertain"])
def test_a_worker_that_is_sending_writes_no_number_back(person, client, deliver, notifier, search, comes, later):
    """It has number and text in its memory, and the provider says both."""
    placed = person.order()
    said = f"{person.phone} {person.digits}"
    outcomes = {
        "accepted": (lambda: Receipt("taken"), "sent", None),
        "unavailable": (lambda: Unavailable(said), "cancelled", "anonymized"),
        "rejected": (lambda: Rejected(said), "failed", "+2547...{0} 2547...{0}"),
        "uncertain": (lambda: Uncertain(said), "unknown", "anonymized"),
    }
    outcome, status, reason = outcomes[comes]

    def send(_message):
        person.anonymize()
        return outcome()

    notifier.script += [send]
    deliver()
    told = message(client, placed)
    assert (told["status"], told["recipient"], told["text"]) == (status, None, "")
    assert told["reason"] == (reason and reason.format(person.digits[-3:]))
    assert search(*person.canaries) == []
    later(days=40)
    deliver()
    assert len(notifier.sent) == 1
    answer = client.post(f"/api/notifications/{told['id']}/resend", status="*")
    assert answer.json["code"] in ("message-obsolete", "already-sent")


def test_a_message_whose_process_died_is_not_sent_again(person, client, registry, notifier, later, deliver):
    placed = person.order()
    (claim,) = registry.outbox.claim(1, only=placed["notification"]["id"])
    person.anonymize()
    later(hours=1)
    deliver()
    assert (message(client, placed)["status"], notifier.sent) == ("cancelled", [])
    registry.outbox.record([(claim, registry.outbox.send(claim))])
    assert message(client, placed)["recipient"] is None


def test_what_may_have_been_sent_is_not_sent_again(make_app, client_of, database_kind):
    app = make_app(database_kind, **{"notifications.retry_unknown": "once"})
    person, found = Person(client_of(app)), app.registry.plugins.notifiers["scripted"]
    person.order()
    found.script += [Uncertain("no answer")]
    (claim,) = app.registry.outbox.claim(1)
    app.registry.outbox.record([(claim, app.registry.outbox.send(claim))])
    person.anonymize()
    app.registry.database.clock_offset += app.registry.database.clock_offset.resolution * 10**6 * 86400 * 2
    app.registry.outbox.sweep()
    assert app.registry.outbox.due(10) == []


@pytest.mark.parametrize("bound", [True, False])
def test_a_report_that_comes_afterwards_leaves_no_number(person, client, deliver, report, search, bound, rows):
    placed = person.order()
    deliver()
    reference = message(client, placed)["reference"] if bound else f"unknown-{secrets.token_hex(4)}"
    person.anonymize()
    report({"reference": reference, "status": "delivered", "to": person.phone, "reason": f"by {person.phone}"})
    assert search(*person.canaries) == []
    assert message(client, placed)["status"] == ("delivered" if bound else "sent")
    assert reference in [one.reference for one in rows(DeliveryReport)]


def test_a_number_that_a_provider_repeats_is_masked_when_kept(person, client, deliver, notifier, report, search):
    placed = person.order(item="Tea", reference=None)
    notifier.script += [Rejected(f"no such number: {person.phone}")]
    deliver()
    told = message(client, placed)
    assert told["reason"] == told["attempt_log"][0]["reason"] == f"no such number: +2547...{person.digits[-3:]}"
    report({"reference": "x1", "status": "failed", "reason": f"{person.phone} is off", "to": person.phone})
    assert {one for one in search(person.digits) if one.endswith(".reason")} == set()


# -- at the same moment -------------------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(registry, database_kind):
    """Has ``act`` begin just before the next COMMIT, in a thread, and go on once it is done or waits for a lock.

    ``finish()`` ends it. On SQLite, where one writes at a time, it waits for its turn: nothing tells that it does.
    """
    engine, listening, threads = registry.database.engine, [], []

    def waits(thread):
        with engine.connect() as connection:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return not thread.is_alive() or connection.scalar(text(query))

    def arrange(act, nth=1):
        commits = []

        def now(_connection):
            commits.append(1)
            if len(commits) == nth:
                threads.append(threading.Thread(target=act))
                threads[-1].start()
                if database_kind == "postgresql":
                    wait_for(lambda: waits(threads[-1]), "the thread ends or waits for a lock")

        event.listen(engine, "commit", now)
        listening.append(now)

    def finish():
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert threads

    arrange.finish = finish  # type: ignore[attr-defined]
    yield arrange
    for now in listening:
        event.remove(engine, "commit", now)


ACTS = ["place", "describe", "change", "confirm", "resend", "resend_all", "deliver", "fail", "report", "unmatched"]
# COMMITs until that of what matters: a delivery looks for what is due, claims, and records.
COMMITS = [(act, 1) for act in ACTS] + [("deliver", 2), ("deliver", 3), ("fail", 3)]


@pytest.fixture
def act(request, person, client_of, app, deliver, notifier, report):
    """What somebody else does about the person; whether it is done or refused is all the same."""
    other = client_of(app)
    # PostgreSQL shuts everybody out from a row whose unique column changes; the others must be kept out too
    other.patch_json(person.url, {"reference": None})
    placed = person.order()
    name, order, reference = request.param, f"/api/orders/{placed['id']}", secrets.token_hex(4)
    if name in ("resend", "resend_all"):
        notifier.script += [Rejected("InvalidPhoneNumber")]
        deliver()
    elif name in ("report", "unmatched"):
        notifier.script += [Receipt(reference)]
        deliver()
    elif name == "fail":
        notifier.script += [Unavailable(f"{person.phone} is busy")]
    said = {"status": "failed", "to": person.phone, "reason": f"{person.phone} is off"}

    def patch(path, **body):
        return other.patch_json(path, body, status="*")

    def post(path, **body):
        return person.post(path, client=other, status="*", **body)

    return {
        "place": lambda: post("/api/orders/", item=f"For {person.phone}", amount=1, customer=person.id),
        "describe": lambda: patch(order, metadata={"more": person.word}, reference=f"S {person.digits}"),
        "change": lambda: patch(person.url, metadata={"more": person.word}, username=f"New {person.word}"),
        "confirm": lambda: patch(order, status="confirmed"),
        "resend": lambda: post(f"/api/notifications/{placed['notification']['id']}/resend"),
        "resend_all": lambda: other.post_json("/api/notifications/resend", {"status": ["failed"]}, status="*"),
        "deliver": deliver,
        "fail": deliver,
        "report": lambda: report({"reference": reference, **said}),
        "unmatched": lambda: report({"reference": f"nobodys {reference}", **said}),
    }[name]


@pytest.mark.parametrize(("act", "nth"), COMMITS, indirect=["act"])
def test_forgotten_while_something_else_is_about_to_be_committed(person, act, meanwhile, search, nth):
    meanwhile(person.anonymize, nth)
    act()
    meanwhile.finish()
    assert search(*person.canaries) == []


@pytest.mark.parametrize("act", ACTS, indirect=True)
def test_something_else_while_forgetting_is_about_to_be_committed(person, act, meanwhile, search):
    meanwhile(act)
    person.anonymize()
    meanwhile.finish()
    assert search(*person.canaries) == []

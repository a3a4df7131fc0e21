"""The audit trail: an entry for every change and sign-in, with who, when and from where, and no word of a person."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

import factories
from conftest import settings_for
from contract import TIMESTAMP, assert_problem
from customer_orders.audit.fields import FIELDS, Shown
from customer_orders.audit.models import AuditEntry
from customer_orders.audit.services import delete_entries, list_entries
from customer_orders.auth.models import User
from customer_orders.auth.services import disable, grant, local_user
from customer_orders.cli import main
from customer_orders.events import Audited, announce, snapshot
from customer_orders.keyset import Ordering, Wanted
from customer_orders.notifications.models import Notification
from customer_orders.origin import Actor, act_as
from customer_orders.settings import section
from customer_orders.tables import Base
from inis import write_ini
from serving import ROOT
from test_sign_in import begin, come_back

NUMBER = "+254713812939"
PERSONAL = {
    "username": "Amina Odhiambo",
    "phone_number": NUMBER,
    "reference": "AO-77",
    "metadata": {"mother": "Zuhura"},
}


@pytest.fixture
def entries(rows):
    """The entries, oldest first, without what came of making users: ``entries()``."""
    return lambda: [one for one in rows(AuditEntry) if one.subject_kind != "user"]


@pytest.fixture
def statements(registry):
    """The statements that write entries."""
    sent = []
    engine = registry.database.engine

    def record(_connection, _cursor, statement, *_):
        if "INTO audit_entries" in statement:
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", record)
    yield sent
    event.remove(engine, "before_cursor_execute", record)


def what(entry):
    return (entry.action, entry.subject_id, entry.fields, entry.before, entry.after)


def everything(session):
    """All that the table holds, as text."""
    return "\n".join(str(tuple(row)) for row in session.execute(text("SELECT * FROM audit_entries")))


# -- changes ------------------------------------------------------------------------------------------------------


def test_a_customer_is_created_changed_and_deleted(client, entries):
    made = factories.customer(client, language="sw", **PERSONAL)["id"]
    changes = {"username": "Amina", "metadata": {"mother": "Z."}, "language": None, "sms_opt_out": True}
    client.patch_json(f"/api/customers/{made}", changes)
    client.delete(f"/api/customers/{made}")
    created, changed, deleted = entries()
    held = {"language": "sw", "sms_opt_out": False}
    fields = ["username", "phone_number", "reference", "metadata", "language", "sms_opt_out"]
    assert what(created) == ("customer.created", made, fields, None, held)
    at = changed.created_at.isoformat().replace("+00:00", "Z")
    fields = ["username", "metadata", "language", "sms_opt_out", "sms_opt_out_source", "sms_opt_out_at"]
    nothing = {"sms_opt_out_source": None, "sms_opt_out_at": None}
    after = {"language": None, "sms_opt_out": True, "sms_opt_out_source": "staff", "sms_opt_out_at": at}
    assert what(changed) == ("customer.changed", made, fields, {**held, **nothing}, after)
    assert (deleted.action, deleted.subject_id, deleted.after) == ("customer.deleted", made, None)
    assert deleted.before == {"sms_opt_out": True, "sms_opt_out_source": "staff", "sms_opt_out_at": at}
    assert "phone_number" in deleted.fields


def test_an_order_is_placed_changed_moved_on_and_deleted(client, entries):
    customer = factories.customer(client)["id"]
    made = factories.order(client, customer=customer, item="Cake for Amina", currency="USD")["id"]
    client.patch_json(f"/api/orders/{made}", {"item": "Cake", "amount": 5})
    client.patch_json(f"/api/orders/{made}", {"status": "confirmed", "amount": 6})
    client.delete(f"/api/orders/{made}")
    _, placed, changed, moved, deleted = entries()
    held = {"customer_id": customer, "amount": 10000, "currency": "USD", "status": "placed"}
    fields = ["customer_id", "item", "amount", "currency", "status"]
    assert what(placed) == ("order.placed", made, fields, None, held)
    assert what(changed) == ("order.changed", made, ["item", "amount"], {"amount": 10000}, {"amount": 5})
    before, after = {"amount": 5, "status": "placed"}, {"amount": 6, "status": "confirmed"}
    assert what(moved) == ("order.status_changed", made, ["amount", "status"], before, after)
    assert what(deleted) == ("order.deleted", made, fields, {**held, "amount": 6, "status": "confirmed"}, None)


def test_an_entry_tells_who_when_and_from_where(app, client, entries, session):
    me = client.get("/api/me").json["id"]
    headers = {"X-Request-Id": "request-1"}
    body = {"username": "Asha", "phone_number": NUMBER}
    made = client.post_json("/api/customers/", body, headers=headers, extra_environ={"REMOTE_ADDR": "203.0.113.7"})
    (entry,) = entries()
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == ("user", me, None)
    assert (entry.request_id, entry.address) == ("request-1", "203.0.113.7")
    assert TIMESTAMP.fullmatch(made.json["created_at"])
    assert entry.created_at.isoformat().replace("+00:00", "Z") == made.json["created_at"].replace(".000000Z", "Z")


def test_no_value_that_tells_of_a_person_is_kept(client, session, registry, anonymous):
    made = factories.customer(client, **PERSONAL)["id"]
    order = factories.order(client, customer=made, item="For Zuhura", reference="R-99", metadata={"table": "Zuhura"})
    client.patch_json(f"/api/orders/{order['id']}", {"item": "For Halima", "reference": "R-98", "metadata": {"a": "H"}})
    client.put_json(f"/api/customers/{made}", {"username": "Halima", "phone_number": "+254713812938"})
    client.delete(f"/api/orders/{order['id']}")
    client.delete(f"/api/customers/{made}")
    come_back(anonymous, begin(anonymous)["state"])
    kept = everything(session)
    for word in ("Amina", "7138129", "AO-77", "Zuhura", "mother", "Halima", "R-9", "table", "Jane", "jane", "@shop"):
        assert word not in kept


@pytest.mark.parametrize("change", [{}, {"amount": 10000}, {"status": "placed"}, {"metadata": {}}])
def test_what_changes_nothing_makes_no_entry(client, entries, change):
    order = factories.order(client)
    before = len(entries())
    client.patch_json(f"/api/orders/{order['id']}", change, status=200)
    assert len(entries()) == before


def test_what_is_rolled_back_makes_no_entry(client, entries):
    order = factories.order(client, reference="A-1")
    before = len(entries())
    url = f"/api/orders/{order['id']}"
    client.patch_json(url, {"item": "Rice"}, headers={"If-Match": '"99.0"'}, status=412)
    client.post_json(
        "/api/orders/", {"item": "Tea", "amount": 1, "customer": order["customer"], "reference": "A-1"}, status=409
    )
    client.patch_json(url, {"status": "fulfilled"}, status=409)
    client.delete(f"/api/customers/{order['customer']}", status=409)
    client.post_json(
        "/api/orders/?dry_run=true", {"item": "Tea", "amount": 1, "customer": order["customer"]}, status=200
    )
    assert len(entries()) == before


def test_a_repeated_request_makes_one_entry(client, entries):
    customer = factories.customer(client)["id"]
    for _ in range(2):
        body = {"item": "Tea", "amount": 1, "customer": customer}
        client.post_json("/api/orders/", body, headers={"Idempotency-Key": "k-1"}, status=201)
    assert [one.action for one in entries()] == ["customer.created", "order.placed"]


def test_one_change_is_one_statement(client, statements):
    order = factories.order(client)
    statements.clear()
    client.patch_json(f"/api/orders/{order['id']}", {"status": "confirmed", "item": "Rice"})
    assert len(statements) == 1


def test_messages_that_are_sent_again_have_an_entry_each_by_one_statement(client, entries, registry, statements):
    customer = factories.customer(client)["id"]
    orders = [factories.order(client, customer=customer) for _ in range(3)]
    messages = [order["notification"]["id"] for order in orders]
    with registry.database.transaction() as session:
        for one in messages:
            session.get(Notification, one).status = "failed"
    before = len(entries())
    client.post(f"/api/notifications/{messages[0]}/resend")
    statements.clear()
    client.post_json("/api/notifications/resend", {"status": ["failed"], "dry_run": True})
    assert statements == []
    client.post_json("/api/notifications/resend", {"status": ["failed"]})
    assert len(statements) == 1
    assert [what(one) for one in entries()[before:]] == [
        ("notification.resent", one, [], None, None) for one in messages
    ]
    told = client.get(f"/api/orders/{orders[1]['id']}/events").json
    assert [one["action"] for one in told] == ["notification.resent", "order.placed"]


def test_a_stop_is_the_providers_doing(client, anonymous, entries, registry):
    made = factories.customer(client, phone_number=NUMBER)["id"]
    secret = section(registry, "notifications").report_secrets[0]
    for _ in range(2):
        anonymous.post_json(f"/api/notifications/reports/scripted/{secret}", [{"to": NUMBER}])
    _, entry = entries()
    assert (entry.action, entry.subject_id) == ("customer.opted_out", made)
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == ("system", None, "scripted")
    assert (entry.after["sms_opt_out"], entry.after["sms_opt_out_source"]) == (True, "recipient")


# -- users --------------------------------------------------------------------------------------------------------


def test_a_sign_in_is_the_users_own(anonymous, registry, rows):
    for _ in range(2):
        come_back(anonymous, begin(anonymous)["state"])
    refused = [one for one in rows(AuditEntry) if one.subject_kind == "sign_in"]
    # without a role, in this deployment
    assert {one.after["code"] for one in refused} == {"no-role"}
    (user,) = rows(User)
    assert [(one.action, one.actor_id) for one in rows(AuditEntry) if one.subject_kind == "user"] == [
        ("user.created", user.id)
    ]
    with registry.database.transaction() as session:
        grant(session, str(user.id), "clerk")
    come_back(anonymous, begin(anonymous)["state"], status=200)
    *_, entry, begun = rows(AuditEntry)
    assert (entry.action, entry.subject_id, entry.actor_kind, entry.actor_id) == (
        *("user.signed_in", user.id),
        *("user", user.id),
    )
    assert (begun.action, begun.actor_kind, begun.actor_id) == ("session.begun", "user", user.id)


@pytest.fixture
def run(app, tmp_path):
    """Runs a command on the application's deployment: ``run("user list")``."""
    url = app.registry.database.url.render_as_string(hide_password=False)
    ini = write_ini(tmp_path / "orders.ini", settings_for(url))

    def invoke(command, *, status=0):
        result = CliRunner().invoke(main, [*command.split(), "-c", ini], catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result.stdout

    return invoke


def test_what_is_done_at_the_command_line_is_an_operators_doing(run, rows):
    run("token create --email jane@shop.example --role clerk")
    (user,) = rows(User)
    for command in ("grant {} admin", "grant {} admin", "disable {}", "disable {} --undo", "grant {} none"):
        run(f"user {command.format(user.id)}")
    run("user list")
    told = [(one.action, one.before, one.after) for one in rows(AuditEntry)]
    assert told == [
        ("user.created", None, {"granted_role": "clerk", "disabled": False}),
        ("user.token_created", None, None),
        ("user.granted", {"granted_role": "clerk"}, {"granted_role": "admin"}),
        ("user.disabled", {"disabled": False}, {"disabled": True}),
        ("user.enabled", {"disabled": True}, {"disabled": False}),
        ("user.granted", {"granted_role": "admin"}, {"granted_role": None}),
    ]
    assert {(one.actor_kind, one.actor_id, one.subject_id) for one in rows(AuditEntry)} == {("operator", None, user.id)}


def test_what_a_worker_does_is_the_systems_doing(registry, rows):
    with registry.database.transaction() as session:
        local_user(session, "jane@shop.example", "clerk")
    assert {(one.actor_kind, one.request_id, one.address) for one in rows(AuditEntry)} == {("system", None, None)}


# -- what an entry may hold ---------------------------------------------------------------------------------------


def test_every_field_of_what_is_audited_is_decided_upon():
    for subject, decided in FIELDS.items():
        table = Base.metadata.tables.get(f"{subject}s")
        if table is not None and decided:
            assert set(decided) == set(table.columns.keys()), subject
    assert all(isinstance(one, Shown) for decided in FIELDS.values() for one in decided.values())


SUBJECTS = "user|customer|order|notification|access|sign_in|token|session|api_key"


def announced():
    """Every action that the sources name: as an event's, or somewhere else about a subject that we know of."""
    sources = [path for path in (ROOT / "src").rglob("*.py") if path.name != "events.py"]
    wanted = re.compile(rf'(?:(?<=Audited\()|(?="(?:{SUBJECTS})\.))"([a-z_]+\.[a-z_]+)"')
    return {found for path in sources for found in wanted.findall(path.read_text())}


def test_every_subject_of_which_services_tell_is_decided_upon():
    assert {"customer.opted_out", "order.placed", "access.refused", "user.granted"} <= announced()
    assert {action.partition(".")[0] for action in announced()} <= set(FIELDS)


def test_the_page_about_it_names_every_action():
    page = (ROOT / "docs" / "audit.md").read_text()
    assert sorted(action for action in announced() if f"`{action}`" not in page) == []


def test_a_field_that_nobody_decided_upon_is_named_only(registry, entries):
    secret = secrets.token_urlsafe(8)
    with registry.database.transaction() as session:
        act_as(session, Actor("api_key", 7, "till"))
        announce(session, Audited("gadget.made", 3, after={"secret": secret, "nothing": None}))
    (entry,) = entries()
    assert what(entry) == ("gadget.made", 3, ["secret"], None, {})
    assert (entry.actor_kind, entry.actor_id, entry.actor_name) == ("api_key", 7, "till")


def test_a_snapshot_has_every_column(client, session):
    factories.customer(client, metadata={"a": "1"})
    (found,) = session.query(Base.registry._class_registry["Customer"]).all()
    assert set(snapshot(found)) == set(type(found).__table__.columns.keys())
    assert snapshot(found)["metadata"] == {"a": "1"}


# -- nothing in it ever changes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("statement", ["UPDATE audit_entries SET action = 'x'", "DELETE FROM audit_entries"])
def test_on_sqlite_triggers_refuse_to_change_it(client, registry, statement, entries):
    factories.customer(client)
    with pytest.raises(DBAPIError, match="audit_entries only grows"), registry.database.transaction() as session:
        session.execute(text(statement))
    assert [one.action for one in entries()] == ["customer.created"]


def test_its_owner_can_end_its_retention_and_it_is_as_it_was_afterwards(client, registry, later, entries, rows):
    factories.customer(client)
    later(hours=1)
    factories.customer(client)
    kept = rows(AuditEntry)[-1]
    with registry.database.transaction() as session:
        assert delete_entries(session, kept.created_at, 1) == 1
    assert len(rows(AuditEntry)) == 2
    with registry.database.transaction() as session:
        assert delete_entries(session, kept.created_at, 100) == 1
    assert [one.id for one in rows(AuditEntry)] == [kept.id]
    if registry.database.engine.name == "sqlite":
        with pytest.raises(DBAPIError, match="only grows"), registry.database.transaction() as session:
            session.execute(text("DELETE FROM audit_entries"))


# -- reading it ---------------------------------------------------------------------------------------------------


def test_an_admin_reads_all_newest_first(client):
    me = client.get("/api/me").json
    order = factories.order(client)
    shown = client.get("/api/audit/").json
    assert [one["action"] for one in shown] == ["order.placed", "customer.created", "user.created"]
    entry = shown[0]
    assert TIMESTAMP.fullmatch(entry.pop("created_at"))
    assert entry.pop("id") > shown[1]["id"]
    assert re.fullmatch("[0-9a-f]{32}", entry.pop("request_id"))
    assert entry == {
        "action": "order.placed",
        "actor": {"kind": "user", "id": me["id"], "name": me["name"]},
        "subject": {"kind": "order", "id": order["id"]},
        "fields": ["customer_id", "item", "amount", "currency", "status"],
        "before": None,
        "after": {"customer_id": order["customer"], "amount": 10000, "currency": "KES", "status": "placed"},
        "address": "127.0.0.1",
    }
    assert shown[2]["actor"] == {"kind": "system", "id": None, "name": None}


@pytest.mark.parametrize("role", ["viewer", "clerk"])
def test_staff_read_what_happened_to_one_thing_without_addresses(client, anonymous, token_for, role):
    order = factories.order(client)
    client.patch_json(f"/api/orders/{order['id']}", {"amount": 1})
    factories.order(client)
    anonymous.authorization = ("Bearer", token_for(role))
    for url, actions in (
        (f"/api/orders/{order['id']}/events", ["order.changed", "order.placed"]),
        (f"/api/customers/{order['customer']}/events", ["customer.created"]),
    ):
        told = anonymous.get(url).json
        assert [one["action"] for one in told] == actions
        assert "address" not in told[0]
        assert told[0]["actor"]["name"]
    anonymous.get("/api/audit/", status=403)


def test_what_happened_to_a_thing_that_is_deleted_only_the_trail_tells(client):
    order = factories.order(client)["id"]
    client.delete(f"/api/orders/{order}")
    assert_problem(client.get(f"/api/orders/{order}/events", status="*"), 404, "not-found")
    told = client.get(f"/api/audit/?subject=order:{order}").json
    assert [one["action"] for one in told] == ["order.deleted", "order.placed"]


def test_filters_narrow_it(client, registry, later):
    me = client.get("/api/me").json["id"]
    order = factories.order(client)
    later(hours=2)
    client.patch_json(f"/api/orders/{order['id']}", {"amount": 1})
    with registry.database.transaction() as session:
        disable(session, str(local_user(session, "jane@shop.example", "clerk").id), disabled=True)
    newest = client.get("/api/audit/").json
    changed = next(one for one in newest if one["action"] == "order.changed")
    for query, actions in (
        ("action=order.changed", ["order.changed"]),
        ("action=order", []),
        (f"actor=user:{me}", ["order.changed", "order.placed", "customer.created"]),
        ("actor=system", ["user.disabled", "user.created", "user.created"]),
        ("actor=user", []),
        ("actor=anonymous", []),
        (f"subject=customer:{order['customer']}", ["customer.created"]),
        (f"created_at__gte={changed['created_at']}", ["user.disabled", "user.created", "order.changed"]),
        (f"created_at__lt={changed['created_at']}", ["order.placed", "customer.created", "user.created"]),
        (f"subject=order:{order['id']}&action=order.placed&actor=user:{me}", ["order.placed"]),
    ):
        assert [one["action"] for one in client.get(f"/api/audit/?{query}").json] == actions, query


@pytest.mark.parametrize(
    "query",
    [
        *("actor=user:0", "actor=user:x", "actor=user:99999999999999999999", "actor=user:%D9%A3", "actor=17"),
        *("subject=", "subject=order:1:2", "subject=order:9223372036854775808", "subject=Order:1"),
    ],
)
def test_what_names_nobody_and_nothing_is_refused(client, query):
    name = query.partition("=")[0]
    assert_problem(client.get(f"/api/audit/?{query}", status="*"), 400, "invalid", name)


@pytest.mark.parametrize(
    "url", ["/api/audit/", "/api/orders/{}/events", "/api/audit/?created_at__gte=2020-01-01T00:00:00Z"]
)
def test_its_pages_lead_on_and_cost_the_same_statements_each(client, registry, url):
    order = factories.order(client)["id"]
    for amount in range(5):
        client.patch_json(f"/api/orders/{order}", {"amount": amount})
    url = url.format(order)
    everything = [one["id"] for one in client.get(url).json]
    sent, counts, walked = [], [], []
    event.listen(registry.database.engine, "before_cursor_execute", record := lambda *given: sent.append(given[2]))
    following = f"{url}{'&' if '?' in url else '?'}limit=2"
    while following:
        sent.clear()
        answer = client.get(following)
        counts.append(len(sent))
        walked += [one["id"] for one in answer.json]
        found = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        following = found and found[1]
    event.remove(registry.database.engine, "before_cursor_execute", record)
    assert walked == everything
    assert len(walked) >= 6
    # the last may hold entries of nobody with a name
    assert len(set(counts[:-1])) == 1


@pytest.fixture
def crowded(registry):
    """A table of some size, with a few entries that are unlike the rest; the database knows what is in it."""
    plain = {
        "created_at": datetime(2028, 1, 1, tzinfo=UTC),
        "action": "order.placed",
        "subject_kind": "order",
        "actor_kind": "system",
        "actor_id": None,
        "fields": [],
    }
    rare = {**plain, "created_at": datetime(2030, 1, 1, tzinfo=UTC), "action": "rare.done", "subject_kind": "rare"}
    entries = [{**plain, "subject_id": 10**9 + number} for number in range(5000)]
    entries += [{**rare, "subject_id": 5, "actor_kind": kind, "actor_id": it} for kind, it in RARE]
    engine = registry.database.engine
    with engine.begin() as connection:
        connection.execute(AuditEntry.__table__.insert(), entries)
        connection.execute(text("ANALYZE"))
    return engine


@pytest.fixture
def plan(crowded):
    """How the database goes about the entries that ``act`` reads."""

    def explain(act):
        sent = []
        event.listen(crowded, "before_cursor_execute", record := lambda *given: sent.append((given[2], given[3])))
        try:
            found = act()
        finally:
            event.remove(crowded, "before_cursor_execute", record)
        how = "EXPLAIN" if crowded.name == "postgresql" else "EXPLAIN QUERY PLAN"
        sql, given = next(one for one in sent if "FROM audit_entries" in one[0])
        with crowded.connect() as connection:
            told = [str(row[-1]) for row in connection.exec_driver_sql(f"{how} {sql}", given)]
        return found, "\n".join(told)

    return explain


RARE = (("user", 77), ("operator", None))
FINDS = (
    ("created_at__gte", datetime(2029, 1, 1, tzinfo=UTC), 2),
    ("action", "rare.done", 2),
    ("actor", ("user", 77), 1),
    ("actor", ("operator", None), 1),
    ("subject", ("rare", 5), 2),
)


@pytest.mark.parametrize(("name", "value", "count"), FINDS)
def test_each_filter_has_an_index_that_helps(registry, plan, name, value, count):
    order = Ordering((("created_at", True), ("id", True))) if name == "created_at__gte" else Ordering()

    def find():
        with registry.database.transaction(writes=False) as session:
            return list_entries(session, Wanted(50, ordering=order, filters={name: value})).items

    found, how = plan(find)
    assert len(found) == count
    assert "ix_audit_entries_" in how, how


@pytest.mark.parametrize("url", ["/api/orders/{}/events", "/api/customers/{}/events"])
def test_what_happened_to_one_thing_is_found_by_an_index(client, plan, url):
    order = factories.order(client)
    url = url.format(order["id"] if "orders" in url else order["customer"])
    found, how = plan(lambda: client.get(url).json)
    assert len(found) == 1
    assert "ix_audit_entries_subject" in how, how


def test_the_document_tells_of_it(anonymous):
    document = anonymous.get("/api/api.json").json
    assert {"/audit/", "/orders/{id}/events", "/customers/{id}/events"} <= set(document["paths"])
    operation = document["paths"]["/audit/"]["get"]
    names = {one["name"] for one in operation["parameters"]}
    assert names >= {"limit", "cursor", "action", "actor", "subject", "created_at__gte", "created_at__lt"}
    assert json.dumps(document["definitions"]["EntryRead"]).count("address")


def test_an_actor_goes_by_the_name_of_today(client, registry):
    factories.customer(client)
    me = client.get("/api/me").json["id"]
    with registry.database.transaction() as session:
        session.get(User, me).name = "Renamed"
    assert client.get("/api/audit/?action=customer.created").json[0]["actor"]["name"] == "Renamed"

"""Where an order stands: the steps that it can take, and what each says to the customer."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import factories
from contract import assert_problem, signed_in
from customer_orders.events import CustomerFacts, OrderFacts, OrderStatusChanged
from customer_orders.notifications.models import Notification
from customer_orders.orders.models import TRANSITIONS, Order, OrderStatus

TEXTS = {
    "order_placed": "Your order has been created. Thank you for shopping with us!",
    "order_confirmed": "Your order no. {id} has been confirmed.",
    "order_fulfilled": "Your order no. {id} has been fulfilled. Thank you for shopping with us!",
    "order_cancelled": "Your order no. {id} has been cancelled.",
}
# the one way to each status
WAYS = {
    "placed": [],
    "confirmed": ["confirmed"],
    "fulfilled": ["confirmed", "fulfilled"],
    "cancelled": ["cancelled"],
}


@pytest.fixture
def heard(registry):
    """The steps that were announced, while the test runs."""
    steps = []
    listeners = registry.database.listeners[OrderStatusChanged]
    listeners.append(note := lambda session, event: steps.append(event))
    yield steps
    listeners.remove(note)


@pytest.fixture
def messages(registry):
    """Event, status and reason of each message about an order, oldest first: ``messages(order)``."""

    def read(order):
        with registry.database.session(writes=False) as session:
            found = select(Notification).where(Notification.order_id == order["id"]).order_by(Notification.id)
            return [(one.event, one.status, one.reason) for one in session.scalars(found)]

    return read


def move(client, order, status, method="PATCH", headers=None):
    """Ask for a status."""
    body = {"status": status}
    if method == "PUT":
        body |= {name: order[name] for name in ("item", "amount", "customer")}
    send = {"PATCH": client.patch_json, "PUT": client.put_json}[method]
    return send(f"/api/orders/{order['id']}", body, headers=headers, status="*")


def at(client, status):
    """An order that stands there."""
    order = factories.order(client)
    for step in WAYS[status]:
        order = move(client, order, step).json
    return order


def test_the_table_is_the_life_of_an_order():
    assert {(before, after) for before, afters in TRANSITIONS.items() for after in afters} == {
        ("placed", "confirmed"),
        ("placed", "cancelled"),
        ("confirmed", "fulfilled"),
        ("confirmed", "cancelled"),
    }
    assert set(TRANSITIONS) == set(OrderStatus)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("after", OrderStatus)
@pytest.mark.parametrize("before", OrderStatus)
def test_a_step_is_taken_if_the_table_has_it(client, heard, messages, before, after, method):
    order = at(client, before)
    heard.clear()
    queued = messages(order)
    answer = move(client, order, after, method)
    shown = client.get(f"/api/orders/{order['id']}").json
    if after == before:
        assert answer.status_int == 200
        assert (shown["status"], heard, messages(order)) == (before, [], queued)
    elif after in TRANSITIONS[before]:
        assert answer.status_int == 200
        assert answer.json == shown
        assert shown["status"] == after
        assert shown["updated_at"] > order["updated_at"]
        assert [(event.before, event.after) for event in heard] == [(before, after)]
        assert messages(order)[-1] == (f"order_{after}", "queued", None)
    else:
        problem = assert_problem(answer, 409, "illegal-transition")
        assert problem["allowed"] == list(TRANSITIONS[before])
        assert all(word in problem["detail"] for word in (before, after, *TRANSITIONS[before]))
        assert (shown, heard, messages(order)) == (order, [], queued)


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(wishes=st.lists(st.sampled_from(OrderStatus), max_size=8))
def test_every_sequence_ends_as_the_table_says(client, messages, wishes):
    order = factories.order(client)
    stands, told = "placed", ["order_placed"]
    for wish in wishes:
        answer = move(client, order, wish)
        if wish != stands and wish in TRANSITIONS[stands]:
            stands = wish
            told.append(f"order_{wish}")
        elif wish != stands:
            assert answer.status_int == 409
            continue
        assert (answer.status_int, answer.json["status"]) == (200, stands)
    assert client.get(f"/api/orders/{order['id']}").json["status"] == stands
    found = messages(order)
    assert [event for event, _, _ in found] == told
    # once cancelled, nothing else is left to say
    left = {status for event, status, _ in found if event != "order_cancelled"}
    assert left == ({"cancelled"} if stands == "cancelled" else {"queued"})


def test_each_step_is_told_to_the_customer_once(client, deliver, notifier):
    done, dropped = factories.order(client), factories.order(client)
    deliver()
    for order, steps in ((done, ["confirmed", "confirmed", "fulfilled"]), (dropped, ["confirmed", "cancelled"])):
        for step in steps:
            assert move(client, order, step).status_int == 200
            deliver()
    told = [("order_placed", done), ("order_placed", dropped), ("order_confirmed", done), ("order_fulfilled", done)]
    told += [("order_confirmed", dropped), ("order_cancelled", dropped)]
    assert [message.text for message in notifier.sent] == [TEXTS[event].format(**order) for event, order in told]
    shown = client.get(f"/api/orders/{dropped['id']}").json["notification"]
    assert (shown["status"], shown["attempts"]) == ("sent", 1)


def test_what_is_announced_are_the_facts_after_the_change(client, heard):
    order = factories.order(client, reference="A-1")
    other = factories.customer(client, username="Asha", phone_number="+254713812939", language="sw")
    change = {"item": "Rice", "amount": 5, "currency": "USD", "customer": other["id"], "status": "confirmed"}
    client.patch_json(f"/api/orders/{order['id']}", change, status=200)
    assert heard == [
        OrderStatusChanged(
            OrderFacts(order["id"], "Rice", 5, "USD", "A-1"),
            CustomerFacts(other["id"], "Asha", "+254713812939", None, "sw", False),
            "placed",
            "confirmed",
        )
    ]


def test_the_same_status_alone_changes_nothing_at_all(client):
    order = factories.order(client)
    url = f"/api/orders/{order['id']}"
    tag = client.get(url).headers["ETag"]
    again = move(client, order, "placed")
    assert (again.json, again.headers["ETag"]) == (order, tag)
    # with something else it is that which changes
    changed = client.patch_json(url, {"status": "placed", "item": "Rice"}).json
    assert (changed["item"], changed["status"]) == ("Rice", "placed")
    assert changed["updated_at"] > order["updated_at"]


def test_a_client_that_knows_no_status_moves_nothing(client, messages):
    order = at(client, "confirmed")
    told = messages(order)
    url = f"/api/orders/{order['id']}"
    body = {"item": "Rice", "amount": 5, "customer": order["customer"]}
    assert client.put_json(url, body).json["status"] == "confirmed"
    assert client.patch_json(url, {"item": "Tea"}).json["status"] == "confirmed"
    # nor one that sends back what it read
    assert client.put_json(url, client.get(url).json).json["status"] == "confirmed"
    assert messages(order) == told


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("status", ["paid", "Placed", "", None, 1, ["placed"]])
def test_what_is_no_status_is_refused(client, status, method):
    order = factories.order(client)
    assert_problem(move(client, order, status, method), 400, "invalid", "status")


@pytest.mark.parametrize("status", OrderStatus)
def test_an_order_begins_as_placed(client, status):
    body = {"item": "Tea", "amount": 1, "customer": factories.customer(client)["id"], "status": status}
    answer = client.post_json("/api/orders/", body, status="*")
    if status == "placed":
        assert (answer.status_int, answer.json["status"]) == (201, "placed")
    else:
        problem = assert_problem(answer, 400, "invalid", "status")
        assert "placed" in problem["errors"][0]["description"]


def test_a_step_is_taken_of_the_version_that_was_read(client):
    order = factories.order(client)
    tag = client.get(f"/api/orders/{order['id']}").headers["ETag"]
    assert move(client, order, "confirmed", headers={"If-Match": tag}).status_int == 200
    assert_problem(move(client, order, "cancelled", headers={"If-Match": tag}), 412, "stale")


def test_a_step_that_fails_moves_nothing_and_says_nothing(client, messages):
    factories.order(client, reference="A-1")
    order = factories.order(client)
    told = messages(order)
    change = {"status": "cancelled", "reference": "A-1"}
    assert_problem(client.patch_json(f"/api/orders/{order['id']}", change, status="*"), 409, "reference-taken")
    assert (client.get(f"/api/orders/{order['id']}").json, messages(order)) == (order, told)


def test_of_two_who_move_an_order_at_once_one_does(app, client, messages):
    order = factories.order(client)
    together, answers = threading.Barrier(2), []

    def step(status):
        mine = signed_in(app)
        together.wait(30)
        answers.append(move(mine, order, status).status_int)

    threads = [threading.Thread(target=step, args=(status,)) for status in ("cancelled", "cancelled")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # the second found it cancelled already
    assert answers == [200, 200]
    assert [event for event, _, _ in messages(order)] == ["order_placed", "order_cancelled"]


# -- cancelling ---------------------------------------------------------------------------------------------------


def test_cancelling_an_order_cancels_what_is_still_queued_for_it(client, deliver, notifier, messages):
    order, other = at(client, "confirmed"), at(client, "confirmed")
    cancelled = move(client, order, "cancelled").json
    # its own message comes after
    assert cancelled["notification"]["status"] == "queued"
    assert messages(order) == [
        ("order_placed", "cancelled", "order_cancelled"),
        ("order_confirmed", "cancelled", "order_cancelled"),
        ("order_cancelled", "queued", None),
    ]
    assert [status for _, status, _ in messages(other)] == ["queued", "queued"]
    assert deliver() == 3
    said = [message.text for message in notifier.sent if str(order["id"]) in message.text]
    assert said == [TEXTS["order_cancelled"].format(**order)]


def test_what_was_sent_stays_on_record_when_an_order_is_cancelled(client, deliver, messages):
    order = factories.order(client)
    deliver()
    move(client, order, "cancelled")
    assert messages(order) == [("order_placed", "sent", None), ("order_cancelled", "queued", None)]


def test_only_cancelling_cancels_messages(client, messages):
    order = at(client, "fulfilled")
    assert [status for _, status, _ in messages(order)] == ["queued"] * 3


def test_a_customer_who_opted_out_is_told_of_no_step(client, messages):
    customer = factories.customer(client, sms_opt_out=True)
    order = factories.order(client, customer=customer["id"])
    shown = move(client, order, "confirmed").json["notification"]
    assert (shown["status"], shown["reason"]) == ("suppressed", "opted_out")
    assert [status for _, status, _ in messages(order)] == ["suppressed"] * 2


# -- lists --------------------------------------------------------------------------------------------------------


def test_orders_are_found_by_where_they_stand(client):
    orders = {status: at(client, status)["id"] for status in OrderStatus}
    for status, expected in orders.items():
        assert [one["id"] for one in client.get(f"/api/orders/?status={status}").json] == [expected]


def test_an_order_of_a_status_that_a_later_version_brings_can_be_changed_but_not_moved(client, session):
    order = factories.order(client)
    session.get(Order, order["id"]).status = "returned"
    session.commit()
    url = f"/api/orders/{order['id']}"
    assert client.patch_json(url, {"item": "Rice"}).json["status"] == "returned"
    problem = assert_problem(move(client, order, "fulfilled"), 409, "illegal-transition")
    assert problem["allowed"] == []

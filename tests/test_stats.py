"""Counts of orders and messages, and the sum of what the messages cost."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

import factories
from contract import assert_problem
from customer_orders.interfaces import Cost, Receipt, Rejected
from customer_orders.notifications.models import Notification, Status
from customer_orders.orders.models import OrderStatus

NO_ORDERS = {str(status): 0 for status in OrderStatus}
NO_MESSAGES = {str(status): 0 for status in Status}


def stats(client, **query):
    return client.get(f"/api/stats?{urlencode(query)}", status=200).json


def test_where_nothing_is_every_status_is_named_all_the_same(client):
    assert stats(client) == {"orders": NO_ORDERS, "notifications": NO_MESSAGES, "cost": []}


def test_orders_and_messages_are_counted_and_costs_summed(client, deliver, notifier):
    for step in (Receipt("1", Cost(Decimal("0.8"), "KES")), Receipt("2", Cost(Decimal("0.0001"), "USD"))):
        notifier.script.append(step)
    for step in (Receipt("3"), Rejected("no such number"), Receipt("5", Cost(Decimal("99999999.9999"), "KES"))):
        notifier.script.append(step)
    orders = [factories.order(client)["id"] for _ in range(5)]
    deliver()
    client.patch_json(f"/api/orders/{orders[0]}", {"status": "confirmed"})
    client.patch_json(f"/api/orders/{orders[1]}", {"status": "cancelled"})
    assert stats(client) == {
        "orders": {**NO_ORDERS, "placed": 3, "confirmed": 1, "cancelled": 1},
        "notifications": {**NO_MESSAGES, "sent": 4, "failed": 1, "queued": 2},
        "cost": [{"amount": "100000000.7999", "currency": "KES"}, {"amount": "0.0001", "currency": "USD"}],
    }


def test_a_message_whose_order_is_gone_still_cost_what_it_cost(client, deliver):
    order = factories.order(client)
    deliver()
    client.delete(f"/api/orders/{order['id']}", status=204)
    told = stats(client)
    assert (told["orders"], told["notifications"]["sent"]) == (NO_ORDERS, 1)
    assert told["cost"] == [{"amount": "0.8000", "currency": "KES"}]


def test_a_period_counts_what_was_created_in_it(client, registry, deliver):
    first = factories.order(client)
    deliver()
    registry.database.clock_offset += timedelta(hours=1)
    # a message belongs to its own time, not to its order's
    client.patch_json(f"/api/orders/{first['id']}", {"status": "confirmed"})
    factories.order(client)
    deliver()
    between = (datetime.fromisoformat(first["created_at"]) + timedelta(minutes=30)).isoformat()
    earlier, later = stats(client, created_at__lt=between), stats(client, created_at__gte=between)
    assert earlier == {
        "orders": {**NO_ORDERS, "confirmed": 1},
        "notifications": {**NO_MESSAGES, "sent": 1},
        "cost": [{"amount": "0.8000", "currency": "KES"}],
    }
    assert later == {
        "orders": {**NO_ORDERS, "placed": 1},
        "notifications": {**NO_MESSAGES, "sent": 2},
        "cost": [{"amount": "1.6000", "currency": "KES"}],
    }
    nothing = {"orders": NO_ORDERS, "notifications": NO_MESSAGES, "cost": []}
    assert stats(client, created_at__gte=between, created_at__lt=first["created_at"]) == nothing


prices = st.decimals(min_value=0, max_value=Decimal("9999999999.9999"), places=4)


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(costs=st.lists(st.tuples(st.sampled_from(["KES", "USD", "UGX"]), prices), max_size=20))
def test_the_sum_is_exact(client, registry, costs):
    with registry.database.transaction() as session:
        session.execute(delete(Notification))
        now = datetime.fromisoformat("2026-01-31T08:00:00+00:00")
        told = {"event": "order_placed", "channel": "sms", "recipient": "+254713812939", "text": "", "status": "sent"}
        for currency, amount in costs:
            priced = {"cost_amount": amount, "cost_currency": currency}
            session.add(Notification(**told, **priced, created_at=now, updated_at=now))
    expected = {}
    for currency, amount in costs:
        expected[currency] = expected.get(currency, 0) + amount
    assert [(one["currency"], Decimal(one["amount"])) for one in stats(client)["cost"]] == sorted(expected.items())


def test_the_sum_is_exact_where_a_float_would_not_be(client, registry):
    at = datetime.fromisoformat("2026-01-31T08:00:00+00:00")
    told = {"event": "order_placed", "channel": "sms", "recipient": "+254713812939", "text": "", "status": "sent"}
    costs = [Decimal("9999999999.9999")] * 2000 + [Decimal("0.0001")]
    with registry.database.transaction() as session:
        priced = [
            {**told, "cost_amount": cost, "cost_currency": "KES", "created_at": at, "updated_at": at} for cost in costs
        ]
        session.execute(insert(Notification), priced)
    assert stats(client)["cost"] == [{"amount": "19999999999999.8001", "currency": "KES"}]


@pytest.mark.parametrize("query", ["created_at__gte=today", "status=placed", "limit=1"])
def test_what_it_cannot_be_asked_for_is_refused(client, query):
    assert_problem(client.get(f"/api/stats?{query}", status="*"), 400, "invalid", query.partition("=")[0])


def test_with_a_slash_at_its_end_it_is_the_same(client):
    assert client.get("/api/stats/", status=200).json == stats(client)

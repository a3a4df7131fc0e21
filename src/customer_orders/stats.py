"""``GET /api/stats``: how many orders and messages stand where, and what the messages cost."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import colander

from customer_orders.api import Service
from customer_orders.api.fields import Integer, Timestamp, node
from customer_orders.auth.policy import Permission
from customer_orders.auth.resources import Collection
from customer_orders.notifications import services as notifications
from customer_orders.notifications.models import Status
from customer_orders.notifications.schemas import CostRead, cost
from customer_orders.orders import services as orders
from customer_orders.orders.models import OrderStatus

stats = Service("stats", "/api/stats", tag="orders", factory=Collection)


class StatsQuery(colander.MappingSchema):
    """What is counted: everything unless told. Each order and each message counts by when it was created itself."""

    created_at__gte = node(Timestamp(), "Created then or later.", missing=colander.drop)
    created_at__lt = node(Timestamp(), "Created before.", missing=colander.drop)


def _none(words: type[StrEnum]) -> dict[str, int]:
    return {str(word): 0 for word in words}


def _counts(words: type[StrEnum], what: str) -> colander.SchemaNode:
    counted = [colander.SchemaNode(Integer(), name=str(word), description=f"Those {word}.") for word in words]
    return colander.SchemaNode(colander.Mapping(), *counted, description=what)


class StatsRead(colander.MappingSchema):
    """Counts by status, each status named, and sums by currency."""

    example: dict[str, Any] = {
        "orders": {"placed": 2, "confirmed": 1, "fulfilled": 40, "cancelled": 1},
        "notifications": {**_none(Status), "delivered": 120, "failed": 1},
        "cost": [{"amount": "96.8000", "currency": "KES"}],
    }

    orders = _counts(OrderStatus, "Orders by where they stand.")
    notifications = _counts(Status, "Messages by what became of them.")
    cost = colander.SequenceSchema(
        CostRead(), description="What providers said that they charge for the messages, summed by currency."
    )


@stats.get(
    permission=Permission.STATS_READ,
    operation_id="stats_read",
    query=StatsQuery,
    returns=StatsRead,
)
def read_stats(request: Any) -> dict[str, Any]:
    """Count orders and messages, and sum what the messages cost.

    It reads all that it counts: narrow it to a time where there is much.
    """
    session, period = request.dbsession, request.validated["query"]
    return {
        "orders": {**_none(OrderStatus), **orders.count_by_status(session, period)},
        "notifications": {**_none(Status), **notifications.count_by_status(session, period)},
        "cost": [
            cost(amount, currency) for currency, amount in sorted(notifications.total_costs(session, period).items())
        ],
    }


def includeme(config: Any) -> None:
    """Serve it."""
    config.scan("customer_orders.stats")

"""What goes in and out of the order services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import colander

from customer_orders.api.fields import (
    Body,
    Currency,
    Integer,
    Metadata,
    Text,
    Timestamp,
    Word,
    node,
    partial,
)
from customer_orders.money import MAX_AMOUNT
from customer_orders.notifications.schemas import NotificationSummary
from customer_orders.orders.models import Order


class OrderBody(Body):
    """An order as a client writes it. In a PUT, an optional field left out keeps its value; null clears it."""

    read_only = ("id", "status", "notification", "created_at", "updated_at")
    example = {"item": "Tea", "amount": 10000, "customer": 1}

    item = node(Text(), "What was ordered.")
    amount = node(
        Integer(0, MAX_AMOUNT),
        "Integer in the currency's minor unit: 10000 with KES is KES 100.00. A string of digits will do.",
    )
    customer = node(Integer(1), "Id of the customer. A string of digits will do.")
    currency = node(
        Currency(),
        "ISO 4217 code; the deployment's default unless told.",
        missing=colander.drop,
        nullable=True,
    )
    reference = node(Text(), "Your own reference for the order.", missing=colander.drop, nullable=True)
    metadata = node(Metadata(), "Up to 50 strings of your own, by key.", missing=colander.drop, nullable=True)


OrderPatch = partial(OrderBody)


class OrderRead(colander.MappingSchema):
    """An order."""

    example = {
        "id": 1,
        "item": "Tea",
        "amount": 10000,
        "customer": 1,
        "currency": "KES",
        "reference": None,
        "metadata": {},
        "status": "placed",
        "notification": {
            "status": "sent",
            "reason": None,
            "attempts": 1,
            "next_attempt_at": None,
            "cost": {"amount": "0.8000", "currency": "KES"},
            "notifier": "africastalking",
            "updated_at": "2026-01-31T08:00:01.000000Z",
        },
        "created_at": "2026-01-31T08:00:00.000000Z",
        "updated_at": "2026-01-31T08:00:00.000000Z",
    }

    id = node(Integer(1), "Id of the order.")
    item = node(Text(), "What was ordered.")
    amount = node(Integer(0, MAX_AMOUNT), "Integer in the currency's minor unit: 10000 with KES is KES 100.00.")
    customer = node(Integer(1), "Id of the customer.")
    currency = node(Currency(), "ISO 4217 code.")
    reference = node(Text(), "Your own reference for the order.", nullable=True)
    metadata = node(Metadata(), "Strings of your own, by key.")
    status = node(Word("placed"), "Where the order stands.")
    notification = NotificationSummary(
        description="What became of the last message about it; null: there was none.", nullable=True
    )
    created_at = node(Timestamp(), "When it was created.")
    updated_at = node(Timestamp(), "When it last changed.")


def order(found: Order, notification: Mapping[str, Any] | None) -> dict[str, Any]:
    """An order as JSON, with the summary of its last message."""
    return {
        "id": found.id,
        "item": found.item,
        "amount": found.amount,
        "customer": found.customer_id,
        "currency": found.currency,
        "reference": found.reference,
        "metadata": found.extra,
        "status": found.status,
        "notification": notification,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }

"""What goes in and out of the order services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import colander

from customer_orders.api.fields import (
    MAX_AMOUNT,
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
from customer_orders.notifications.schemas import NotificationSummary
from customer_orders.orders.models import Order


class OrderBody(Body):
    """An order as a client writes it. In a PUT, an optional field left out keeps its value; null clears it."""

    read_only = ("id", "status", "notification", "created_at", "updated_at")

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

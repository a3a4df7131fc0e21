"""What goes in and out of the order services."""

from __future__ import annotations

from typing import Any

import colander

from customer_orders.api.fields import (
    Body,
    Currency,
    Expandable,
    Integer,
    Metadata,
    MetadataFilter,
    PhoneFilter,
    Text,
    Timestamp,
    Word,
    node,
    partial,
)
from customer_orders.api.paging import UNINDEXED, ListQuery
from customer_orders.customers import schemas as customers
from customer_orders.customers.models import Customer
from customer_orders.money import MAX_AMOUNT
from customer_orders.notifications.models import Notification, Status
from customer_orders.notifications.schemas import NotificationDraft, NotificationSummary, Told, draft
from customer_orders.orders.models import TRANSITIONS, Order, OrderStatus


def _steps() -> str:
    """The transitions, for people."""
    return "; ".join(f"{' or '.join(after)} after {before}" for before, after in TRANSITIONS.items() if after)


class OrderBody(Body):
    """A new order as a client writes it."""

    read_only = ("id", "notification", "created_at", "updated_at")
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
    status = node(
        Word(OrderStatus.PLACED), "Where it begins; it moves on by PATCH or PUT afterwards.", missing=colander.drop
    )


class OrderReplacement(OrderBody):
    """An order as a client writes it. In a PUT, an optional field left out keeps its value; null clears it."""

    status = node(
        Word(*OrderStatus),
        f"Where it shall stand: {_steps()}. The same again changes nothing, and sends nothing.",
        missing=colander.drop,
    )


OrderPatch = partial(OrderReplacement)


class ExpandQuery(colander.MappingSchema):
    """What else an answer may hold."""

    expand = node(Word("customer"), "What to show in full instead of its id.", missing=colander.drop)


class OrderQuery(ListQuery, ExpandQuery):
    """What the list of orders can be asked for."""

    status = node(Word(*OrderStatus), "Where the order stands.", missing=colander.drop)
    customer = node(Integer(1), "Id of the customer.", missing=colander.drop)
    phone = node(PhoneFilter(), "The customer's phone number in any way people write it.", missing=colander.drop)
    notification_status = node(Word(*Status), "What became of the last message.", missing=colander.drop)
    q = node(
        Text(),
        f"Part of the item or of the customer's name, in capitals or not. {UNINDEXED}",
        missing=colander.drop,
    )
    metadata = node(
        MetadataFilter(),
        f"Value of a key in metadata; write the key's own name for `key`. {UNINDEXED}",
        name="metadata.key",
        missing=colander.drop,
    )


class OrderRead(colander.MappingSchema):
    """An order."""

    example: dict[str, Any] = {
        "id": 1,
        "item": "Tea",
        "amount": 10000,
        "customer": 1,
        "currency": "KES",
        "reference": None,
        "metadata": {},
        "status": "placed",
        "notification": {
            "id": 1,
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
    status = node(Word(*OrderStatus), "Where the order stands.")
    notification = NotificationSummary(
        description="What became of the last message about it; null: there was none.", nullable=True
    )
    created_at = node(Timestamp(), "When it was created.")
    updated_at = node(Timestamp(), "When it last changed.")


class OrderRehearsed(OrderRead):
    """An order as it would be, and the message about it."""

    example = {
        **OrderRead.example,
        "id": None,
        "notification": {
            **OrderRead.example["notification"],
            "status": "queued",
            "attempts": 0,
            "next_attempt_at": "2026-01-31T08:00:00.000000Z",
            "cost": None,
            "notifier": None,
            "text": "Your order has been created. Thank you for shopping with us!",
            "language": None,
            "encoding": "gsm-7",
            "segments": 1,
        },
    }

    id = node(Integer(1), "null: there is no such order.", nullable=True)
    notification = NotificationDraft(description="The message as it would be queued, or why it would not be sent.")


class OrderExpanded(OrderRead):
    """An order, its customer in full where asked for."""

    customer = node(
        Expandable(), "Id of the customer; with `expand=customer` the customer, as `GET /customers/{id}` shows them."
    )


def order(found: Order, told: Told, customer: Customer | None = None) -> dict[str, Any]:
    """An order as JSON, with what became of its last message; and its customer in full, if given."""
    return {
        "id": found.id,
        "item": found.item,
        "amount": found.amount,
        "customer": found.customer_id if customer is None else customers.customer(customer),
        "currency": found.currency,
        "reference": found.reference,
        "metadata": found.extra,
        "status": found.status,
        "notification": told.summary,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def rehearsed(found: Order, message: Notification) -> dict[str, Any]:
    """An order that was only rehearsed, and the message about it."""
    return {**order(found, Told(draft(message))), "id": None}

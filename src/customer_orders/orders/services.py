"""What can be done with orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.api.fields import Metadata
from customer_orders.customers.models import Customer
from customer_orders.customers.services import facts as customer_facts
from customer_orders.errors import FieldError, Invalid, NotFound
from customer_orders.events import OrderDeleted, OrderFacts, OrderPlaced, announce
from customer_orders.orders.models import Order


def list_orders(session: Session, *, limit: int, cursor: int | None) -> Sequence[Order]:
    """A page of orders, newest first; one more than ``limit`` if there are more."""
    found: Sequence[Order] = db.keyset(session, select(Order), Order.id, limit, cursor)
    return found


def read_order(session: Session, order_id: int, *, lock: bool = False) -> Order:
    """One order, locked against other writers if ``lock``. Raises ``NotFound``."""
    found = session.get(Order, order_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"There is no order {order_id}.")
    return found


def create_order(session: Session, values: Mapping[str, Any], *, currency: str) -> Order:
    """A new order, announced as ``OrderPlaced``.

    :param currency: ISO 4217 code where ``values`` names none.

    Raises ``Invalid`` naming ``customer`` if there is no such customer.
    """
    customer = _customer(session, values["customer"])
    now = db.now(session)
    placed = Order(created_at=now, updated_at=now, extra={}, currency=currency, status="placed")
    _assign(placed, values, currency=currency)
    session.add(placed)
    session.flush()
    announce(
        session,
        OrderPlaced(
            order=OrderFacts(placed.id, placed.item, placed.amount, placed.currency, placed.reference),
            customer=customer_facts(customer),
        ),
    )
    return placed


def change_order(session: Session, order_id: int, values: Mapping[str, Any], *, currency: str, merge: bool) -> Order:
    """Change what ``values`` names. ``merge``: metadata is merged, as in a PATCH.

    Raises ``NotFound``, or ``Invalid`` naming ``customer`` if there is no such customer.
    """
    found = read_order(session, order_id, lock=True)
    if "customer" in values:
        _customer(session, values["customer"])
    _assign(found, values, currency=currency, merge=merge)
    found.updated_at = db.now(session)
    session.flush()
    return found


def delete_order(session: Session, order_id: int) -> None:
    """Delete an order, announced as ``OrderDeleted`` before its row goes. Raises ``NotFound``."""
    found = read_order(session, order_id, lock=True)
    announce(session, OrderDeleted(order_id))
    session.delete(found)
    session.flush()


def _customer(session: Session, customer_id: int) -> Customer:
    # FOR KEY SHARE: the customer cannot be deleted before this transaction ends.
    found = session.get(Customer, customer_id, with_for_update={"read": True, "key_share": True})
    if found is None:
        raise Invalid([FieldError("customer", f"There is no customer {customer_id}.")])
    return found


def _assign(found: Order, values: Mapping[str, Any], *, currency: str, merge: bool = False) -> None:
    for name in ("item", "amount", "reference"):
        if name in values:
            setattr(found, name, values[name])
    if "customer" in values:
        found.customer_id = values["customer"]
    if "currency" in values:
        found.currency = values["currency"] or currency
    if "metadata" in values:
        found.extra = Metadata.changed(found.extra if merge else {}, values["metadata"])

"""What can be done with orders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from customer_orders import db, tables
from customer_orders.api.fields import Metadata
from customer_orders.customers.models import Customer
from customer_orders.customers.services import facts as customer_facts
from customer_orders.customers.services import require_person
from customer_orders.errors import Conflict, FieldError, Invalid, NotFound
from customer_orders.events import (
    Audited,
    OrderDeleted,
    OrderFacts,
    OrderPlaced,
    OrderStatusChanged,
    announce,
    snapshot,
)
from customer_orders.keyset import Page, Wanted, common_filters, page
from customer_orders.notifications.services import orders_told
from customer_orders.orders.models import TRANSITIONS, Order, OrderStatus

FILTERS = {
    **common_filters(Order),
    "status": lambda value: Order.status == value,
    "customer": lambda value: Order.customer_id == value,
    "phone": lambda value: Order.customer_id.in_(select(Customer.id).where(Customer.phone_number == value)),
    "notification_status": lambda value: Order.id.in_(orders_told(value)),
}
SEARCHES = {
    "q": lambda value: (
        lambda found: found.join(Customer, Customer.id == Order.customer_id).where(
            or_(Order.item.icontains(value, autoescape=True), Customer.username.icontains(value, autoescape=True))
        )
    ),
    "metadata.key": lambda value: lambda found: found.where(*tables.has_metadata(Order.extra, value)),
}


def list_orders(session: Session, wanted: Wanted) -> Page:
    """A page of orders."""
    return page(session, Order, wanted, FILTERS, SEARCHES)


def count_by_status(session: Session, period: Mapping[str, Any]) -> dict[str, int]:
    """How many orders of a period stand where. ``period``: bounds as in lists, ``created_at__gte`` and such."""
    filters = common_filters(Order)
    created = [filters[name](value) for name, value in period.items()]
    counts = select(Order.status, func.count()).where(*created).group_by(Order.status)
    return dict(session.execute(counts).all())


def read_order(session: Session, order_id: int, *, lock: bool = False) -> Order:
    """One order, locked against other writers if ``lock``. Raises ``NotFound``."""
    found = session.get(Order, order_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"There is no order {order_id}.")
    return found


def create_order(session: Session, values: Mapping[str, Any], *, currency: str) -> Order:
    """A new order, announced as ``OrderPlaced``.

    :param currency: ISO 4217 code where ``values`` names none.

    Raises ``Invalid`` naming ``customer`` if there is no such customer, or ``Conflict`` if another order has the
    reference, or the customer was anonymized.
    """
    customer = _customer(session, values["customer"])
    require_person(customer)
    now = db.now(session)
    placed = Order(created_at=now, updated_at=now, extra={}, currency=currency, status=OrderStatus.PLACED)
    with db.unique_reference(session, Order, values.get("reference")):
        _assign(placed, values, currency=currency)
        session.add(placed)
    announce(session, Audited("order.placed", placed.id, after=snapshot(placed), at=now))
    announce(session, OrderPlaced(_facts(placed), customer_facts(customer)))
    return placed


def change_order(
    session: Session,
    order_id: int,
    values: Mapping[str, Any],
    *,
    currency: str,
    merge: bool,
    versions: Collection[int] | None = None,
) -> Order:
    """Change what ``values`` names; a step of its status is announced as ``OrderStatusChanged``.

    :param merge: whether metadata is merged, as in a PATCH.
    :param versions: those of which the caller wants to change one; None: any.

    Raises ``NotFound``, ``Stale``, ``Invalid`` naming ``customer`` if there is no such customer, or ``Conflict`` if
    another order has the reference, or the status is none that it can go to from where it stands, or something is
    written about a customer who was anonymized.
    """
    found = read_order(session, order_id, lock=True)
    tables.require_version(found, versions)
    before = found.status
    after = values.get("status", before)
    if after != before:
        _require_transition(found, after)
    elif values.keys() == {"status"}:
        # nothing to do, so nothing that others would have to read again
        return found
    customer = _customer(session, values.get("customer", found.customer_id))
    if customer.anonymized_at is not None and _tells_of_customer(found, values):
        require_person(customer)
    # before the change begins: to ask the database for the time is to write what is half made
    now, held = db.now(session), snapshot(found)
    with db.unique_reference(session, Order, values.get("reference")):
        _assign(found, values, currency=currency, merge=merge)
        found.status, found.updated_at = after, now
    action = "order.changed" if after == before else "order.status_changed"
    announce(session, Audited(action, order_id, held, snapshot(found), at=now))
    if after != before:
        announce(session, OrderStatusChanged(_facts(found), customer_facts(customer), before, after))
    return found


def delete_order(session: Session, order_id: int, *, versions: Collection[int] | None = None) -> None:
    """Delete an order, announced as ``OrderDeleted`` before its row goes. Raises ``NotFound`` or ``Stale``."""
    found = read_order(session, order_id, lock=True)
    tables.require_version(found, versions)
    announce(session, Audited("order.deleted", order_id, before=snapshot(found)))
    announce(session, OrderDeleted(order_id))
    session.delete(found)
    session.flush()


def _require_transition(found: Order, after: str) -> None:
    allowed = TRANSITIONS.get(found.status, ())
    if after not in allowed:
        can = f"it can become {' or '.join(allowed)}" if allowed else "it stays so"
        said = f"Order {found.id} is {found.status} and cannot become {after}; {can}."
        raise Conflict(said, code="illegal-transition", allowed=allowed)


def _tells_of_customer(found: Order, values: Mapping[str, Any]) -> bool:
    """Whether a change gives the order to another customer, or writes what may tell of the one who has it."""
    changed = values.get("customer", found.customer_id) != found.customer_id
    present = {"item": found.item, "reference": found.reference, "metadata": None}
    return changed or any(values.get(name) and values[name] != present[name] for name in present)


def _facts(found: Order) -> OrderFacts:
    return OrderFacts(found.id, found.item, found.amount, found.currency, found.reference)


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

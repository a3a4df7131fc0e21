"""Orders of a customer who is to be forgotten, or told all.

An order stays with its item, amount, currency, status and reference: a merchant's books need them. Its metadata can
hold anything, such as an address, and goes; the customer's number goes from wherever it was written.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, false, func, or_, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.events import CustomerAnonymized, CustomerAnonymizing, CustomerExported
from customer_orders.notifications.schemas import Told
from customer_orders.notifications.services import summaries
from customer_orders.orders import schemas
from customer_orders.orders.models import Order

# Letters that a name needs to be looked for in a reference: shorter ones stand in half of them.
TELLING = 4
# Orders that are read at a time.
READ = 500


def lock(session: Session, event: CustomerAnonymizing) -> None:
    """Lock a customer's orders: whoever changes one has it before the customer."""
    session.execute(
        select(Order.id).where(Order.customer_id == event.customer_id).order_by(Order.id).with_for_update()
    ).all()


def wipe(session: Session, event: CustomerAnonymized) -> None:
    """Wipe what an order says of its customer beyond what was ordered."""
    digits = event.phone_number.removeprefix("+")
    item: Any = Order.item
    holds: list[Any] = [false()]
    if digits:
        for written in (event.phone_number, digits):
            item = func.replace(item, written, "anonymized")
        holds.append(Order.reference.contains(digits))
    if len(event.username) >= TELLING:
        holds.append(Order.reference.icontains(event.username, autoescape=True))
    session.execute(
        update(Order)
        .where(Order.customer_id == event.customer_id)
        .values(
            # what replaces a number may be longer than it
            item=func.substr(item, 1, Order.item.type.length),
            reference=case((or_(*holds), None), else_=Order.reference),
            extra={},
            version=Order.version + 1,
            updated_at=db.now(session),
        )
        .execution_options(synchronize_session=False)
    )


def tell(session: Session, event: CustomerExported) -> None:
    """Add the orders to what is held on their customer, the oldest first."""
    told = event.collected["orders"] = []
    theirs = select(Order).where(Order.customer_id == event.customer_id).order_by(Order.id)
    for found in session.scalars(theirs.execution_options(yield_per=READ)).partitions():
        messages = summaries(session, [one.id for one in found])
        told += [schemas.order(one, messages.get(one.id, Told())) for one in found]

"""What can be done with customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.api.fields import Metadata
from customer_orders.customers.models import Customer
from customer_orders.errors import Conflict, NotFound
from customer_orders.events import CustomerFacts


def list_customers(session: Session, *, limit: int, cursor: int | None) -> Sequence[Customer]:
    """A page of customers, newest first; one more than ``limit`` if there are more."""
    found: Sequence[Customer] = db.keyset(session, select(Customer), Customer.id, limit, cursor)
    return found


def read_customer(session: Session, customer_id: int, *, lock: bool = False) -> Customer:
    """One customer, locked against other writers if ``lock``. Raises ``NotFound``."""
    found = session.get(Customer, customer_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"There is no customer {customer_id}.")
    return found


def create_customer(session: Session, values: Mapping[str, Any]) -> Customer:
    """A new customer."""
    now = db.now(session)
    created = Customer(created_at=now, updated_at=now, extra={}, sms_opt_out=False)
    _assign(created, values)
    session.add(created)
    session.flush()
    return created


def change_customer(session: Session, customer_id: int, values: Mapping[str, Any], *, merge: bool) -> Customer:
    """Change what ``values`` names. ``merge``: metadata is merged, as in a PATCH. Raises ``NotFound``."""
    found = read_customer(session, customer_id, lock=True)
    _assign(found, values, merge=merge)
    found.updated_at = db.now(session)
    session.flush()
    return found


def delete_customer(session: Session, customer_id: int) -> None:
    """Delete a customer. Raises ``NotFound``, or ``Conflict`` while orders name them."""
    found = read_customer(session, customer_id, lock=True)
    session.delete(found)
    try:
        session.flush()
    except IntegrityError as error:
        # The foreign key decides, not a look before: an order may be placed in between.
        raise Conflict(f"Customer {customer_id} has orders; delete those first.", code="customer-has-orders") from error


def facts(found: Customer) -> CustomerFacts:
    """What events say of a customer."""
    return CustomerFacts(
        id=found.id,
        username=found.username,
        phone_number=found.phone_number,
        reference=found.reference,
        language=found.language,
        sms_opt_out=found.sms_opt_out,
    )


def _assign(found: Customer, values: Mapping[str, Any], *, merge: bool = False) -> None:
    for name in ("username", "phone_number", "reference", "language"):
        if name in values:
            setattr(found, name, values[name])
    if "sms_opt_out" in values:
        found.sms_opt_out = bool(values["sms_opt_out"])
    if "metadata" in values:
        found.extra = Metadata.changed(found.extra if merge else {}, values["metadata"])

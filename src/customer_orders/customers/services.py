"""What can be done with customers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from customer_orders import db, tables
from customer_orders.api.fields import Metadata
from customer_orders.customers.models import Customer
from customer_orders.errors import Conflict, NotFound
from customer_orders.events import Audited, CustomerFacts, announce, snapshot
from customer_orders.keyset import Page, Wanted, common_filters, page

FILTERS = {
    **common_filters(Customer),
    "phone": lambda value: Customer.phone_number == value,
}
SEARCHES = {
    "q": lambda value: lambda found: found.where(Customer.username.icontains(value, autoescape=True)),
    "metadata.key": lambda value: lambda found: found.where(*tables.has_metadata(Customer.extra, value)),
}


def list_customers(session: Session, wanted: Wanted) -> Page:
    """A page of customers."""
    return page(session, Customer, wanted, FILTERS, SEARCHES)


def customers_by_id(session: Session, ids: Collection[int]) -> dict[int, Customer]:
    """Those of the customers that there are, in one query."""
    return {found.id: found for found in session.scalars(select(Customer).where(Customer.id.in_(ids)))}


def read_customer(session: Session, customer_id: int, *, lock: bool = False) -> Customer:
    """One customer, locked against other writers if ``lock``. Raises ``NotFound``."""
    found = session.get(Customer, customer_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"There is no customer {customer_id}.")
    return found


def require_person(found: Customer) -> None:
    """Raises ``Conflict`` of a customer who was anonymized: nothing is written about nobody."""
    if found.anonymized_at is not None:
        said = f"Customer {found.id} was anonymized; nothing new is kept on them."
        raise Conflict(said, code="customer-anonymized")


def create_customer(session: Session, values: Mapping[str, Any]) -> Customer:
    """A new customer. Raises ``Conflict`` if another has the reference."""
    now = db.now(session)
    created = Customer(created_at=now, updated_at=now, extra={}, sms_opt_out=False)
    with db.unique_reference(session, Customer, values.get("reference")):
        _assign(created, values, now)
        session.add(created)
    announce(session, Audited("customer.created", created.id, after=snapshot(created), at=now))
    return created


def change_customer(
    session: Session,
    customer_id: int,
    values: Mapping[str, Any],
    *,
    merge: bool,
    versions: Collection[int] | None = None,
) -> Customer:
    """Change what ``values`` names.

    :param merge: whether metadata is merged, as in a PATCH.
    :param versions: those of which the caller wants to change one; None: any.

    Raises ``NotFound``, ``Stale``, or ``Conflict`` if another has the reference, or they were anonymized.
    """
    found = read_customer(session, customer_id, lock=True)
    tables.require_version(found, versions)
    require_person(found)
    # before the change begins: to ask the database for the time is to write what is half made
    now, before = db.now(session), snapshot(found)
    with db.unique_reference(session, Customer, values.get("reference")):
        _assign(found, values, now, merge=merge)
        found.updated_at = now
    announce(session, Audited("customer.changed", customer_id, before, snapshot(found), at=now))
    return found


def delete_customer(session: Session, customer_id: int, *, versions: Collection[int] | None = None) -> None:
    """Delete a customer. Raises ``NotFound``, ``Stale``, or ``Conflict`` while orders name them."""
    found = read_customer(session, customer_id, lock=True)
    tables.require_version(found, versions)
    announce(session, Audited("customer.deleted", customer_id, before=snapshot(found)))
    session.delete(found)
    try:
        session.flush()
    except IntegrityError as error:
        # The foreign key decides, not a look before: an order may be placed in between.
        raise Conflict(f"Customer {customer_id} has orders; delete those first.", code="customer-has-orders") from error


def opt_out(session: Session, phone_number: str) -> int:
    """Every customer with this number (E.164) wants no SMS, by their own word; tells how many did not say so before."""
    now = db.now(session)
    found = session.scalars(
        select(Customer)
        .where(
            Customer.phone_number == phone_number,
            or_(Customer.sms_opt_out.is_(False), Customer.sms_opt_out_source.is_distinct_from("recipient")),
        )
        .order_by(Customer.id)
        .with_for_update()
    ).all()
    for one in found:
        before = snapshot(one)
        one.sms_opt_out, one.sms_opt_out_source = True, "recipient"
        one.sms_opt_out_at = one.updated_at = now
        announce(session, Audited("customer.opted_out", one.id, before, snapshot(one), at=now))
    return len(found)


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


def _assign(found: Customer, values: Mapping[str, Any], now: datetime, *, merge: bool = False) -> None:
    for name in ("username", "phone_number", "reference", "language"):
        if name in values:
            setattr(found, name, values[name])
    opt_out = bool(values.get("sms_opt_out", found.sms_opt_out))
    # to say again what is so already changes neither who said it first nor when
    if opt_out != found.sms_opt_out:
        found.sms_opt_out = opt_out
        found.sms_opt_out_source, found.sms_opt_out_at = ("staff", now) if opt_out else (None, None)
    if "metadata" in values:
        found.extra = Metadata.changed(found.extra if merge else {}, values["metadata"])

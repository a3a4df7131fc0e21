"""What a person may ask for: to be forgotten (anonymize), and to be told all that is held on them (export).

Other features hold parts of it. They hear of both by an event, in the same transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.customers.models import Customer
from customer_orders.customers.services import read_customer
from customer_orders.events import Audited, CustomerAnonymized, CustomerAnonymizing, CustomerExported, announce

# The name of everybody whose own was wiped.
NAME = "anonymized"


def anonymize(session: Session, customer_id: int) -> Customer:
    """Wipe who a customer is, here and by ``CustomerAnonymized`` everywhere else; done once, it changes nothing again.

    From the lock on, nobody places an order for them, and whoever did so before is committed. Raises ``NotFound``.
    """
    announce(session, CustomerAnonymizing(customer_id))
    found = read_customer(session, customer_id, lock=True)
    if found.anonymized_at is not None:
        return found
    now = db.now(session)
    known = CustomerAnonymized(found.id, found.username, found.phone_number or "")
    found.username, found.phone_number = NAME, None
    found.reference, found.language, found.extra = None, None, {}
    found.anonymized_at = found.updated_at = now
    session.flush()
    announce(session, known)
    announce(session, Audited("customer.anonymized", found.id))
    return found


def export(session: Session, customer_id: int) -> tuple[Customer, dict[str, Any]]:
    """A customer, and all else that is held on them, by name of what it is. Raises ``NotFound``."""
    found = read_customer(session, customer_id)
    asked = CustomerExported(found.id, found.phone_number, {})
    announce(session, asked)
    return found, asked.collected

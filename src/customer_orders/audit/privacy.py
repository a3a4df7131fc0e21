"""What is on record of a customer who is to be told all that is held. Nothing personal is, so nothing is forgotten."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from customer_orders.audit import schemas, services
from customer_orders.audit.models import AuditEntry
from customer_orders.events import CustomerExported


def tell(session: Session, event: CustomerExported) -> None:
    """Add what was done with a customer to what is held on them, the oldest first."""
    theirs = select(AuditEntry).where(services.about("customer", event.customer_id)).order_by(AuditEntry.id)
    found = session.scalars(theirs).all()
    event.collected["events"] = schemas.events(found, services.names_of(session, found))

"""What the audit trail holds of a customer: that something was done to them, and nothing of who they are."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from customer_orders.audit import schemas
from customer_orders.audit.models import AuditEntry
from customer_orders.audit.services import about, names_of
from customer_orders.events import CustomerExported


def tell(session: Session, event: CustomerExported) -> None:
    """Add the entries about a customer to what is held on them, oldest first."""
    mine = select(AuditEntry).where(about("customer", event.customer_id)).order_by(AuditEntry.id)
    found = session.scalars(mine).all()
    event.collected["events"] = schemas.events(found, names_of(session, found))

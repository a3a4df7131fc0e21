"""The audit services; those about one customer or order are with what they are about."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement

from customer_orders.api import Service
from customer_orders.api.paging import link, wanted
from customer_orders.audit import schemas, services
from customer_orders.audit.resources import Entries
from customer_orders.auth.policy import Permission

audit = Service("audit", "/api/audit/", tag="audit", factory=Entries)


@audit.get(
    permission=Permission.AUDIT_READ,
    operation_id="audit_list",
    query=schemas.EntryQuery,
    returns=[schemas.EntryRead],
)
def list_entries(request: Any) -> list[dict[str, Any]]:
    """List who did what, when, from where, and what was refused; newest first.

    Of what tells of a person only the names of the fields that changed are kept, never their values.
    """
    found = services.list_entries(request.dbsession, wanted(request))
    link(request, found)
    return schemas.entries(found.items, services.names_of(request.dbsession, found.items))


def show_events(request: Any, which: ColumnElement[bool]) -> list[dict[str, Any]]:
    """A page of what happened to one thing, for the view of a resource that may be read."""
    found = services.list_events(request.dbsession, wanted(request), which)
    link(request, found)
    return schemas.events(found.items, services.names_of(request.dbsession, found.items))

"""The customer services."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service, created
from customer_orders.api.conditional import required_versions, tell
from customer_orders.api.paging import PageQuery, link, wanted
from customer_orders.audit.schemas import EventRead
from customer_orders.audit.services import about
from customer_orders.audit.views import show_events
from customer_orders.auth.policy import Permission
from customer_orders.customers import privacy, schemas, services
from customer_orders.customers.models import Customer
from customer_orders.customers.resources import CustomerItem, Customers

customers = Service("customers", "/api/customers/", tag="customers", factory=Customers)
customer = Service("customer", "/api/customers/{id}", tag="customers", factory=CustomerItem)
anonymized = Service("customer_anonymize", "/api/customers/{id}/anonymize", tag="customers", factory=CustomerItem)
exported = Service("customer_export", "/api/customers/{id}/export", tag="customers", factory=CustomerItem)
customer_events = Service("customer_events", "/api/customers/{id}/events", tag="customers", factory=CustomerItem)

READ, WRITE, MANAGE = Permission.CUSTOMERS_READ, Permission.CUSTOMERS_WRITE, Permission.CUSTOMERS_MANAGE


def _one(request: Any, found: Customer) -> dict[str, Any]:
    tell(request, found.version)
    return schemas.customer(found)


@customers.get(
    permission=READ,
    operation_id="customers_list",
    query=schemas.CustomerQuery,
    returns=[schemas.CustomerRead],
)
def list_customers(request: Any) -> list[dict[str, Any]]:
    """List customers, newest first unless told."""
    found = services.list_customers(request.dbsession, wanted(request))
    link(request, found)
    return [schemas.customer(item) for item in found.items]


@customers.post(
    permission=WRITE,
    operation_id="customers_create",
    body=schemas.CustomerBody,
    status=201,
    returns=schemas.CustomerRead,
    tagged=True,
    problems=("reference-taken",),
)
def create_customer(request: Any) -> dict[str, Any]:
    """Create a customer."""
    made = services.create_customer(request.dbsession, request.validated["body"])
    created(request, made.id)
    return _one(request, made)


@customer.get(permission=READ, operation_id="customers_read", returns=schemas.CustomerRead, tagged=True)
def read_customer(request: Any) -> dict[str, Any]:
    """Read a customer."""
    return _one(request, services.read_customer(request.dbsession, request.context.id))


@customer.put(
    permission=WRITE,
    operation_id="customers_update",
    body=schemas.CustomerBody,
    returns=schemas.CustomerRead,
    tagged=True,
    problems=("reference-taken", "customer-anonymized"),
)
def replace_customer(request: Any) -> dict[str, Any]:
    """Replace a customer.

    An optional field left out keeps its value; null clears it.
    """
    return _changed(request, merge=False)


@customer.patch(
    permission=WRITE,
    operation_id="customers_partial_update",
    body=schemas.CustomerPatch,
    returns=schemas.CustomerRead,
    tagged=True,
    problems=("reference-taken", "customer-anonymized"),
)
def change_customer(request: Any) -> dict[str, Any]:
    """Change some fields of a customer.

    Metadata is merged; null removes a key.
    """
    return _changed(request, merge=True)


def _changed(request: Any, *, merge: bool) -> dict[str, Any]:
    changed = services.change_customer(
        request.dbsession,
        request.context.id,
        request.validated["body"],
        merge=merge,
        versions=required_versions(request),
    )
    return _one(request, changed)


@customer.delete(
    permission=WRITE,
    operation_id="customers_delete",
    status=204,
    tagged=True,
    problems=("customer-has-orders",),
)
def delete_customer(request: Any) -> Any:
    """Delete a customer who has no orders."""
    services.delete_customer(request.dbsession, request.context.id, versions=required_versions(request))
    return HTTPNoContent()


@anonymized.post(permission=MANAGE, operation_id="customers_anonymize", returns=schemas.CustomerRead, tagged=True)
def anonymize_customer(request: Any) -> dict[str, Any]:
    """Forget who a customer is: name, phone number, reference and metadata, wherever they are kept. Not to be undone.

    Their orders and sums stay, without metadata; messages that were not sent yet are cancelled. The same again changes
    nothing. No body is needed.
    """
    return _one(request, privacy.anonymize(request.dbsession, request.context.id))


@exported.get(permission=MANAGE, operation_id="customers_export", returns=schemas.CustomerExport, secret=True)
def export_customer(request: Any) -> dict[str, Any]:
    """Read all that is held on a customer: their orders, the messages to them, and what became of each."""
    return schemas.export(*privacy.export(request.dbsession, request.context.id))


@customer_events.get(permission=READ, operation_id="customers_events", query=PageQuery, returns=[EventRead])
def list_events(request: Any) -> list[dict[str, Any]]:
    """List what happened to a customer, newest first.

    Of what tells of the person only the names of the fields that changed are kept.
    """
    found = services.read_customer(request.dbsession, request.context.id)
    return show_events(request, about("customer", found.id))

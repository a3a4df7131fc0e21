"""The customer services."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service, created
from customer_orders.api.paging import PageQuery, respond
from customer_orders.auth.policy import Permission
from customer_orders.customers import schemas, services
from customer_orders.customers.resources import CustomerItem, Customers

customers = Service("customers", "/api/customers/", tag="customers", factory=Customers)
customer = Service("customer", "/api/customers/{id}", tag="customers", factory=CustomerItem)

READ, WRITE = Permission.CUSTOMERS_READ, Permission.CUSTOMERS_WRITE


@customers.get(permission=READ, operation_id="customers_list", query=PageQuery, returns=[schemas.CustomerRead])
def list_customers(request: Any) -> list[dict[str, Any]]:
    """List customers, newest first."""
    found = services.list_customers(request.dbsession, **request.validated["query"])
    return respond(request, found, schemas.customer)


@customers.post(
    permission=WRITE,
    operation_id="customers_create",
    body=schemas.CustomerBody,
    status=201,
    returns=schemas.CustomerRead,
)
def create_customer(request: Any) -> dict[str, Any]:
    """Create a customer."""
    made = services.create_customer(request.dbsession, request.validated["body"])
    created(request, made.id)
    return schemas.customer(made)


@customer.get(permission=READ, operation_id="customers_read", returns=schemas.CustomerRead)
def read_customer(request: Any) -> dict[str, Any]:
    """Read a customer."""
    return schemas.customer(services.read_customer(request.dbsession, request.context.id))


@customer.put(
    permission=WRITE,
    operation_id="customers_update",
    body=schemas.CustomerBody,
    returns=schemas.CustomerRead,
)
def replace_customer(request: Any) -> dict[str, Any]:
    """Replace a customer.

    An optional field left out keeps its value; null clears it.
    """
    values = request.validated["body"]
    return schemas.customer(services.change_customer(request.dbsession, request.context.id, values, merge=False))


@customer.patch(
    permission=WRITE,
    operation_id="customers_partial_update",
    body=schemas.CustomerPatch,
    returns=schemas.CustomerRead,
)
def change_customer(request: Any) -> dict[str, Any]:
    """Change some fields of a customer.

    Metadata is merged; null removes a key.
    """
    values = request.validated["body"]
    return schemas.customer(services.change_customer(request.dbsession, request.context.id, values, merge=True))


@customer.delete(permission=WRITE, operation_id="customers_delete", status=204, problems=("customer-has-orders",))
def delete_customer(request: Any) -> Any:
    """Delete a customer who has no orders."""
    services.delete_customer(request.dbsession, request.context.id)
    return HTTPNoContent()

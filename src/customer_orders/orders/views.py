"""The order services."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service, created
from customer_orders.api.paging import PageQuery, respond
from customer_orders.auth.policy import Permission
from customer_orders.notifications.services import summaries
from customer_orders.orders import schemas, services
from customer_orders.orders.models import Order
from customer_orders.orders.resources import OrderItem, Orders
from customer_orders.settings import section

orders = Service("orders", "/api/orders/", tag="orders", factory=Orders)
order = Service("order", "/api/orders/{id}", tag="orders", factory=OrderItem)

READ, WRITE = Permission.ORDERS_READ, Permission.ORDERS_WRITE


def _currency(request: Any) -> str:
    return str(section(request.registry, "orders").currency)


def _one(request: Any, found: Order) -> dict[str, Any]:
    return schemas.order(found, summaries(request.dbsession, [found.id]).get(found.id))


@orders.get(permission=READ, operation_id="orders_list", query=PageQuery, returns=[schemas.OrderRead])
def list_orders(request: Any) -> list[dict[str, Any]]:
    """List orders, newest first."""
    found = services.list_orders(request.dbsession, **request.validated["query"])
    told = summaries(request.dbsession, [item.id for item in found])
    return respond(request, found, lambda item: schemas.order(item, told.get(item.id)))


@orders.post(
    permission=WRITE,
    operation_id="orders_create",
    body=schemas.OrderBody,
    status=201,
    returns=schemas.OrderRead,
)
def create_order(request: Any) -> dict[str, Any]:
    """Place an order; the customer gets one SMS."""
    placed = services.create_order(request.dbsession, request.validated["body"], currency=_currency(request))
    created(request, placed.id)
    return _one(request, placed)


@order.get(permission=READ, operation_id="orders_read", returns=schemas.OrderRead)
def read_order(request: Any) -> dict[str, Any]:
    """Read an order."""
    return _one(request, services.read_order(request.dbsession, request.context.id))


@order.put(permission=WRITE, operation_id="orders_update", body=schemas.OrderBody, returns=schemas.OrderRead)
def replace_order(request: Any) -> dict[str, Any]:
    """Replace an order.

    An optional field left out keeps its value; null clears it.
    """
    return _changed(request, merge=False)


@order.patch(
    permission=WRITE,
    operation_id="orders_partial_update",
    body=schemas.OrderPatch,
    returns=schemas.OrderRead,
)
def change_order(request: Any) -> dict[str, Any]:
    """Change some fields of an order.

    Metadata is merged; null removes a key.
    """
    return _changed(request, merge=True)


def _changed(request: Any, *, merge: bool) -> dict[str, Any]:
    changed = services.change_order(
        request.dbsession,
        request.context.id,
        request.validated["body"],
        currency=_currency(request),
        merge=merge,
    )
    return _one(request, changed)


@order.delete(permission=WRITE, operation_id="orders_delete", status=204)
def delete_order(request: Any) -> Any:
    """Delete an order.

    A message still queued for it is cancelled; what was sent stays on record.
    """
    services.delete_order(request.dbsession, request.context.id)
    return HTTPNoContent()

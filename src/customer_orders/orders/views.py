"""The order services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service, created, is_dry_run
from customer_orders.api.conditional import required_versions, tell
from customer_orders.api.paging import PageQuery, link, wanted
from customer_orders.audit.schemas import EventRead
from customer_orders.audit.services import about, about_any
from customer_orders.audit.views import show_events
from customer_orders.auth.policy import Permission
from customer_orders.customers.services import customers_by_id
from customer_orders.notifications.schemas import Told
from customer_orders.notifications.services import ids_about, last_about, summaries
from customer_orders.orders import schemas, services
from customer_orders.orders.models import Order
from customer_orders.orders.resources import OrderItem, Orders
from customer_orders.settings import section

orders = Service("orders", "/api/orders/", tag="orders", factory=Orders)
order = Service("order", "/api/orders/{id}", tag="orders", factory=OrderItem)
order_events = Service("order_events", "/api/orders/{id}/events", tag="orders", factory=OrderItem)

READ, WRITE = Permission.ORDERS_READ, Permission.ORDERS_WRITE


def _currency(request: Any) -> str:
    return str(section(request.registry, "orders").currency)


def _shown(request: Any, found: Sequence[Order]) -> list[dict[str, Any]]:
    """Orders as JSON: one query more, whatever their number, and one for their customers if asked for."""
    told = summaries(request.dbsession, [item.id for item in found])
    expanded = {}
    if "expand" in request.validated.get("query", ()):
        expanded = customers_by_id(request.dbsession, {item.customer_id for item in found})
    return [schemas.order(item, told.get(item.id, Told()), expanded.get(item.customer_id)) for item in found]


def _one(request: Any, found: Order) -> dict[str, Any]:
    told = summaries(request.dbsession, [found.id]).get(found.id, Told())
    tell(request, found.version, told.version)
    return schemas.order(found, told)


@orders.get(
    permission=READ,
    operation_id="orders_list",
    query=schemas.OrderQuery,
    returns=[schemas.OrderExpanded],
)
def list_orders(request: Any) -> list[dict[str, Any]]:
    """List orders, newest first unless told."""
    found = services.list_orders(request.dbsession, wanted(request))
    link(request, found)
    return _shown(request, found.items)


@orders.post(
    permission=WRITE,
    operation_id="orders_create",
    body=schemas.OrderBody,
    status=201,
    returns=schemas.OrderRead,
    tagged=True,
    rehearses=schemas.OrderRehearsed,
    problems=("reference-taken", "customer-anonymized"),
)
def create_order(request: Any) -> dict[str, Any]:
    """Place an order; the customer gets one SMS.

    With `dry_run=true` nothing is kept or sent; the answer is the order as it would be, and the message word for word.
    """
    placed = services.create_order(request.dbsession, request.validated["body"], currency=_currency(request))
    if is_dry_run(request):
        return schemas.rehearsed(placed, last_about(request.dbsession, placed.id))
    created(request, placed.id)
    return _one(request, placed)


@order.get(
    permission=READ,
    operation_id="orders_read",
    query=schemas.ExpandQuery,
    returns=schemas.OrderExpanded,
    tagged=True,
)
def read_order(request: Any) -> dict[str, Any]:
    """Read an order.

    With `expand` there is no ETag: what it would speak of is not the order's alone.
    """
    found = services.read_order(request.dbsession, request.context.id)
    return _shown(request, [found])[0] if request.validated["query"] else _one(request, found)


@order.put(
    permission=WRITE,
    operation_id="orders_update",
    body=schemas.OrderReplacement,
    returns=schemas.OrderRead,
    tagged=True,
    problems=("reference-taken", "illegal-transition", "customer-anonymized"),
)
def replace_order(request: Any) -> dict[str, Any]:
    """Replace an order.

    An optional field left out keeps its value; null clears it. Where its status moves on, the customer gets one SMS.
    """
    return _changed(request, merge=False)


@order.patch(
    permission=WRITE,
    operation_id="orders_partial_update",
    body=schemas.OrderPatch,
    returns=schemas.OrderRead,
    tagged=True,
    problems=("reference-taken", "illegal-transition", "customer-anonymized"),
)
def change_order(request: Any) -> dict[str, Any]:
    """Change some fields of an order.

    Metadata is merged; null removes a key. Where its status moves on, the customer gets one SMS.
    """
    return _changed(request, merge=True)


def _changed(request: Any, *, merge: bool) -> dict[str, Any]:
    changed = services.change_order(
        request.dbsession,
        request.context.id,
        request.validated["body"],
        currency=_currency(request),
        merge=merge,
        versions=required_versions(request),
    )
    return _one(request, changed)


@order.delete(permission=WRITE, operation_id="orders_delete", status=204, tagged=True)
def delete_order(request: Any) -> Any:
    """Delete an order.

    A message still queued for it is cancelled; what was sent stays on record.
    """
    services.delete_order(request.dbsession, request.context.id, versions=required_versions(request))
    return HTTPNoContent()


@order_events.get(permission=READ, operation_id="orders_events", query=PageQuery, returns=[EventRead])
def list_events(request: Any) -> list[dict[str, Any]]:
    """List what happened to an order and to the messages about it, newest first.

    Of free text and what tells of a person only the names of the fields that changed are kept.
    """
    found = services.read_order(request.dbsession, request.context.id)
    messages = about_any("notification", ids_about(request.dbsession, found.id))
    return show_events(request, about("order", found.id) | messages)

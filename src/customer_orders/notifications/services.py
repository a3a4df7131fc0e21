"""Writing the outbox in the transaction of what it tells of, and reading what became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from customer_orders import db
from customer_orders.events import (
    CustomerFacts,
    MessageChange,
    MessagesChanged,
    OrderDeleted,
    OrderFacts,
    OrderPlaced,
    OrderStatusChanged,
    announce,
)
from customer_orders.keyset import common_filters
from customer_orders.notifications.hints import Hint, hint_after_commit
from customer_orders.notifications.models import Notification, Status
from customer_orders.notifications.schemas import Told, summary
from customer_orders.notifications.templates import Templates
from customer_orders.origin import origin_of
from customer_orders.quiet import QuietHours


@dataclass(frozen=True)
class Outgoing:
    """How a deployment tells customers.

    :param sends: whether a notifier is configured.
    :param quiet_hours: when nothing is sent.
    :param hint: tells the dispatcher of ids that were just committed.
    """

    templates: Templates
    sends: bool
    quiet_hours: QuietHours | None
    hint: Hint


def queue_order_placed(session: Session, event: OrderPlaced, *, outgoing: Outgoing) -> None:
    """Queue the message for a new order. With nothing to say there is a notification all the same, that says so."""
    _queue(session, "order_placed", event.order, event.customer, outgoing)


def queue_order_status_changed(session: Session, event: OrderStatusChanged, *, outgoing: Outgoing) -> None:
    """Queue the message for an order that moved on; if it was cancelled, cancel what is still queued for it first.

    With a blank template nothing is added: the order goes on telling of its last message.
    """
    if event.after == "cancelled":
        _cancel(session, event.order.id, "order_cancelled")
    name = f"order_{event.after}"
    if outgoing.templates.speak_of(name, event.customer.language):
        _queue(session, name, event.order, event.customer, outgoing)


def _queue(session: Session, event: str, order: OrderFacts, customer: CustomerFacts, outgoing: Outgoing) -> None:
    """Write the message into the outbox; after the commit, hint the dispatcher at it.

    One that is not to be sent is written too, as ``suppressed`` or ``failed``, and says why; one to a customer who was
    anonymized has no words.
    """
    now = db.now(session)
    draft = outgoing.templates.draft(event, order, customer)
    origin = origin_of(session)
    queued = Notification(
        order_id=order.id,
        customer_id=customer.id,
        event=event,
        channel="sms",
        recipient=customer.phone_number,
        next_attempt_at=outgoing.quiet_hours.resume(now) if outgoing.quiet_hours else now,
        request_id=origin.request_id,
        traceparent=origin.traceparent,
        created_at=now,
        updated_at=now,
        **vars(draft),
    )
    if customer.phone_number is None:
        queued.status, queued.reason = Status.SUPPRESSED, "anonymized"
        queued.text, queued.encoding, queued.segments = "", None, None
    elif customer.sms_opt_out:
        queued.status, queued.reason = Status.SUPPRESSED, "opted_out"
    elif not outgoing.sends:
        queued.status, queued.reason = Status.SUPPRESSED, "no_notifier"
    session.add(queued)
    session.flush()
    announce(session, MessagesChanged([MessageChange(None, queued.status, queued.reason)]))
    if queued.status == Status.QUEUED:
        hint_after_commit(session, outgoing.hint, [queued.id])


def cancel_for_order(session: Session, event: OrderDeleted) -> None:
    """Cancel what is still queued for an order that goes; what was sent stays on record."""
    _cancel(session, event.order_id, "order_deleted")


def _cancel(session: Session, order_id: int, reason: str) -> None:
    """Cancel what is queued for an order; what is being sent, or may have been, is not tried again."""
    now = db.now(session)
    queued = Notification.status == Status.QUEUED
    going = [Status.QUEUED, Status.SENDING, Status.UNKNOWN]
    touched = session.execute(
        update(Notification)
        .where(Notification.order_id == order_id, Notification.status.in_(going))
        .values(
            status=case((queued, Status.CANCELLED), else_=Notification.status),
            reason=reason,
            next_attempt_at=None,
            updated_at=case((queued, now), else_=Notification.updated_at),
        )
        .returning(Notification.notifier, Notification.status)
        .execution_options(synchronize_session=False)
    )
    cancelled = [MessageChange(by, status, reason) for by, status in touched if status == Status.CANCELLED]
    announce(session, MessagesChanged(cancelled))


def summaries(session: Session, order_ids: Sequence[int]) -> dict[int, Told]:
    """What became of the last message about each order, in one query."""
    if not order_ids:
        return {}
    last = (
        select(func.max(Notification.id).label("id"), func.sum(Notification.version).label("version"))
        .where(Notification.order_id.in_(order_ids))
        .group_by(Notification.order_id)
        .subquery()
    )
    found = session.execute(select(Notification, last.c.version).join(last, last.c.id == Notification.id))
    return {one.order_id: Told(summary(one), int(version)) for one, version in found if one.order_id is not None}


def last_about(session: Session, order_id: int) -> Notification:
    """The last message about an order that has one."""
    last = select(Notification).where(Notification.order_id == order_id).order_by(Notification.id.desc()).limit(1)
    return session.scalars(last).one()


def ids_about(session: Session, order_id: int) -> Sequence[int]:
    """Ids of all messages about an order."""
    return session.scalars(select(Notification.id).where(Notification.order_id == order_id)).all()


def count_by_status(session: Session, period: Mapping[str, Any]) -> dict[str, int]:
    """How many messages of a period came to what. ``period``: bounds as in lists, ``created_at__gte`` and such."""
    counts = select(Notification.status, func.count()).where(*_created(period)).group_by(Notification.status)
    return dict(session.execute(counts).all())


def total_costs(session: Session, period: Mapping[str, Any]) -> dict[str, Decimal]:
    """What the messages of a period cost by currency, as far as providers said.

    Messages of one price are counted, not added up: exact, and few rows, on SQLite too, which has no decimals.
    """
    amount: Any = Notification.cost_amount
    currency: Any = Notification.cost_currency
    prices = select(currency, amount, func.count()).where(amount.is_not(None), *_created(period))
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for name, price, count in session.execute(prices.group_by(currency, amount)):
        totals[name] += price * count
    return dict(totals)


def _created(period: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    filters = common_filters(Notification)
    return [filters[name](value) for name, value in period.items()]


def orders_told(status: str) -> Select[Any]:
    """Ids of the orders of whose last message this became."""
    later = aliased(Notification)
    superseded = exists().where(later.order_id == Notification.order_id, later.id > Notification.id)
    return select(Notification.order_id).where(Notification.status == status, ~superseded)

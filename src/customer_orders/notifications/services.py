"""Writing the outbox in the transaction of what it tells of, and reading what became of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from customer_orders import db
from customer_orders.events import OrderDeleted, OrderPlaced
from customer_orders.notifications.hints import Hint, hint_after_commit
from customer_orders.notifications.models import Notification, Status
from customer_orders.notifications.schemas import Told, summary
from customer_orders.notifications.templates import Templates
from customer_orders.quiet import QuietHours

log = logging.getLogger(__name__)


def queue_order_placed(
    session: Session,
    event: OrderPlaced,
    *,
    templates: Templates,
    sends: bool,
    quiet_hours: QuietHours | None,
    hint: Hint,
) -> None:
    """Queue the message for a new order; after the commit, hint the dispatcher at it.

    :param sends: whether a notifier is configured. Without one, for a customer who opted out, or with nothing to
        say, the notification is ``suppressed`` and says why.
    """
    now = db.now(session)
    queued = Notification(
        order_id=event.order.id,
        customer_id=event.customer.id,
        event="order_placed",
        channel="sms",
        recipient=event.customer.phone_number,
        text="",
        language=event.customer.language,
        status=Status.QUEUED,
        next_attempt_at=quiet_hours.resume(now) if quiet_hours else now,
        created_at=now,
        updated_at=now,
    )
    try:
        queued.text = templates.render("order_placed", event.order, event.customer)
    except Exception as error:  # noqa: BLE001 - a template can raise anything, and must not lose the order
        log.error("the template order_placed failed for order %s: %s", event.order.id, error)
        queued.status, queued.reason = Status.FAILED, f"template_error: {type(error).__name__}"
    else:
        if not queued.text.strip():
            queued.status, queued.reason = Status.SUPPRESSED, "empty_text"
    if event.customer.sms_opt_out:
        queued.status, queued.reason = Status.SUPPRESSED, "opted_out"
    elif not sends:
        queued.status, queued.reason = Status.SUPPRESSED, "no_notifier"
    session.add(queued)
    session.flush()
    if queued.status == Status.QUEUED:
        hint_after_commit(session, hint, [queued.id])


def cancel_for_order(session: Session, event: OrderDeleted) -> None:
    """Cancel what is still queued for an order that goes; what was sent stays on record."""
    cancel(session, event.order_id, reason="order_deleted")


def cancel(session: Session, order_id: int, *, reason: str) -> None:
    """Cancel what is queued for an order; what is being sent, or may have been, is not tried again."""
    now = db.now(session)
    queued = Notification.status == Status.QUEUED
    going = [Status.QUEUED, Status.SENDING, Status.UNKNOWN]
    session.execute(
        update(Notification)
        .where(Notification.order_id == order_id, Notification.status.in_(going))
        .values(
            status=case((queued, Status.CANCELLED), else_=Notification.status),
            reason=reason,
            next_attempt_at=None,
            updated_at=case((queued, now), else_=Notification.updated_at),
        )
        .execution_options(synchronize_session=False)
    )


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


def orders_told(status: str) -> Select[Any]:
    """Ids of the orders of whose last message this became."""
    later = aliased(Notification)
    superseded = exists().where(later.order_id == Notification.order_id, later.id > Notification.id)
    return select(Notification.order_id).where(Notification.status == status, ~superseded)

"""Writing the outbox in the transaction of what it tells of, and reading what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from customer_orders import db
from customer_orders.events import OrderDeleted, OrderPlaced
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
    hint: Callable[[Sequence[int]], None],
) -> None:
    """Queue the message for a new order; after the commit, hint the dispatcher at it.

    :param sends: whether a notifier is configured. Without one, for a customer who opted out, or with nothing to
        say, the notification is ``suppressed`` and says why.
    """
    now = db.now(session)
    queued = Notification(
        order_id=event.order.id,
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
        notification_id = queued.id
        db.after_commit(session, lambda: _hint(hint, notification_id))


def _hint(hint: Callable[[Sequence[int]], None], notification_id: int) -> None:
    try:
        hint([notification_id])
    except Exception:
        # The order is committed; the dispatcher's own look for what is due finds the row.
        log.exception("the dispatcher could not be told of notification %s", notification_id)


def cancel_for_order(session: Session, event: OrderDeleted) -> None:
    """Cancel what is still queued for an order that goes; what was sent stays on record."""
    now = db.now(session)
    session.execute(
        update(Notification)
        .where(Notification.order_id == event.order_id, Notification.status == Status.QUEUED)
        .values(status=Status.CANCELLED, reason="order_deleted", next_attempt_at=None, updated_at=now)
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

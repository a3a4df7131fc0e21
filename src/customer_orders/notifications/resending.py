"""Sending again what did not arrive: one message, or all that a filter finds.

What is queued again keeps its attempts on record, is allowed as many again, and goes to the number that the customer
has by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, column, func, or_, select, table, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.customers.models import Customer
from customer_orders.errors import Conflict, Forbidden
from customer_orders.events import Audited, MessageChange, MessagesChanged, announce
from customer_orders.notifications.hints import Hint, hint_after_commit
from customer_orders.notifications.listing import criteria, read_notification
from customer_orders.notifications.models import Notification, Status
from customer_orders.origin import origin_of

# What did not arrive, or of which nobody knows.
RESENDABLE = (Status.FAILED, Status.UNKNOWN, Status.EXPIRED, Status.SUPPRESSED)
# Messages that one call queues again at most.
MOST = 1000

# Orders stand above notifications; this is what a foreign key knows of them, and the word for one that is off.
ORDERS = table("orders", column("id"), column("status"))
CANCELLED_ORDER = "cancelled"
# Reasons of messages of which there is no text that could be sent.
TEXTLESS = ("template_error", "empty_text", "too_long")

# Why a notification cannot be sent again, as the code of a problem; null: it can. The one place for these rules.
OBSTACLE = case(
    (Notification.status.in_([Status.QUEUED, Status.SENDING]), "still-trying"),
    (Notification.status.in_([Status.SENT, Status.DELIVERED]), "already-sent"),
    (
        or_(
            Notification.status == Status.CANCELLED,
            ORDERS.c.id.is_(None),
            and_(ORDERS.c.status == CANCELLED_ORDER, Notification.event != "order_cancelled"),
            Customer.id.is_(None),
            Customer.anonymized_at.is_not(None),
        ),
        "message-obsolete",
    ),
    (
        or_(
            func.trim(Notification.text, " \t\r\n") == "",
            *(Notification.reason.startswith(reason, autoescape=True) for reason in TEXTLESS),
        ),
        "nothing-to-send",
    ),
    (Customer.sms_opt_out, "opted-out"),
)

DETAILS = {
    "still-trying": "It is {status}: nothing has to be done for it to go out.",
    "already-sent": "It is {status}.",
    "message-obsolete": "What it tells of is no more: its order was cancelled or deleted, or its customer was, or was "
    "anonymized.",
    "nothing-to-send": "There is no text that could be sent ({reason}).",
    "opted-out": 'Its customer wants no SMS. To send it all the same, send {{"force": true}}.',
}


@dataclass(frozen=True)
class Resent:
    """What came of sending many again.

    :param ids: those that are queued again (or would be), by id.
    :param remaining: how many more there are, all of them after the last of these.
    :param skipped: how many of those that were asked for cannot be sent again, by the code of the problem.
    """

    ids: Sequence[int]
    remaining: int
    skipped: dict[str, int]


def resend(
    session: Session, notification_id: int, *, force: bool, may_force: bool, sends: bool, hint: Hint
) -> Notification:
    """Queue a notification again; after the commit, hint the dispatcher at it.

    :param force: whether to send it though the customer opted out; ``may_force``: whether the caller may do that.
    :param sends: whether a notifier is configured.

    Raises ``NotFound``, ``Forbidden``, or ``Conflict`` with the code of what stands in the way.
    """
    _require_notifier(sends)
    found = read_notification(session, notification_id)
    # In this order, as whoever cancels an order does. Nobody cancels it, and no customer opts out, before this ends.
    session.execute(select(ORDERS.c.id).where(ORDERS.c.id == found.order_id).with_for_update(read=True))
    session.execute(select(Customer.id).where(Customer.id == found.customer_id).with_for_update(read=True))
    session.refresh(found, with_for_update={"key_share": True})
    obstacle = session.scalar(_with_what_it_is_about(select(OBSTACLE)).where(Notification.id == notification_id))
    if obstacle == "opted-out" and not may_force:
        raise Forbidden("Its customer wants no SMS; only an admin may send it all the same.")
    if obstacle is not None and not (obstacle == "opted-out" and force):
        raise Conflict(DETAILS[obstacle].format(status=found.status, reason=found.reason), code=obstacle)
    _queue_again(session, [notification_id], hint)
    session.refresh(found)
    return found


def resend_all(
    session: Session,
    status: Sequence[str],
    filters: Mapping[str, Any],
    *,
    after: int = 0,
    limit: int = MOST,
    dry_run: bool,
    sends: bool,
    hint: Hint,
) -> Resent:
    """Queue again what has one of these statuses and meets the filters, the oldest first; or only tell what would be.

    What another changes at this moment is left out. :param after: begin after this id, where a call before ended.

    Raises ``Conflict`` if no notifier is configured.
    """
    _require_notifier(sends)
    asked = [Notification.status.in_(status), *criteria(filters), Notification.id > after]
    chosen = (
        select(Notification.id)
        .join(ORDERS, ORDERS.c.id == Notification.order_id)
        .join(Customer, Customer.id == Notification.customer_id)
        .where(*asked, OBSTACLE.is_(None))
        .order_by(Notification.id)
        .limit(limit)
    )
    if not dry_run:
        chosen = chosen.with_for_update(of=[Notification, ORDERS, Customer], key_share=True, skip_locked=True)
    ids = session.scalars(chosen).all()
    remaining, skipped = _left(session, asked, ids[-1] if ids else after)
    if ids and not dry_run:
        _queue_again(session, ids, hint)
    return Resent(ids, remaining, skipped)


def _require_notifier(sends: bool) -> None:
    if not sends:
        raise Conflict("No SMS is sent here: notifications.sms names no notifier.", code="no-notifier")


def _with_what_it_is_about(found: Any) -> Any:
    joined = found.select_from(Notification).outerjoin(ORDERS, ORDERS.c.id == Notification.order_id)
    return joined.outerjoin(Customer, Customer.id == Notification.customer_id)


def _left(session: Session, asked: Sequence[ColumnElement[bool]], last: int) -> tuple[int, dict[str, int]]:
    """How many can be sent again after the last that was chosen, and how many cannot be at all, by why."""
    each = _with_what_it_is_about(select(Notification.id, OBSTACLE.label("obstacle"))).where(*asked).subquery()
    later = func.count().filter(each.c.id > last)
    counts = session.execute(select(each.c.obstacle, func.count(), later).group_by(each.c.obstacle)).all()
    return (
        sum(beyond for obstacle, _, beyond in counts if obstacle is None),
        {obstacle: number for obstacle, number, _ in counts if obstacle is not None},
    )


def _queue_again(session: Session, ids: Sequence[int], hint: Hint) -> None:
    # asked for once the rows are locked: who opts out later has a later time
    now = db.now(session)
    origin = origin_of(session)
    number = select(Customer.phone_number).where(Customer.id == Notification.customer_id).scalar_subquery()
    session.execute(
        update(Notification)
        .where(Notification.id.in_(ids))
        .values(
            status=Status.QUEUED,
            reason=None,
            recipient=number,
            unburned=Notification.attempts,
            next_attempt_at=now,
            requeued_at=now,
            request_id=origin.request_id,
            traceparent=origin.traceparent,
            sent_at=None,
            delivered_at=None,
            reference=None,
            lease_owner=None,
            lease_expires_at=None,
            updated_at=now,
        ),
        execution_options={"synchronize_session": False},
    )
    announce(session, Audited("notification.resent", ids, at=now))
    announce(session, MessagesChanged([MessageChange(None, Status.QUEUED)] * len(ids)))
    hint_after_commit(session, hint, ids)

"""Messages after a backup was put back: nobody knows which of those it has yet to send went out since it was taken."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.notifications.sweeping import NEVER_AGAIN, RESTORED
from customer_orders.settings import Section


def doubt(session: Session, settings: Section) -> int:
    """Have nothing sent by itself that a backup says is to be sent; tells how many messages that is.

    They are ``unknown``, with the reason ``restored``: a late delivery report may still tell what became of one, and
    staff who know better send it again. Of what was ``unknown`` already none is sent once more either.
    """
    now = db.now(session)
    of = Notification
    begun = select(
        of.id,
        of.attempts,
        of.lease_owner,
        of.notifier,
        of.updated_at,
        literal(now, of.created_at.type),
        literal("abandoned"),
    ).where(of.status == Status.SENDING)
    columns = ["notification_id", "number", "lease_owner", "notifier", "started_at", "finished_at", "outcome"]
    session.execute(insert(NotificationAttempt).from_select(columns, begun))
    doubted: Any = session.execute(
        update(of)
        .where(of.status.in_([Status.QUEUED, Status.SENDING]))
        .values(
            status=Status.UNKNOWN,
            reason=RESTORED,
            # whose report may tell
            notifier=func.coalesce(of.notifier, settings.sms),
            next_attempt_at=None,
            lease_owner=None,
            lease_expires_at=None,
            sent_at=now,
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(of)
        .where(of.status == Status.UNKNOWN, or_(of.reason.is_(None), of.reason.not_in(NEVER_AGAIN)))
        .values(reason=RESTORED, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    return int(doubted.rowcount)

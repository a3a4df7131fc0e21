"""What time settles: messages that waited for too long, and what was kept for long enough."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.api import idempotency
from customer_orders.events import MessageChange, MessagesChanged, announce
from customer_orders.notifications import reports
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.settings import Section

log = logging.getLogger(__name__)

# Rows that are changed in one transaction.
SWEPT = 500
# Why it is unknown what became of a message that a backup says is to be sent.
RESTORED = "restored"
# Why a message that may have been sent is not sent again: it may end every process, nobody wants it any more, or it
# may have been sent since the backup.
NEVER_AGAIN = ("abandoned", "order_deleted", "order_cancelled", "anonymized", RESTORED)


def overdue(session: Session, settings: Section) -> bool:
    """Give up what could not be sent before its deadline, though nobody claims it; whether there may be more."""
    now = db.now(session)
    queued_at = func.coalesce(Notification.requeued_at, Notification.created_at)
    found = select(Notification.id).where(
        Notification.status == Status.QUEUED, queued_at <= now - timedelta(seconds=settings.deadline)
    )
    return _settle(session, found, status=Status.FAILED, reason="deadline", next_attempt_at=None, updated_at=now)


def unknown(session: Session, settings: Section) -> bool:
    """Send again, once, what no report told of in time, where the deployment wants it; whether there may be more."""
    if settings.retry_unknown == "never":
        return False
    now = db.now(session)
    earlier = (
        select(NotificationAttempt.id)
        .where(
            NotificationAttempt.notification_id == Notification.id,
            NotificationAttempt.number > Notification.unburned,
            NotificationAttempt.outcome.in_(["uncertain", "error"]),
        )
        .correlate(Notification)
        .offset(1)
    )
    found = select(Notification.id).where(
        Notification.status == Status.UNKNOWN,
        Notification.recipient.is_not(None),
        Notification.sent_at <= now - timedelta(seconds=settings.unknown_after),
        Notification.reason.is_(None) | Notification.reason.not_in(NEVER_AGAIN),
        Notification.attempts - Notification.unburned < settings.max_attempts,
        ~earlier.exists(),
    )
    return _settle(session, found, status=Status.QUEUED, next_attempt_at=now, updated_at=now)


def steps(settings: Section, reporting: Collection[str]) -> Sequence[Callable[[Session], bool]]:
    """All that there is to sweep, each step to be repeated in a transaction of its own while there may be more.

    :param reporting: the notifiers whose providers report what became of messages.
    """
    deadline = timedelta(seconds=settings.report_deadline)
    return (
        partial(overdue, settings=settings),
        partial(unknown, settings=settings),
        lambda session: reports.sweep(session, reporting=reporting, deadline=deadline) >= reports.SWEPT,
        lambda session: idempotency.sweep(session) >= idempotency.SWEPT,
    )


def _settle(session: Session, found: Any, **values: Any) -> bool:
    ids = session.scalars(found.limit(SWEPT).with_for_update(skip_locked=True)).all()
    if ids:
        changed = session.execute(
            update(Notification)
            .where(Notification.id.in_(ids))
            .values(**values)
            .returning(Notification.notifier)
            .execution_options(synchronize_session=False)
        )
        changes = [MessageChange(by, values["status"], values.get("reason")) for by in changed.scalars()]
        announce(session, MessagesChanged(changes))
        log.warning("time is up, so %s: notifications %s", values["status"], ", ".join(map(str, ids)))
    return len(ids) == SWEPT

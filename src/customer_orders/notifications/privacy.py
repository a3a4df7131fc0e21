"""Messages to a customer who is to be forgotten, or told all.

Whoever is sending one at this moment holds its number and its text in memory, and nothing but how it went comes back:
a status, a reason in which numbers are masked, and the provider's reference. That reference stays with the message, so
that a report which is still to come finds it, and loses its number too (see ``reports.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, false, or_, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.events import CustomerAnonymized, CustomerExported, MessageChange, MessagesChanged, announce
from customer_orders.notifications import reports, schemas
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt, Status

# Why a message was not sent, and the reason of those whose own reason may have told of a person.
REASON = "anonymized"
# Messages that are read at a time.
READ = 500


def wipe(session: Session, event: CustomerAnonymized) -> None:
    """Cancel what is queued for a customer, and wipe number and words of all that there is."""
    mine = Notification.customer_id == event.customer_id
    reports.wait_for_answers(session)
    # they may have had other numbers before
    numbers = {*session.scalars(select(Notification.recipient).where(mine).distinct()), event.phone_number} - {None, ""}
    ids = select(Notification.id).where(mine)
    queued = Notification.status == Status.QUEUED
    arrived = Notification.status.in_([Status.SENT, Status.DELIVERED])
    now = db.now(session)
    wiped = session.execute(
        update(Notification)
        .where(mine)
        .values(
            recipient=None,
            text="",
            status=case((queued, Status.CANCELLED), else_=Notification.status),
            # of what is being sent, or may have been: why it is not tried again
            reason=case((arrived, None), else_=REASON),
            reference=_without(Notification.reference, numbers),
            next_attempt_at=None,
            updated_at=case((queued, now), else_=Notification.updated_at),
        )
        .returning(Notification.notifier, Notification.status, Notification.updated_at)
        .execution_options(synchronize_session=False)
    )
    # what was cancelled before has another time
    cancelled = [one.notifier for one in wiped if (one.status, one.updated_at) == (Status.CANCELLED, now)]
    announce(session, MessagesChanged([MessageChange(by, Status.CANCELLED, REASON) for by in cancelled]))
    # only now: whoever records an attempt holds its message until it is written
    attempt = NotificationAttempt
    _change(
        session,
        attempt,
        attempt.notification_id.in_(ids),
        reason=None,
        reference=_without(attempt.reference, numbers),
    )
    report = DeliveryReport
    theirs = or_(report.notification_id.in_(ids), and_(report.recipient.in_(numbers), ~reports.wanted()))
    session.execute(
        delete(report).where(theirs, _holds(report.reference, numbers)).execution_options(synchronize_session=False)
    )
    _change(session, report, theirs, recipient=None, reason=None)


def tell(session: Session, event: CustomerExported) -> None:
    """Add the messages to what is held on a customer, the oldest first, with attempts and reports."""
    told = event.collected["notifications"] = []
    theirs = select(Notification).where(Notification.customer_id == event.customer_id).order_by(Notification.id)
    for found in session.scalars(theirs.execution_options(yield_per=READ)).partitions():
        ids = [one.id for one in found]
        attempts = _by_message(session, NotificationAttempt, ids)
        heard = _by_message(session, DeliveryReport, ids)
        told += [
            {
                **schemas.notification(one),
                "attempt_log": [schemas.attempt(made) for made in attempts.get(one.id, ())],
                "delivery_reports": [schemas.report(said) for said in heard.get(one.id, ())],
            }
            for one in found
        ]
    unmatched = select(DeliveryReport).where(
        DeliveryReport.notification_id.is_(None), DeliveryReport.recipient == event.phone_number
    )
    event.collected["delivery_reports"] = [schemas.report(said) for said in session.scalars(unmatched)]


def _by_message(session: Session, model: Any, ids: Collection[int]) -> dict[int, list[Any]]:
    """What belongs to these messages, by their ids."""
    found: dict[int, list[Any]] = {}
    for one in session.scalars(select(model).where(model.notification_id.in_(ids)).order_by(model.id)):
        found.setdefault(one.notification_id, []).append(one)
    return found


def _change(session: Session, model: Any, which: Any, **values: Any) -> None:
    session.execute(update(model).where(which).values(**values).execution_options(synchronize_session=False))


def _holds(column: Any, numbers: Iterable[str | None]) -> ColumnElement[bool]:
    """Whether one of the numbers is written there, with its plus or without."""
    return or_(false(), *(column.contains(str(number).removeprefix("+")) for number in numbers))


def _without(column: Any, numbers: Iterable[str | None]) -> Any:
    return case((_holds(column, numbers), None), else_=column)

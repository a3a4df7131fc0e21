"""What providers tell of messages afterwards: kept, bound to the message that it is of, and never a step back.

Reports are not signed, may come twice, in any order, and before the answer to their own message is stored. So each is
kept as it comes. It is bound by its reference, at once or when an answer with that reference is stored. One whose
reference no answer will bring (the reply was lost) is bound by its number, if only one message can be meant.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, text, union, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.customers.services import opt_out
from customer_orders.events import MessageChange, MessagesChanged, announce
from customer_orders.interfaces import OptOut, Report
from customer_orders.masking import masked
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt, Status

log = logging.getLogger(__name__)

# Of two states the one further on counts.
PROGRESS = (Status.UNKNOWN, Status.SENT, Status.EXPIRED, Status.FAILED, Status.DELIVERED)

# How long a report is kept that matches no message.
KEPT = timedelta(hours=72)
# What was sent as long before its deadline as this is let be: nobody waited for reports then.
MISSED = timedelta(days=31)
# Rows that one sweep changes at most of each kind, so that it keeps no writer waiting.
SWEPT = 1000

# Whoever stores answers holds it with others; whoever has a report that no answer belongs to waits for all of them.
# So one of the two sees what the other wrote. Who wants messages too has it first, so that nobody waits in a circle.
# (On SQLite one writes at a time.)
ANSWERS = int.from_bytes(b"answers")

# Whether any report is kept whose message is not known: mostly none is, and there is no need to look for which.
ANY_KEPT = exists().where(DeliveryReport.notification_id.is_(None))


def raised(current: str, told: str) -> str:
    """What a message is after a report, whatever came before: the one rule, by which the order of reports is nothing.

    What is queued or being sent (again), suppressed or cancelled is beyond reports; but if the customer was told all
    the same, it is ``delivered``.
    """
    if told == Status.DELIVERED:
        return told
    return max(current, told, key=PROGRESS.index) if current in PROGRESS else current


def receive(session: Session, notifier: str, told: Sequence[Report | OptOut]) -> None:
    """Keep what a notifier's provider tells, and change the messages and customers that it is about."""
    for number in sorted({one.to for one in told if isinstance(one, OptOut)}):
        log.info("%s tells of a STOP: %s customers get no more messages", notifier, opt_out(session, number))
    now = db.now(session)
    rows = {
        (one.reference, one.status): {
            "notifier": notifier,
            "reference": one.reference,
            "status": one.status,
            "reason": None if one.reason is None else masked(one.reason)[:255],
            "recipient": one.to,
            "received_at": now,
        }
        # of two that say the same, the first is kept
        for one in reversed(told)
        if isinstance(one, Report)
    }
    if not rows:
        return
    # in one order, so that two who tell the same do not wait for each other
    new = db.insert_unless_there(session, DeliveryReport, *(rows[key] for key in sorted(rows)))
    if len(new) > 1:
        # some may have a message by now, and others none
        wait_for_answers(session)
    rest = _by_reference(session, new, now)
    if rest:
        wait_for_answers(session)
        rest = _by_number(session, _by_reference(session, rest, now), now)
        _forget_unwanted(session, rest)
    for one in rest:
        log.info("a report by %s matches no message so far: %s of %s", notifier, one.status, one.reference)


def bind(session: Session, notification_ids: Collection[int]) -> None:
    """Bind what was kept for messages whose answers this transaction stores; it shares ``ANSWERS``."""
    attempt, found = NotificationAttempt, Notification
    waiting = [
        select(DeliveryReport.id)
        .join(table, and_(table.notifier == DeliveryReport.notifier, mine == theirs))
        .where(key.in_(notification_ids), DeliveryReport.notification_id.is_(None))
        for table, key, mine, theirs in (
            (found, found.id, found.reference, DeliveryReport.reference),
            (attempt, attempt.notification_id, attempt.reference, DeliveryReport.reference),
            (found, found.id, found.recipient, DeliveryReport.recipient),
        )
    ]
    kept = _kept(session, DeliveryReport.id.in_(union(*waiting)))
    if kept:
        now = db.now(session)
        _by_number(session, _by_reference(session, kept, now), now)


def sweep(session: Session, *, reporting: Collection[str], deadline: timedelta) -> int:
    """Do some of what time brings: for a caller to repeat while as many as ``SWEPT`` rows were changed.

    A message that one of the ``reporting`` notifiers sent is ``expired`` once its report is overdue. A report that may
    be bound to a message by now is; one that still matches none is deleted in the end.
    """
    now = db.now(session)
    overdue = _some(
        session,
        Notification,
        Notification.status == Status.SENT,
        Notification.sent_at.between(now - deadline - MISSED, now - deadline),
        Notification.notifier.in_(reporting),
    )
    if overdue:
        changed = session.execute(
            update(Notification)
            .where(Notification.id.in_(overdue))
            .values(status=Status.EXPIRED, reason="no_report", updated_at=now)
            .returning(Notification.notifier, Notification.status, Notification.reason)
            .execution_options(synchronize_session=False)
        )
        announce(session, MessagesChanged([MessageChange(*row) for row in changed]))
    unknown = and_(Notification.notifier == DeliveryReport.notifier, Notification.recipient == DeliveryReport.recipient)
    waiting = select(DeliveryReport.id).join(Notification, unknown).where(Notification.status == Status.UNKNOWN)
    kept = _kept(session, DeliveryReport.notification_id.is_(None), DeliveryReport.id.in_(waiting))
    bound = len(kept) - len(_by_number(session, kept, now))
    old = _some(
        session, DeliveryReport, DeliveryReport.notification_id.is_(None), DeliveryReport.received_at <= now - KEPT
    )
    if old:
        gone = delete(DeliveryReport).where(DeliveryReport.id.in_(old))
        session.execute(gone.execution_options(synchronize_session=False))
    return len(overdue) + bound + len(old)


def _some(session: Session, model: Any, *which: Any) -> Sequence[int]:
    """Ids of rows that nobody else is at, for us.

    By themselves: PostgreSQL may repeat a subquery that locks, and then its limit is none.
    """
    return session.scalars(select(model.id).where(*which).limit(SWEPT).with_for_update(skip_locked=True)).all()


def wait_for_answers(session: Session) -> None:
    """Wait for all who store answers or have reports that match none, and keep others out until this ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ANSWERS})


def wanted() -> ColumnElement[bool]:
    """Whether a report's number may still tell which message it is of: there is a message to that number."""
    return exists().where(Notification.recipient == DeliveryReport.recipient)


def _forget_unwanted(session: Session, kept: Sequence[DeliveryReport]) -> None:
    """Do not keep numbers that lead to nobody: to a customer who was anonymized, for one."""
    session.flush()
    ids = [one.id for one in kept if one.recipient is not None]
    if ids:
        nobodys = update(DeliveryReport).where(DeliveryReport.id.in_(ids), ~wanted())
        session.execute(nobodys.values(recipient=None).execution_options(synchronize_session=False))


def _kept(session: Session, *which: Any) -> Sequence[DeliveryReport]:
    """Reports that nobody else is at, some at a time."""
    return session.scalars(
        select(DeliveryReport).where(*which).order_by(DeliveryReport.id).limit(SWEPT).with_for_update(skip_locked=True)
    ).all()


def _by_reference(session: Session, reports: Sequence[DeliveryReport], now: datetime) -> list[DeliveryReport]:
    """Bind reports to the messages that have had their references; tells which are left."""
    references = [one.reference for one in reports]
    attempt, found = NotificationAttempt, Notification
    named: Any = union(
        select(attempt.notifier, attempt.reference, attempt.notification_id).where(attempt.reference.in_(references)),
        select(found.notifier, found.reference, found.id).where(found.reference.in_(references)),
    )
    # should a provider use a reference again, the newest is meant
    owners = {(notifier, reference): owner for notifier, reference, owner in sorted(session.execute(named), key=_id)}
    mine = [one for one in reports if (one.notifier, one.reference) in owners]
    messages = _locked(session, found.id.in_({owners[one.notifier, one.reference] for one in mine})) if mine else {}
    last = _last_references(session, messages)
    for one in mine:
        message = messages.get(owners[one.notifier, one.reference])
        if message is not None:
            _tell(session, message, one, now, speaks=last.get(message.id, message.reference) == one.reference)
    return [one for one in reports if one.notification_id is None]


def _id(row: Any) -> int:
    return int(row[2])


def _locked(session: Session, *which: Any) -> dict[int, Notification]:
    """Messages as they are now, which nobody else changes until this transaction ends."""
    found = select(Notification).where(*which).order_by(Notification.id).with_for_update()
    return {one.id: one for one in session.scalars(found.execution_options(populate_existing=True))}


def _last_references(session: Session, ids: Collection[int]) -> dict[int, str | None]:
    """The reference of the last attempt at each of these messages."""
    if not ids:
        return {}
    attempt = NotificationAttempt
    told = select(attempt.notification_id, attempt.number, attempt.reference).where(attempt.notification_id.in_(ids))
    last: dict[int, tuple[int, str]] = {}
    for message, number, reference in session.execute(told):
        last[message] = max(last.get(message, (0, "")), (number, reference or ""))
    return {message: reference or None for message, (_, reference) in last.items()}


def _tell(session: Session, message: Notification, report: DeliveryReport, now: datetime, *, speaks: bool) -> None:
    """Bind a report, and change the message by it.

    :param speaks: whether it is of the last attempt. Of one before it only ``delivered`` counts: what else became of
        that does not say what becomes of the message.
    """
    report.notification_id = message.id
    if message.recipient is None:
        # who it was for is not to be known any more
        report.recipient = report.reason = None
    if not speaks and report.status != Status.DELIVERED:
        return
    status = raised(message.status, report.status)
    if status == message.status:
        return
    log.info(
        "notification %s by %s: reported %s, was %s",
        *(message.id, report.notifier, status, message.status),
        extra={"notification": message.id},
    )
    message.status, message.reason = status, report.reason
    message.sent_at = message.sent_at or report.received_at
    message.delivered_at = report.received_at if status == Status.DELIVERED else None
    # nobody who still means to send it, or is at it, has it any more
    message.next_attempt_at = message.lease_owner = message.lease_expires_at = None
    message.updated_at = now
    delivered = status == Status.DELIVERED
    took = (report.received_at - message.created_at).total_seconds()
    arrived = max(0.0, took) if delivered and message.event == "order_placed" else None
    reason = None if delivered or status == Status.SENT else "reported"
    change = MessageChange(
        report.notifier, status, reason, arrived=arrived, reported=message.id, traceparent=message.traceparent
    )
    announce(session, MessagesChanged([change]))


def _by_number(session: Session, reports: Sequence[DeliveryReport], now: datetime) -> list[DeliveryReport]:
    """Bind reports to ``unknown`` messages to their numbers; tells which are left.

    Only where just one such message can be meant: there is no other ``unknown`` one by that notifier to that number,
    and none to that number is being sent, whose answer might have the reference.
    """
    for notifier, number in sorted({(one.notifier, one.recipient) for one in reports if one.recipient}):
        of_notifier = and_(Notification.status == Status.UNKNOWN, Notification.notifier == notifier)
        meant = select(Notification.id, Notification.status).where(
            Notification.recipient == number, or_(of_notifier, Notification.status == Status.SENDING)
        )
        ids = [None if status == Status.SENDING else found for found, status in session.execute(meant)]
        if len(ids) == 1 and ids[0] is not None:
            same = [one for one in reports if (one.notifier, one.recipient) == (notifier, number)]
            _adopt(session, ids[0], same, now)
    return [one for one in reports if one.notification_id is None]


def _adopt(session: Session, message_id: int, reports: Sequence[DeliveryReport], now: datetime) -> None:
    """Give an ``unknown`` message the reference that it lacks, and bind what is kept for that."""
    message = _locked(session, Notification.id == message_id, Notification.status == Status.UNKNOWN).get(message_id)
    # what was told before the message was written is of another
    possible = [one for one in reports if message is not None and one.received_at >= message.created_at]
    if message is None or not possible:
        return
    best = max(possible, key=lambda one: PROGRESS.index(Status(one.status)))
    attempts = select(NotificationAttempt).where(NotificationAttempt.notification_id == message_id)
    last = session.scalars(
        attempts.order_by(NotificationAttempt.number.desc(), NotificationAttempt.id.desc()).limit(1)
    ).first()
    if last is not None:
        if last.reference is not None:
            return
        last.reference = best.reference
    message.reference = best.reference
    same = and_(DeliveryReport.notifier == best.notifier, DeliveryReport.reference == best.reference)
    _by_reference(session, _kept(session, same, DeliveryReport.notification_id.is_(None)), now)

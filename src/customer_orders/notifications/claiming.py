"""Claiming: who may send which message, by leases, and which are not to be sent any more."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Row, Table, bindparam, case, insert, select, tuple_, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.customers.models import Customer
from customer_orders.events import MessageChange, MessagesChanged, announce
from customer_orders.interfaces import Message
from customer_orders.masking import masked
from customer_orders.notifications import channels
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.settings import Section

log = logging.getLogger(__name__)

NOTIFICATIONS = cast(Table, Notification.__table__)


@dataclass(eq=False)
class Claim:
    """One attempt: whoever holds it may send until the lease ends, and record the result while the row names it.

    :param trial: whether others wait for what becomes of it: the attempt before was abandoned, and perhaps this very
        message ends every process; or the channel was down, and it finds out whether it works again.
    :param request_id: the request that queued the message, and ``traceparent`` that one's place in a trace.
    :param began: when it was claimed, and ``good_until``, when its lease ends: by this process's monotonic clock.
    """

    notification_id: int
    owner: str
    number: int
    message: Message
    claimed_at: datetime
    trial: bool
    lease: int
    began: float
    request_id: str | None
    traceparent: str | None
    good_until: float = field(init=False)
    _times: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self.good_until = self.began + self.lease
        self._times = (self.began, self.began)

    def fields(self) -> dict[str, Any]:
        """What log lines say of it."""
        # of an earlier version it may be a number
        trace_id = self.traceparent.split("-")[1] if self.traceparent else None
        told = {"notification": self.notification_id, "attempt": self.number, "trace_id": trace_id}
        return told if self.request_id is None else {**told, "request_id": masked(self.request_id)}

    @property
    def expired(self) -> bool:
        """Whether too little of the lease is left to begin: a send may take a third of it."""
        return time.monotonic() >= self.good_until - self.lease / 3

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Take the time of what is done in the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._times = (began, time.monotonic())

    @property
    def started_at(self) -> datetime:
        """When it began to send, by the database's clock."""
        return self._at(self._times[0])

    @property
    def finished_at(self) -> datetime:
        """When it had sent, by the database's clock."""
        return self._at(self._times[1])

    def _at(self, moment: float) -> datetime:
        return self.claimed_at + timedelta(seconds=moment - self.began)


def due(session: Session, settings: Section, limit: int) -> list[int]:
    """Ids of notifications to deliver now, oldest first; none while the channel pauses."""
    now = db.now(session)
    limit = _admitted(channels.paused(session, settings.sms), now, limit)
    found = list(session.execute(EXPIRED, {"now": now, "limit": limit})) if limit else []
    if len(found) < limit:
        found += session.execute(QUEUED, {"now": now, "limit": limit - len(found)})
    return [row.id for row in found]


def claim(
    session: Session, settings: Section, limit: int, *, suspects: int | None = None, only: int | None = None
) -> tuple[list[Claim], bool]:
    """Take up to ``limit`` messages that are due, each for one lease; and whether any was due.

    Each counts as an attempt from here on. What is due and not to be sent any more ends instead.

    :param suspects: how many of them may be such that their last attempt was abandoned; None: any number.
    :param only: the one to take, if it is due.
    """
    # the lease begins before the database's clock is read, so that nobody believes in it for too long
    began = time.monotonic()
    now, lease = db.now(session), timedelta(seconds=settings.lease)
    paused = channels.paused(session, settings.sms)
    limit = _admitted(paused, now, limit)
    if not limit:
        return [], False
    rows = _abandoned(session, now, limit if suspects is None else min(limit, suspects), only)
    if len(rows) < limit:
        rows += _lock(session, QUEUED, now, limit - len(rows), only)
    going = [row for row in rows if not _ended(session, settings, now, row)]
    going = _put_off(session, settings, now, going)
    owner = secrets.token_hex(16)
    probes = paused is not None
    if not going or (paused is not None and not channels.probe(session, paused, owner, now + lease)):
        return [], bool(rows)
    taken = {"ids": [row.id for row in going], "owner": owner, "until": now + lease, "by": settings.sms, "at": now}
    session.connection().execute(TAKE, taken)
    return [_claim_of(row, owner, now, settings.lease, began, probes) for row in going], True


def renew(session: Session, settings: Section, claims: Sequence[Claim]) -> None:
    """Begin the leases of these anew, of those that are still theirs."""
    began = time.monotonic()
    expires = db.now(session) + timedelta(seconds=settings.lease)
    kept = session.execute(
        update(Notification)
        .where(_held(claims))
        .values(lease_expires_at=expires)
        .returning(Notification.id, Notification.attempts)
        .execution_options(synchronize_session=False)
    )
    held = {(row.id, row.attempts) for row in kept}
    for one in claims:
        if (one.notification_id, one.number) in held:
            one.good_until = began + settings.lease


def release(session: Session, claims: Sequence[Claim]) -> None:
    """Give back what was claimed and not begun: it is due again, and no attempt was made."""
    released = session.execute(
        update(Notification)
        .where(_held(claims))
        .values(
            status=case((Notification.reason.is_(None), Status.QUEUED), else_=Status.CANCELLED),
            attempts=Notification.attempts - 1,
            lease_owner=None,
            lease_expires_at=None,
            updated_at=db.now(session),
        )
        .returning(Notification.notifier, Notification.status, Notification.reason)
        .execution_options(synchronize_session=False)
    )
    cancelled = [MessageChange(*row) for row in released if row.status == Status.CANCELLED]
    announce(session, MessagesChanged(cancelled))


def deadline(settings: Section, row: Any) -> datetime:
    """From when on a message is not worth sending any more."""
    queued_at: datetime = row.requeued_at or row.created_at
    return queued_at + timedelta(seconds=settings.deadline)


def _admitted(paused: Row[Any] | None, now: datetime, limit: int) -> int:
    """How many may be sent now: none while the channel pauses, then one to find out whether it works again."""
    if paused is None:
        return limit
    return 0 if paused.paused_until > now else min(limit, 1)


def _abandoned(session: Session, now: datetime, limit: int, only: int | None) -> list[Row[Any]]:
    """Those whose lease expired, each with a row for the attempt that nobody finished."""
    rows = _lock(session, EXPIRED, now, limit, only) if limit else []
    if rows:
        told = [
            {
                "notification_id": row.id,
                "number": row.attempts,
                "lease_owner": row.lease_owner,
                "notifier": row.notifier,
                "started_at": row.updated_at,
                "finished_at": now,
                "outcome": "abandoned",
            }
            for row in rows
        ]
        session.execute(insert(NotificationAttempt), told)
        log.warning("abandoned by their process: notifications %s", ", ".join(str(row.id) for row in rows))
    return rows


def _ended(session: Session, settings: Section, now: datetime, row: Row[Any]) -> bool:
    """Whether a message is not to be sent any more; its row says why by then."""
    end = _end(settings, now, row)
    if end is None:
        return False
    status, reason = end
    _update(
        session,
        Notification.id == row.id,
        status=status,
        reason=reason,
        next_attempt_at=None,
        lease_owner=None,
        lease_expires_at=None,
        updated_at=now,
        **({"sent_at": now} if status == Status.UNKNOWN else {}),
    )
    announce(session, MessagesChanged([MessageChange(row.notifier, status, reason)]))
    log.warning("notification %s: no further attempt, so %s (%s)", row.id, status, reason)
    return True


def _end(settings: Section, now: datetime, row: Row[Any]) -> tuple[Status, str] | None:
    if row.status == Status.SENDING and row.reason is not None:
        # the order went, or was cancelled, or the customer anonymized, while an attempt ran that nobody finished
        return Status.CANCELLED, row.reason
    # who queued it again after the opt-out meant it: that takes force
    meant = row.requeued_at is not None and (row.opted_out_at is None or row.requeued_at > row.opted_out_at)
    if row.opted_out and not meant:
        return Status.SUPPRESSED, "opted_out"
    if row.status == Status.SENDING and row.attempts - row.unburned >= settings.max_attempts:
        # the last one too: whatever ends our processes, it shall not go on for ever
        return Status.UNKNOWN, "abandoned"
    if now >= deadline(settings, row):
        return (Status.UNKNOWN, "abandoned") if row.status == Status.SENDING else (Status.FAILED, "deadline")
    return None


def _put_off(session: Session, settings: Section, now: datetime, rows: list[Row[Any]]) -> list[Row[Any]]:
    """Those of these that may be sent at this time of day; the others wait for theirs."""
    resumes = now if settings.quiet_hours is None else settings.quiet_hours.resume(now)
    if rows and resumes > now:
        _update(
            session,
            Notification.id.in_([row.id for row in rows]),
            status=Status.QUEUED,
            next_attempt_at=resumes,
            lease_owner=None,
            lease_expires_at=None,
            updated_at=now,
        )
        log.info("%s messages wait for the end of the quiet hours, %s", len(rows), resumes)
        return []
    return rows


def _claim_of(row: Row[Any], owner: str, now: datetime, lease: int, began: float, probes: bool) -> Claim:
    message = Message(
        key=f"notification-{row.id}",
        channel=row.channel,
        to=row.recipient,
        text=row.text,
        language=row.language,
    )
    trial = probes or row.status == Status.SENDING
    whence = (row.request_id, row.traceparent)
    return Claim(row.id, owner, row.attempts + 1, message, now, trial, lease, began, *whence)


def _update(session: Session, which: Any, **values: Any) -> None:
    session.execute(update(Notification).where(which).values(**values).execution_options(synchronize_session=False))


def _of(status: Status, since: Any) -> Any:
    """Those of a status whose time came, oldest first."""
    return (
        select(
            *(
                NOTIFICATIONS.c[name]
                for name in (
                    *("id", "lease_owner", "attempts", "status", "unburned", "reason", "notifier"),
                    *("requeued_at", "created_at", "updated_at", "channel", "recipient", "text", "language"),
                    *("request_id", "traceparent"),
                )
            ),
            Customer.sms_opt_out.label("opted_out"),
            Customer.sms_opt_out_at.label("opted_out_at"),
        )
        .outerjoin(Customer, Customer.id == Notification.customer_id)
        .where(Notification.status == status, since <= bindparam("now"))
        .order_by(since, Notification.id)
        .limit(bindparam("limit"))
    )


# to build them costs more than to execute them
QUEUED = _of(Status.QUEUED, Notification.next_attempt_at)
EXPIRED = _of(Status.SENDING, Notification.lease_expires_at)


TAKE = (
    update(NOTIFICATIONS)
    .where(NOTIFICATIONS.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        status=Status.SENDING,
        # from here on: why it is not tried again
        reason=None,
        attempts=NOTIFICATIONS.c.attempts + 1,
        lease_owner=bindparam("owner"),
        lease_expires_at=bindparam("until"),
        notifier=bindparam("by"),
        updated_at=bindparam("at"),
    )
)


def _lock(session: Session, found: Any, now: datetime, limit: int, only: int | None) -> list[Row[Any]]:
    """Those that nobody else is at, for us."""
    if only is not None:
        found = found.where(Notification.id == only)
    locked = found.with_for_update(of=Notification, skip_locked=True)
    return list(session.connection().execute(locked, {"now": now, "limit": limit}))


def _held(claims: Sequence[Claim]) -> Any:
    """The rows that still name these attempts."""
    named = [(claim.notification_id, claim.owner, claim.number) for claim in claims]
    return (Notification.status == Status.SENDING) & tuple_(
        Notification.id, Notification.lease_owner, Notification.attempts
    ).in_(named)

"""Delivering one notification: claim by lease, send outside any transaction, record what came of it.

The guarantees are in the row, so any number of threads, processes and machines may call :meth:`Outbox.deliver`.
If we die before the claim is committed, nothing happened; after it, the lease expires and the message is tried
again (a provider without idempotency keys may then send twice: at least once, never lost).
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import and_, or_, select, update
from zope.interface import implementer

from customer_orders import db
from customer_orders.api import idempotency
from customer_orders.db import Database
from customer_orders.interfaces import (
    ChannelDown,
    IOutbox,
    Message,
    Receipt,
    Rejected,
    Unavailable,
    Uncertain,
)
from customer_orders.notifications import reports
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.settings import Section

log = logging.getLogger(__name__)

jitter = random.SystemRandom()

# Seconds between tries to record what a provider said, while the database is away or busy. Their sum may outlast
# the lease: what is known is worth writing down for as long as the row still names the attempt.
RECORD_WAITS = (0.1, 0.5, 1, 2, 5, 10, 20, 30)
pause = time.sleep


@dataclass(frozen=True)
class Claim:
    """One attempt: whoever holds it may send, and record the result while the row still names it."""

    notification_id: int
    owner: str
    number: int
    message: Message


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to. ``wait``: seconds until the next attempt, where there is one."""

    name: str
    status: Status
    reason: str | None = None
    wait: float | None = None
    burns: bool = True
    columns: dict[str, Any] = field(default_factory=dict)


def backoff(attempt: int, base: int, cap: int) -> float:
    """Seconds to wait after the given attempt (1 for the first): exponential, with full jitter.

    Between 0 and ``min(cap, base * 2 ** (attempt - 1))``, so that those who failed together do not return together.
    """
    return jitter.uniform(0, min(cap, base * 2 ** min(attempt - 1, 32)))


@implementer(IOutbox)
class Outbox:
    """The notifications of one application, and the notifier that sends them."""

    def __init__(self, database: Database, settings: Section, notifier: Any, reporting: Collection[str] = ()) -> None:
        self.database, self.settings, self.notifier, self.reporting = database, settings, notifier, reporting

    def due(self, limit: int) -> Sequence[int]:
        """Ids of notifications to deliver now, oldest first; none while no notifier is configured."""
        if self.notifier is None:
            return []
        with self.database.transaction(writes=False) as session:
            return session.scalars(
                select(Notification.id)
                .where(_is_due(db.now(session)))
                .order_by(Notification.next_attempt_at, Notification.id)
                .limit(limit)
            ).all()

    def deliver(self, notification_id: int) -> None:
        """Claim, send and record one. Does nothing if it is not due, or another got there first."""
        claim = self._claim(notification_id)
        if claim is not None:
            self._record(claim, self._send(claim))

    def sweep(self) -> None:
        """Delete idempotency keys that were kept long enough; see to what waited too long for a report."""
        deadline = timedelta(seconds=self.settings.report_deadline)
        for step, most in (
            (idempotency.sweep, idempotency.SWEPT),
            (partial(reports.sweep, reporting=self.reporting, deadline=deadline), reports.SWEPT),
        ):
            done = most
            while done >= most:
                with self.database.transaction() as session:
                    done = step(session)

    def _record(self, claim: Claim, outcome: Outcome) -> None:
        """Record, and try again while the database does not let us: a forgotten receipt is a message sent twice."""
        told = f"{outcome.name}, reference {outcome.columns.get('reference')}"
        for wait in (*RECORD_WAITS, None):
            try:
                self._write(claim, outcome)
                return
            except Exception as error:
                if wait is None or not db.is_unreachable(error):
                    log.error("notification %s (%s) could not be recorded", claim.notification_id, told)
                    raise
                log.warning("notification %s (%s) is not recorded yet: %s", claim.notification_id, told, error)
                pause(wait)

    def _claim(self, notification_id: int) -> Claim | None:
        owner = secrets.token_hex(16)
        with self.database.transaction() as session:
            now = db.now(session)
            claimed = session.execute(
                update(Notification)
                .where(Notification.id == notification_id, _is_due(now))
                .values(
                    status=Status.SENDING,
                    attempts=Notification.attempts + 1,
                    lease_owner=owner,
                    lease_expires_at=now + timedelta(seconds=self.settings.lease),
                    notifier=self.settings.sms,
                    updated_at=now,
                )
                .returning(Notification)
            ).scalar_one_or_none()
            if claimed is None:
                return None
            session.execute(
                update(NotificationAttempt)
                .where(
                    NotificationAttempt.notification_id == notification_id,
                    NotificationAttempt.outcome.is_(None),
                )
                .values(outcome="abandoned", finished_at=now)
            )
            if claimed.order_id is None:
                # The order was deleted while an attempt ran that nobody finished.
                _give_up(claimed, Status.CANCELLED, "order_deleted")
                return None
            if claimed.attempts > self.settings.max_attempts:
                # The last attempt was abandoned too: whatever ends our processes, it shall not go on for ever.
                _give_up(claimed, Status.UNKNOWN, "abandoned")
                return None
            session.add(
                NotificationAttempt(
                    notification_id=notification_id,
                    number=claimed.attempts,
                    lease_owner=owner,
                    notifier=self.settings.sms,
                    started_at=now,
                )
            )
            message = Message(
                key=f"notification-{claimed.id}",
                channel=claimed.channel,
                to=claimed.recipient,
                text=claimed.text,
                language=claimed.language,
            )
            return Claim(notification_id, owner, claimed.attempts, message)

    def _send(self, claim: Claim) -> Outcome:
        try:
            return _accepted(self.notifier.send(claim.message))
        except Rejected as error:
            status = Status.SUPPRESSED if error.suppressed else Status.FAILED
            return Outcome("rejected", status, error.reason)
        except Unavailable as error:
            return self._again(claim, "unavailable", error.reason, error.retry_after or 0)
        except ChannelDown as error:
            return Outcome("channel_down", Status.QUEUED, error.reason, wait=float(self.settings.lease), burns=False)
        except Uncertain as error:
            return Outcome("uncertain", Status.UNKNOWN, error.reason)
        except Exception as error:
            # Outside the contract nothing says that it was not sent; so it is not sent again.
            log.exception("the notifier %s is defective", self.settings.sms)
            return Outcome("error", Status.UNKNOWN, f"notifier_error: {type(error).__name__}")

    def _again(self, claim: Claim, name: str, reason: str, at_least: float) -> Outcome:
        if claim.number >= self.settings.max_attempts:
            return Outcome(name, Status.FAILED, reason)
        cap = self.settings.retry_cap
        wait = max(backoff(claim.number, self.settings.retry_base, cap), min(at_least, cap))
        return Outcome(name, Status.QUEUED, reason, wait=wait)

    def _write(self, claim: Claim, outcome: Outcome) -> None:
        """Write what came of an attempt, if the row still names it; else a later attempt speaks for the message."""
        reason = None if outcome.reason is None else _printable(outcome.reason)
        with self.database.transaction() as session:
            now = db.now(session)
            recorded = session.execute(
                update(Notification)
                .where(
                    Notification.id == claim.notification_id,
                    Notification.lease_owner == claim.owner,
                    Notification.attempts == claim.number,
                    Notification.status == Status.SENDING,
                )
                .values(
                    status=outcome.status,
                    reason=reason,
                    attempts=claim.number if outcome.burns else claim.number - 1,
                    next_attempt_at=None if outcome.wait is None else now + timedelta(seconds=outcome.wait),
                    lease_owner=None,
                    lease_expires_at=None,
                    updated_at=now,
                    **outcome.columns,
                )
                .returning(Notification)
            ).scalar_one_or_none()
            log.log(
                logging.INFO if outcome.name in ("accepted", "unavailable") else logging.WARNING,
                "notification %s by %s, attempt %s: %s, so %s%s",
                claim.notification_id,
                self.settings.sms,
                claim.number,
                outcome.name,
                outcome.status,
                f" ({reason})" if reason else "",
            )
            if recorded is None:
                log.warning("attempt %s at notification %s outlived its lease", claim.number, claim.notification_id)
            elif recorded.status == Status.QUEUED and recorded.order_id is None:
                # The order was deleted while this attempt ran.
                recorded.status, recorded.reason = Status.CANCELLED, "order_deleted"
                recorded.next_attempt_at = None
            session.execute(
                update(NotificationAttempt)
                .where(
                    NotificationAttempt.notification_id == claim.notification_id,
                    NotificationAttempt.lease_owner == claim.owner,
                )
                .values(
                    outcome=outcome.name,
                    reason=reason,
                    finished_at=now,
                    reference=outcome.columns.get("reference"),
                )
            )
            reports.bind(session, [claim.notification_id])


def _accepted(receipt: Receipt) -> Outcome:
    """The provider took the message. Raises whatever comes of a receipt that breaks the contract."""
    reference, cost = receipt.reference, receipt.cost
    if not reference or reference != _printable(reference):
        raise ValueError("a receipt needs a printable reference of at most 255 characters")
    columns: dict[str, Any] = {"reference": reference}
    if cost is not None:
        if not 0 <= cost.amount < 10**10 or not re.fullmatch("[A-Z]{3}", cost.currency):
            raise ValueError("a receipt's cost is a decimal, and a currency of ISO 4217")
        columns |= {"cost_amount": Decimal(cost.amount), "cost_currency": cost.currency}
    return Outcome("accepted", Status.SENT, columns=columns)


def _printable(told: object) -> str:
    """What a provider says, as every database can keep it: printable, and 255 characters at most."""
    return "".join(letter if letter.isprintable() else " " for letter in str(told))[:255]


def _give_up(claimed: Notification, status: Status, reason: str) -> None:
    """End a notification instead of trying it again; the claim was no attempt."""
    claimed.status, claimed.reason = status, reason
    claimed.attempts -= 1
    claimed.next_attempt_at = claimed.lease_owner = claimed.lease_expires_at = None


def _is_due(now: datetime) -> Any:
    return or_(
        and_(Notification.status == Status.QUEUED, Notification.next_attempt_at <= now),
        and_(Notification.status == Status.SENDING, Notification.lease_expires_at <= now),
    )

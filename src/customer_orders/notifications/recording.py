"""Recording what came of attempts, where the row still names them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.bulk import change_and_insert
from customer_orders.events import MessageChange, MessagesChanged, announce
from customer_orders.logs import about
from customer_orders.notifications import channels, reports
from customer_orders.notifications.claiming import Claim, deadline
from customer_orders.notifications.models import Notification, NotificationAttempt, Status
from customer_orders.notifications.outcomes import Outcome, backoff
from customer_orders.settings import Section

log = logging.getLogger(__name__)

NOTIFICATIONS, ATTEMPTS = cast(Table, Notification.__table__), cast(Table, NotificationAttempt.__table__)

KNOWN = select(
    *(
        NOTIFICATIONS.c[name]
        for name in (
            *("id", "lease_owner", "attempts", "status", "unburned", "reason", "requeued_at", "created_at"),
            *("sent_at", "reference", "cost_amount", "cost_currency"),
        )
    ),
    channels.TROUBLED.label("troubled"),
    reports.ANY_KEPT.label("any_kept"),
)


def record(session: Session, settings: Section, done: Sequence[tuple[Claim, Outcome]]) -> None:
    """Write what came of attempts; where a row no longer names one, a later attempt speaks for the message."""
    now = db.now(session, sharing=reports.ANSWERS)
    # locked in one order, so that nobody waits in a circle
    locked = KNOWN.where(NOTIFICATIONS.c.id.in_([claim.notification_id for claim, _ in done]))
    locked = locked.order_by(NOTIFICATIONS.c.id).with_for_update(of=NOTIFICATIONS)
    rows = {row.id: row for row in session.connection().execute(locked, {"notifier": settings.sms})}
    paused_until = None
    if not rows or any(row.troubled for row in rows.values()) or any(one.works is False for _, one in done):
        heard = [(claim.owner, outcome) for claim, outcome in done]
        paused_until = channels.heard(session, settings, settings.sms, now, heard)
    changes, attempts, news = [], [], []
    for claim, outcome in done:
        row = rows.get(claim.notification_id)
        if row is not None and row[1:4] == (claim.owner, claim.number, Status.SENDING):
            changes.append(_change(settings, row, claim, outcome, now, paused_until))
            if changes[-1]["status"] != Status.QUEUED:
                news.append(_news(settings, row, outcome, changes[-1]))
            attempts.append(_attempt(settings, claim, outcome))
            _say(settings, claim, outcome, changes[-1]["status"])
        else:
            _say(settings, claim, outcome, None)
            if not _mended(session, claim, outcome) and row is not None:
                attempts.append(_attempt(settings, claim, outcome))
    change_and_insert(session, NOTIFICATIONS, changes, ATTEMPTS, attempts)
    announce(session, MessagesChanged(news))
    answered = [claim.notification_id for claim, outcome in done if outcome.status in (Status.SENT, Status.UNKNOWN)]
    if answered and any(row.any_kept for row in rows.values()):
        reports.bind(session, answered)


def _change(
    settings: Section, row: Any, claim: Claim, outcome: Outcome, now: datetime, paused_until: datetime | None
) -> dict[str, Any]:
    """What an attempt makes of its notification."""
    spared = outcome.name == "channel_down" or (outcome.name == "unavailable" and paused_until is not None)
    change = {
        "id": row.id,
        "status": outcome.status,
        "reason": outcome.reason,
        "unburned": row.unburned + spared,
        "next_attempt_at": None,
        "sent_at": row.sent_at,
        "reference": row.reference,
        "cost_amount": row.cost_amount,
        "cost_currency": row.cost_currency,
        "updated_at": now,
        "lease_owner": None,
        "lease_expires_at": None,
    }
    if outcome.status == Status.QUEUED:
        burned = claim.number - change["unburned"]
        return change | _again(settings, row, burned, outcome, now, paused_until)
    if outcome.status in (Status.SENT, Status.UNKNOWN):
        change["sent_at"] = claim.finished_at
    if outcome.status == Status.UNKNOWN and row.reason is not None:
        change["reason"] = row.reason
    if outcome.reference is not None:
        change["reference"] = outcome.reference
    if outcome.cost is not None:
        change |= {"cost_amount": outcome.cost.amount, "cost_currency": outcome.cost.currency}
    return change


def _news(settings: Section, row: Any, outcome: Outcome, change: Mapping[str, Any]) -> MessageChange:
    """What an attempt made of its notification, for those who count."""
    reason = change["reason"]
    handed_over = None
    if change["status"] == Status.SENT:
        due = row.requeued_at or row.created_at
        if settings.quiet_hours is not None:
            due = settings.quiet_hours.resume(due)
        handed_over = max(0.0, (change["sent_at"] - due).total_seconds())
    return MessageChange(
        settings.sms,
        change["status"],
        # a notifier says why in words of its own
        outcome.name if reason is not None and reason == outcome.reason else reason,
        handed_over,
        cost=None if outcome.cost is None else (outcome.cost.amount, outcome.cost.currency),
    )


def _again(
    settings: Section, row: Any, burned: int, outcome: Outcome, now: datetime, paused_until: datetime | None
) -> dict[str, Any]:
    """When the next attempt is, unless there is none."""
    if row.reason is not None:
        # the order went, or was cancelled, or the customer anonymized, while this attempt ran
        return {"status": Status.CANCELLED, "reason": row.reason}
    if burned >= settings.max_attempts:
        return {"status": Status.FAILED}
    cap = settings.retry_cap
    # NaN is no wish
    asked = outcome.retry_after if outcome.retry_after > 0 else 0
    wait = max(backoff(max(burned, 1), settings.retry_base, cap), min(asked, cap))
    following = now if outcome.name == "channel_down" else now + timedelta(seconds=wait)
    if paused_until is not None:
        following = max(following, paused_until)
    if settings.quiet_hours is not None:
        following = settings.quiet_hours.resume(following)
    if following >= deadline(settings, row):
        return {"status": Status.FAILED}
    return {"next_attempt_at": following}


def _attempt(settings: Section, claim: Claim, outcome: Outcome) -> dict[str, Any]:
    return {
        "notification_id": claim.notification_id,
        "number": claim.number,
        "lease_owner": claim.owner,
        "notifier": settings.sms,
        "started_at": claim.started_at,
        "finished_at": claim.finished_at,
        "outcome": outcome.name,
        "reason": outcome.reason,
        "reference": outcome.reference,
    }


def _mended(session: Session, claim: Claim, outcome: Outcome) -> bool:
    """Tell what became of an attempt that was called abandoned; whether it was."""
    told = session.connection().execute(
        update(ATTEMPTS)
        .where(
            ATTEMPTS.c.notification_id == claim.notification_id,
            ATTEMPTS.c.lease_owner == claim.owner,
            ATTEMPTS.c.number == claim.number,
        )
        .values(
            finished_at=claim.finished_at,
            outcome=outcome.name,
            reason=outcome.reason,
            reference=outcome.reference,
        )
    )
    return bool(told.rowcount)


def _say(settings: Section, claim: Claim, outcome: Outcome, status: str | None) -> None:
    usual = status is not None and outcome.name in ("accepted", "unavailable")
    with about(claim.fields):
        log.log(
            logging.INFO if usual else logging.WARNING,
            "notification %s by %s, attempt %s: %s, %s%s",
            claim.notification_id,
            settings.sms,
            claim.number,
            outcome.name,
            "but it outlived its lease" if status is None else f"so {status}",
            f" ({outcome.reason})" if outcome.reason else "",
        )

"""Doing away with what need not be kept any more, by the settings ``retention.*``; orders and sums are never touched.

In batches, each a transaction of its own: everything else goes on meanwhile, and whoever is killed has done what they
have done. What another is at just now is left for the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.api.idempotency import IdempotencyKey
from customer_orders.auth.models import RefreshFamily, RefreshToken
from customer_orders.db import Database
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt, Status
from customer_orders.settings import Section

# Rows of one transaction.
BATCH = 1000
# What is to be sent, or may be sent again by itself.
GOING = (Status.QUEUED, Status.SENDING, Status.UNKNOWN)
# From then on nobody sends again what is unknown (notifications.unknown_after is 30 days at most).
SETTLED = timedelta(days=31)


@dataclass(frozen=True)
class Rule:
    """One kind of thing that is done away with.

    :param what: the things, for people.
    :param setting: the name of the setting that tells for how many days they are kept; None: their own row tells.
    :param due: the criteria for those that were kept since before a time.
    :param wiped: the values that rows get; None: they are deleted.
    """

    what: str
    setting: str | None
    model: Any
    due: Callable[[datetime], Sequence[ColumnElement[bool]]]
    wiped: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Pruned:
    """What came of a rule so far. ``days``: None where things are kept for ever, or their own row tells."""

    rule: Rule
    days: int | None
    count: int
    over: bool


RULES = (
    Rule(
        "numbers and words of messages",
        "notifications_text",
        Notification,
        lambda before: [
            Notification.updated_at < before,
            or_(
                Notification.status.not_in(GOING),
                (Notification.status == Status.UNKNOWN) & (Notification.sent_at < before - SETTLED),
            ),
            Notification.recipient.is_not(None),
        ],
        {"recipient": None, "text": ""},
    ),
    Rule(
        "attempts at messages",
        "attempts",
        NotificationAttempt,
        lambda before: [
            NotificationAttempt.finished_at < before,
            NotificationAttempt.notification_id.in_(select(Notification.id).where(Notification.status.not_in(GOING))),
        ],
    ),
    Rule(
        "delivery reports",
        "delivery_reports",
        DeliveryReport,
        lambda before: [DeliveryReport.received_at < before, DeliveryReport.notification_id.is_not(None)],
    ),
    Rule(
        "refresh tokens",
        "refresh_tokens",
        RefreshToken,
        lambda before: [RefreshToken.expires_at < before],
    ),
    # the tokens that are left of one go with it
    Rule(
        "sessions",
        "refresh_tokens",
        RefreshFamily,
        lambda before: [RefreshFamily.expires_at < before],
    ),
    Rule(
        "answers kept for an Idempotency-Key",
        None,
        IdempotencyKey,
        lambda before: [IdempotencyKey.expires_at < before],
    ),
)


def prune(database: Database, settings: Section, tell: Callable[[Pruned], None], *, dry_run: bool) -> None:
    """Do away with all that is due, or only count it.

    :param tell: hears of each batch, and last of each rule.
    """
    for rule in RULES:
        days = settings[rule.setting].value if rule.setting else None
        if rule.setting and days is None:
            tell(Pruned(rule, None, 0, True))
            continue
        count, last = 0, 0
        with database.transaction(writes=False) as session:
            due = rule.due(db.now(session) - timedelta(days=days or 0))
            if dry_run:
                count = session.scalar(select(func.count()).select_from(rule.model).where(*due)) or 0
        while not dry_run:
            with database.transaction() as session:
                ids = _batch(session, rule, [*due, rule.model.id > last])
            if not ids:
                break
            count, last = count + len(ids), ids[-1]
            tell(Pruned(rule, days, count, False))
        tell(Pruned(rule, days, count, True))


def _batch(session: Session, rule: Rule, due: Sequence[ColumnElement[bool]]) -> Sequence[int]:
    """Do away with some; tells which."""
    model = rule.model
    ids: Sequence[int] = session.scalars(
        select(model.id).where(*due).order_by(model.id).limit(BATCH).with_for_update(of=model, skip_locked=True)
    ).all()
    if ids:
        change: Any = delete(model) if rule.wiped is None else update(model).values(**rule.wiped)
        session.execute(change.where(model.id.in_(ids)).execution_options(synchronize_session=False))
    return ids

"""What goes in and out of the notification services."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import colander

from customer_orders.api.fields import (
    Body,
    Currency,
    Flag,
    Integer,
    PhoneFilter,
    Text,
    Timestamp,
    Word,
    Words,
    node,
)
from customer_orders.api.paging import UNINDEXED, ListQuery
from customer_orders.notifications.models import DeliveryReport, Notification, NotificationAttempt, Status
from customer_orders.notifications.resending import MOST, RESENDABLE, Resent
from customer_orders.segments import GSM_7, UCS_2


class CostRead(colander.MappingSchema):
    """What the provider charged."""

    amount = node(Text(maximum=32), "Decimal with four places, as text.")
    currency = node(Currency(), "ISO 4217 code.")


class NotificationSummary(colander.MappingSchema):
    """What became of a message."""

    id = node(Integer(1), "Id of the notification: `GET /notifications/{id}` tells more.")
    status = node(Word(*Status), "What became of it.")
    reason = node(Text(), "Why, where there is something to say.", nullable=True)
    attempts = node(
        Integer(), "Attempts begun since it was queued (again), less those that found the whole channel down."
    )
    next_attempt_at = node(Timestamp(), "When it is tried next.", nullable=True)
    cost = CostRead(description="What the provider charged, if it said.", nullable=True)
    notifier = node(Text(), "Who sent it last.", nullable=True)
    updated_at = node(Timestamp(), "When this last changed.")


class NotificationRead(NotificationSummary):
    """A message to a customer, and what became of it."""

    example: dict[str, Any] = {
        "id": 1,
        "order": 1,
        "customer": 1,
        "event": "order_placed",
        "channel": "sms",
        "recipient": "+254713812939",
        "text": "Your order has been created. Thank you for shopping with us!",
        "language": None,
        "encoding": "gsm-7",
        "segments": 1,
        "status": "sent",
        "reason": None,
        "attempts": 1,
        "next_attempt_at": None,
        "cost": {"amount": "0.8000", "currency": "KES"},
        "notifier": "africastalking",
        "reference": "ATXid_1",
        "request_id": "5f1c0e2d9b7a4c3e8f6a1b2c3d4e5f60",
        "created_at": "2026-01-31T08:00:00.000000Z",
        "updated_at": "2026-01-31T08:00:01.000000Z",
        "requeued_at": None,
        "sent_at": "2026-01-31T08:00:01.000000Z",
        "delivered_at": None,
    }

    id = node(Integer(1), "Id of the notification.")
    order = node(Integer(1), "Id of the order that it tells of; null: it was deleted.", nullable=True)
    customer = node(Integer(1), "Id of the customer whom it is for; null: they were deleted.", nullable=True)
    event = node(Text(maximum=32), "What it tells of, such as order_placed.")
    channel = node(Text(maximum=16), "How it travels: sms.")
    recipient = node(Text(), "Phone number that it goes to, E.164; null: it was wiped.", nullable=True)
    text = node(Text(minimum=0, maximum=65535), "Its words; empty: there are none, or they were wiped.")
    language = node(Text(maximum=35), "Language tag of the text, if known.", nullable=True)
    encoding = node(Text(maximum=8), "Alphabet that the text needs: gsm-7 or ucs-2.", nullable=True)
    segments = node(Integer(), "SMS that the text takes.", nullable=True)
    reference = node(Text(), "The provider's own id of it, as last sent.", nullable=True)
    request_id = node(
        Text(maximum=64), "The request that queued it (last): its `X-Request-Id`; null: none did.", nullable=True
    )
    created_at = node(Timestamp(), "When it was written.")
    requeued_at = node(Timestamp(), "When it was last queued again.", nullable=True)
    sent_at = node(Timestamp(), "When the provider took it, or may have taken it.", nullable=True)
    delivered_at = node(Timestamp(), "When it arrived, as the provider tells.", nullable=True)


class AttemptRead(colander.MappingSchema):
    """One attempt to send a message."""

    number = node(Integer(1), "1 for the first.")
    notifier = node(Text(maximum=64), "Who was to send it.")
    outcome = node(
        Text(maximum=16),
        "What came of it: accepted, rejected, unavailable, channel_down, uncertain, error, or abandoned (its process "
        "died). One that runs is not told of yet.",
        nullable=True,
    )
    reason = node(Text(), "Why, where there is something to say.", nullable=True)
    reference = node(Text(), "The provider's own id of what was sent.", nullable=True)
    started_at = node(Timestamp(), "When it began.")
    finished_at = node(Timestamp(), "When it ended.", nullable=True)


class NotificationWithAttempts(NotificationRead):
    """A message to a customer, what became of it, and every attempt to send it."""

    example = {
        **NotificationRead.example,
        "attempt_log": [
            {
                "number": 1,
                "notifier": "africastalking",
                "outcome": "accepted",
                "reason": None,
                "reference": "ATXid_1",
                "started_at": "2026-01-31T08:00:00.500000Z",
                "finished_at": "2026-01-31T08:00:01.000000Z",
            }
        ],
    }

    attempt_log = colander.SequenceSchema(AttemptRead(), description="Every attempt to send it, the first one first.")


class NotificationQuery(ListQuery):
    """What the list of notifications can be asked for."""

    searches = ("event", "notifier", "reason")

    reference = node(Text(), "The provider's own id, exactly.", missing=colander.drop)
    status = node(Word(*Status), "What became of it.", missing=colander.drop)
    order = node(Integer(1), "Id of the order.", missing=colander.drop)
    customer = node(Integer(1), "Id of the customer.", missing=colander.drop)
    phone = node(PhoneFilter(), "Number that it goes to, in any way people write it.", missing=colander.drop)
    event = node(Text(maximum=32), f"What it tells of, such as order_placed. {UNINDEXED}", missing=colander.drop)
    notifier = node(Text(maximum=64), f"Who sent it last. {UNINDEXED}", missing=colander.drop)
    reason = node(Text(), f"Part of the reason, in capitals or not. {UNINDEXED}", missing=colander.drop)


class ResendBody(Body):
    """How to send a message again."""

    optional = True
    example = {"force": False}

    force = node(Flag(), "Whether to send it though the customer wants no SMS; for an admin.", missing=False)


class ResendAllBody(Body):
    """What to send again. Filters narrow together, and mean what they mean in the list."""

    example = {"status": ["failed", "expired"], "created_at__gte": "2026-01-31T08:00:00Z", "dry_run": True}

    status = node(Words(*RESENDABLE), "What became of it: one or more of these.")
    event = node(Text(maximum=32), "What it tells of, such as order_placed.", missing=colander.drop)
    notifier = node(Text(maximum=64), "Who sent it last.", missing=colander.drop)
    reason = node(Text(), "Part of the reason, in capitals or not.", missing=colander.drop)
    customer = node(Integer(1), "Id of the customer.", missing=colander.drop)
    created_at__gte = node(Timestamp(), "Created then or later.", missing=colander.drop)
    created_at__lt = node(Timestamp(), "Created before.", missing=colander.drop)
    after = node(Integer(), "Begin after this id: `next_after` of the call before.", missing=0)
    limit = node(Integer(1, MOST), "How many at most, the oldest first.", missing=MOST)
    dry_run = node(Flag(), "Whether only to tell what would be sent again.", missing=False)


class ResentRead(colander.MappingSchema):
    """What was queued again, or would be."""

    example = {
        "dry_run": True,
        "count": 2,
        "ids": [17, 23],
        "remaining": 0,
        "next_after": None,
        "skipped": {"opted-out": 1},
    }

    dry_run = node(Flag(), "true: nothing was done.")
    count = node(Integer(), "How many are queued again, or would be.")
    ids = colander.SequenceSchema(colander.SchemaNode(Integer(1)), description="Their ids.")
    remaining = node(Integer(), "How many more there are to send again after these.")
    next_after = node(Integer(1), "What to send as `after` to go on; null: nothing remains.", nullable=True)
    skipped = colander.MappingSchema(
        unknown="preserve",
        description="How many that match cannot be sent again, by the code of the problem that one of them alone gets.",
    )


class NotificationDraft(NotificationSummary):
    """A message as it would be queued; ``next_attempt_at`` is when it would be sent."""

    id = node(Integer(1), "Always null: there is none.", nullable=True)
    text = node(Text(0, maximum=100_000), "Its words; empty: there are none.")
    language = node(Text(maximum=35), "Language tag of the words; null: of no particular one.", nullable=True)
    encoding = node(Word(GSM_7, UCS_2), "How it would be sent; null: there are no words.", nullable=True)
    segments = node(Integer(), "SMS that it would take.", nullable=True)


@dataclass(frozen=True)
class Told:
    """What became of the last message about something. ``version`` grows with each change of any message about it."""

    summary: dict[str, Any] | None = None
    version: int = 0


def cost(amount: Decimal, currency: str | None) -> dict[str, Any]:
    """A cost as JSON."""
    return {"amount": f"{amount:.4f}", "currency": currency}


def summary(found: Notification) -> dict[str, Any]:
    """A notification as an order tells of it."""
    return {
        "id": found.id,
        "status": found.status,
        "reason": found.reason,
        "attempts": found.attempts - found.unburned,
        "next_attempt_at": found.next_attempt_at if found.status == Status.QUEUED else None,
        "cost": None if found.cost_amount is None else cost(found.cost_amount, found.cost_currency),
        "notifier": found.notifier,
        "updated_at": found.updated_at,
    }


def draft(found: Notification) -> dict[str, Any]:
    """A notification that was only rehearsed."""
    return {**summary(found), "id": None, **_words(found)}


def _words(found: Notification) -> dict[str, Any]:
    return {
        "text": found.text,
        "language": found.language,
        "encoding": found.encoding,
        "segments": found.segments,
    }


def notification(found: Notification) -> dict[str, Any]:
    """A notification as JSON."""
    return {
        **summary(found),
        **_words(found),
        "order": found.order_id,
        "customer": found.customer_id,
        "event": found.event,
        "channel": found.channel,
        "recipient": found.recipient,
        "reference": found.reference,
        "request_id": found.request_id,
        "created_at": found.created_at,
        "requeued_at": found.requeued_at,
        "sent_at": found.sent_at,
        "delivered_at": found.delivered_at,
    }


def attempt(made: NotificationAttempt) -> dict[str, Any]:
    """An attempt as JSON."""
    return {
        "number": made.number,
        "notifier": made.notifier,
        "outcome": made.outcome,
        "reason": made.reason,
        "reference": made.reference,
        "started_at": made.started_at,
        "finished_at": made.finished_at,
    }


def report(said: DeliveryReport) -> dict[str, Any]:
    """A delivery report as JSON."""
    return {
        "notifier": said.notifier,
        "reference": said.reference,
        "status": said.status,
        "reason": said.reason,
        "recipient": said.recipient,
        "received_at": said.received_at,
    }


def resent(done: Resent, *, dry_run: bool) -> dict[str, Any]:
    """What came of sending many again, as JSON."""
    return {
        "dry_run": dry_run,
        "count": len(done.ids),
        "ids": done.ids,
        "remaining": done.remaining,
        "next_after": done.ids[-1] if done.ids and done.remaining else None,
        "skipped": done.skipped,
    }

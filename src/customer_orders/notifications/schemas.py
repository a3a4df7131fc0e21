"""What goes out about notifications."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import colander

from customer_orders.api.fields import Currency, Integer, Text, Timestamp, Word, node
from customer_orders.notifications.models import Notification, Status
from customer_orders.segments import GSM_7, UCS_2


class CostRead(colander.MappingSchema):
    """What the provider charged."""

    amount = node(Text(maximum=32), "Decimal with four places, as text.")
    currency = node(Currency(), "ISO 4217 code.")


class NotificationSummary(colander.MappingSchema):
    """What became of a message."""

    status = node(Word(*Status), "What became of it.")
    reason = node(Text(), "Why, where there is something to say.", nullable=True)
    attempts = node(Integer(), "Attempts begun so far, less those that found the whole channel down.")
    next_attempt_at = node(Timestamp(), "When it is tried next.", nullable=True)
    cost = CostRead(description="What the provider charged, if it said.", nullable=True)
    notifier = node(Text(), "Who sent it last.", nullable=True)
    updated_at = node(Timestamp(), "When this last changed.")


class NotificationDraft(NotificationSummary):
    """A message as it would be queued; ``next_attempt_at`` is when it would be sent."""

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
        "status": found.status,
        "reason": found.reason,
        "attempts": found.attempts,
        "next_attempt_at": found.next_attempt_at if found.status == Status.QUEUED else None,
        "cost": None if found.cost_amount is None else cost(found.cost_amount, found.cost_currency),
        "notifier": found.notifier,
        "updated_at": found.updated_at,
    }


def draft(found: Notification) -> dict[str, Any]:
    """A notification that was only rehearsed."""
    return {
        **summary(found),
        "text": found.text,
        "language": found.language,
        "encoding": found.encoding,
        "segments": found.segments,
    }

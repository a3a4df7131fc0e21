"""What happens in the order book, as frozen plain data, and :func:`announce`.

A service announces; listeners run in the same session and transaction, so what they write is committed or
rolled back with what they heard about. ``db.py`` puts the listeners into the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

Listener = Callable[[Session, Any], None]


@dataclass(frozen=True)
class CustomerFacts:
    """The customer as a message needs them. ``phone_number``: E.164; None of one who was anonymized."""

    id: int
    username: str
    phone_number: str | None
    reference: str | None
    language: str | None
    sms_opt_out: bool


@dataclass(frozen=True)
class OrderFacts:
    """The order as a message needs it. ``amount``: minor units of ``currency`` (ISO 4217)."""

    id: int
    item: str
    amount: int
    currency: str
    reference: str | None


@dataclass(frozen=True)
class OrderPlaced:
    """An order was recorded."""

    order: OrderFacts
    customer: CustomerFacts


@dataclass(frozen=True)
class OrderStatusChanged:
    """An order went one step on. ``before`` and ``after``: where it stood, and where it stands now."""

    order: OrderFacts
    customer: CustomerFacts
    before: str
    after: str


@dataclass(frozen=True)
class OrderDeleted:
    """An order is about to be deleted; announced before its row goes."""

    order_id: int


@dataclass(frozen=True)
class MessageChange:
    """What a message became; said once each time, whoever found out.

    :param notifier: by whom; None: nobody has had it so far.
    :param status: what it is now; that it is being sent, or will be tried again, is no news.
    :param reason: why, as it is kept, or in a word of ours where a provider's own words are kept.
    :param handed_over: seconds that the provider took it after, from when it might be sent; None unless it did now.
    :param arrived: seconds that the phone had it after, from when the order was placed; None unless it has by now, and
        tells of a new order.
    :param cost: what the provider charges: an amount and a currency (ISO 4217).
    :param reported: which message it is, if its provider reported it.
    :param traceparent: then, the place in a trace of the request that queued it, if it has one.
    """

    notifier: str | None
    status: str
    reason: str | None = None
    handed_over: float | None = None
    arrived: float | None = None
    cost: tuple[Decimal, str] | None = None
    reported: int | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class MessagesChanged:
    """Messages became something."""

    changes: Sequence[MessageChange]


@dataclass(frozen=True)
class ChannelPaused:
    """A notifier begins a pause: its provider is down."""

    notifier: str


@dataclass(frozen=True)
class CustomerAnonymizing:
    """A customer is about to be anonymized; announced before their row is locked.

    Rows that others lock before that of the customer, such as their orders, are locked now: nobody waits in a circle.
    """

    customer_id: int


@dataclass(frozen=True)
class CustomerAnonymized:
    """Who a customer is was wiped from their own row, which is locked: each listener wipes what it holds of them.

    :param username: the name that was wiped, and ``phone_number``, E.164, the number: for finding copies of them.
    """

    customer_id: int
    username: str
    phone_number: str


@dataclass(frozen=True)
class CustomerExported:
    """All that is held on a customer is asked for: each listener adds its part to ``collected``, under its own name."""

    customer_id: int
    phone_number: str | None
    collected: dict[str, Any]


@dataclass(frozen=True)
class Audited:
    """Something that a line in the audit trail tells of.

    :param action: what was done, as ``subject.verb``: ``customer.changed``, ``session.revoked``.
    :param subject_id: which of them; several where the same was done to each; None where it is not one.
    :param before: what was, and ``after`` what is, without secrets: all fields or only those that changed. None: there
        was no such thing before, or there is none after. If nothing differs, nothing was done.
    :param at: when, where the service has asked for the time anyway; None: now.
    """

    action: str
    subject_id: int | Sequence[int] | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    at: datetime | None = None


def snapshot(row: Any) -> dict[str, Any]:
    """The present values of a row by column, for what was ``before`` and what is ``after``."""
    return {one.columns[0].name: getattr(row, one.key) for one in inspect(type(row)).column_attrs}


def announce(session: Session, event: object) -> None:
    """Tell every listener for this kind of event, in the order in which they were registered.

    A listener that raises makes the transaction fail: nothing is half done.
    """
    listeners: dict[type, list[Listener]] = session.info["listeners"]
    for listener in listeners.get(type(event), ()):
        listener(session, event)

"""Notifications and the attempts to deliver them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, literal_column
from sqlalchemy.orm import Mapped, mapped_column

from customer_orders.tables import Base, BigInt, FourPlaces, primary_key


class Status(StrEnum):
    """What became of a notification: the one list."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"


class Notification(Base):
    """One message to one person; its row is the outbox, so a process's memory holds nothing that matters.

    ``order_id`` and ``customer_id`` become null when what they name is deleted.
    ``attempts`` counts those that were begun; ``unburned`` of them do not count towards the most that are made: those
    that found the whole channel down, and all before it was queued again (at ``requeued_at``).
    ``lease_owner`` names the attempt that may record its result, until ``lease_expires_at``.
    ``sent_at``: when the provider took it, or may have taken it. ``encoding``: ``gsm-7`` or ``ucs-2``.
    ``recipient`` is null, and ``text`` empty, once both were wiped: it is never sent again then.
    ``request_id``: the request that queued it, and ``traceparent`` that one's place in a trace (W3C Trace Context).
    ``version`` counts changes.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        # what is due, oldest first; many may have one time, such as the end of the quiet hours
        Index(None, "status", "next_attempt_at", "id"),
        # what waits for its report for too long
        Index(None, "status", "sent_at"),
        # the last message about an order
        Index(None, "order_id", "id"),
        # orders by what became of their last message
        Index(None, "status", "order_id"),
        # what else lists are filtered by
        Index(None, "customer_id", "id"),
        Index(None, "recipient", "id"),
        Base.__table_args__,
    )

    id: Mapped[int] = primary_key()
    order_id: Mapped[int | None] = mapped_column(BigInt, ForeignKey("orders.id", ondelete="SET NULL"))
    customer_id: Mapped[int | None] = mapped_column(BigInt, ForeignKey("customers.id", ondelete="SET NULL"))
    event: Mapped[str] = mapped_column(String(32))
    channel: Mapped[str] = mapped_column(String(16))
    recipient: Mapped[str | None] = mapped_column(String(255))
    text: Mapped[str] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(String(35))
    encoding: Mapped[str | None] = mapped_column(String(8))
    segments: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(255))
    attempts: Mapped[int] = mapped_column(default=0)
    unburned: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime | None]
    requeued_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None]
    notifier: Mapped[str | None] = mapped_column(String(64))
    reference: Mapped[str | None] = mapped_column(String(255), index=True)
    cost_amount: Mapped[Decimal | None] = mapped_column(FourPlaces)
    cost_currency: Mapped[str | None] = mapped_column(String(3))
    request_id: Mapped[str | None] = mapped_column(String(64))
    traceparent: Mapped[str | None] = mapped_column(String(55))
    version: Mapped[int] = mapped_column(default=1, server_default="1", onupdate=literal_column("version + 1"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class NotificationAttempt(Base):
    """One attempt to send, written when it ended; one whose process died, when its lease is found expired.

    ``outcome`` is null only of attempts that an earlier version began and did not end.
    """

    __tablename__ = "notification_attempts"

    id: Mapped[int] = primary_key()
    notification_id: Mapped[int] = mapped_column(BigInt, ForeignKey("notifications.id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    lease_owner: Mapped[str] = mapped_column(String(32))
    notifier: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(255))
    reference: Mapped[str | None] = mapped_column(String(255), index=True)


class DeliveryReport(Base):
    """What a provider told of a message afterwards; ``notification_id`` is null while it matches none."""

    __tablename__ = "delivery_reports"
    __table_args__ = (
        # the same again changes nothing
        UniqueConstraint("notifier", "reference", "status"),
        Index(None, "notifier", "recipient"),
        Base.__table_args__,
    )

    id: Mapped[int] = primary_key()
    notifier: Mapped[str] = mapped_column(String(64))
    reference: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(255))
    recipient: Mapped[str | None] = mapped_column(String(255))
    notification_id: Mapped[int | None] = mapped_column(
        BigInt, ForeignKey("notifications.id", ondelete="CASCADE"), index=True
    )
    received_at: Mapped[datetime] = mapped_column(index=True)


class Channel(Base):
    """How a notifier fares, so that all processes pause together.

    ``failures``: those in a row. ``pauses``: those in a row, each longer than the last. While ``paused_until`` lies
    ahead nothing is sent; after it, one attempt, ``probe_owner``'s, finds out whether it works again.
    """

    __tablename__ = "channels"

    notifier: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    pauses: Mapped[int] = mapped_column(default=0)
    paused_until: Mapped[datetime | None]
    probe_owner: Mapped[str | None] = mapped_column(String(32))
    reason: Mapped[str | None] = mapped_column(String(255))
    updated_at: Mapped[datetime]
